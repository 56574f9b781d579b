"""The kinds of PNG that Kubric's layers are."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from converters.native.png import GREY, PALETTE, RGB, RGBA, PngKind
from datakit.scene import decode_image

KINDS = {
    "rgba": PngKind(8, (RGBA,)),
    "video": PngKind(8, (RGB,)),
    "segmentation": PngKind(8, (PALETTE, GREY)),
    "segmentations": PngKind(8, (GREY, PALETTE)),
    "depth": PngKind(16, (GREY,)),
    "normal": PngKind(16, (RGB,)),
    "object_coordinates": PngKind(16, (RGB,)),
    "forward_flow": PngKind(16, (RGB,)),
    "backward_flow": PngKind(16, (RGB,)),
}


def decode_indices(data: bytes, where: str) -> NDArray[np.uint8]:
    """Decode a palette or grey segmentation PNG to its indices, (H, W) uint8."""
    return np.asarray(decode_image(data, where), dtype=np.uint8)
