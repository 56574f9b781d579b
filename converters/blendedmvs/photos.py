"""What must hold of a photo before its bytes are passed through."""

from __future__ import annotations

from datakit.errors import FormatError
from datakit.scene.codecs import jpeg_head

Size = tuple[int, int]


def check_photo(data: bytes, size: Size | None, where: str) -> Size:
    """Check that a file is a whole RGB JPEG.

    Args:
        data: The file.
        size: (W, H) it must have; None for any.
        where: Its name, for errors.

    Returns:
        (W, H).

    Raises:
        FormatError: Not a JPEG, truncated, grey or CMYK, absurdly large, or of another size.
    """
    found, components = jpeg_head(data, where)
    if components != 3:
        raise FormatError(
            "A photo is not in colour.", where=where, expected="an RGB JPEG", found=f"{components} components"
        )
    if size is not None and found != size:
        raise FormatError("An image has the wrong size.", where=where, expected=f"{size} (W, H)", found=found)
    return found
