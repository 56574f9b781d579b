"""What an image's own storage and its camera leave in a band of it that is no texture.

A smooth picture has next to nothing in a fine band, and what differs there between two frames is the rounding of its
JPEG coefficients. Such differences say nothing of geometry.
"""

from __future__ import annotations

import io
from functools import lru_cache

import numpy as np
from PIL import Image

from datakit.scene import View

#: Places at which each of the 8x8 frequencies' own range is sampled, along each axis.
_PLACES = 8


def band_noise(view: View, index: int, octave: int, camera_noise: float) -> float:
    """Estimate the noise of an image in one of its bands.

    Args:
        view: View with colour images.
        index: Frame.
        octave: See `raster.band`.
        camera_noise: Standard deviation of single pixels, grey levels, independent of each other.

    Returns:
        Standard deviation, grey levels of 0..255. Of a smooth JPEG it is more than there is: most of its coefficients
        are nearly zero before they are rounded to it.
    """
    rounding = 1.0 / 12 / 3  # of three channels that are averaged
    variance = (camera_noise**2 + rounding) * _white_gain(octave)
    if view.record["layers"]["rgb"]["codec"] == "jpeg":
        variance += _jpeg_variance(_table(view.encoded("rgb", index)), octave)
    return float(np.sqrt(variance))


def _white_gain(octave: int) -> float:
    """Variance that the band keeps of white noise: the integral of the squared difference of two Gaussians."""
    s, t = 2.0**octave, 2.0 ** (octave + 1)
    return (1 / s**2 + 1 / t**2 - 4 / (s**2 + t**2)) / (4 * np.pi)


def _table(encoded: bytes) -> tuple[int, ...]:
    """Read the quantisation table of luminance from a JPEG file, 64 steps, row by row; empty for none.

    Steps of chroma are far larger, but nearly all of its coefficients are zero before and after: counted as the others
    are, they made the noise of pictures of quality 50 to 95 two to five times what it is.
    """
    with Image.open(io.BytesIO(encoded)) as image:
        tables: dict[int, list[int]] = getattr(image, "quantization", {})
    return tuple(tables[min(tables)]) if tables else ()


@lru_cache(maxsize=64)
def _jpeg_variance(table: tuple[int, ...], octave: int) -> float:
    """Return the variance of the band of what rounding of DCT coefficients leaves, grey levels squared.

    A coefficient's error is uniform in a step q, of variance q**2 / 12. Its basis function is one of 64 orthonormal
    ones (ITU-T T.81, A.3.3) and fills the frequencies around (u, v) * pi / 8.
    """
    if not table:
        return 0.0
    steps = np.array(table, dtype=np.float64).reshape(8, 8)
    at = (np.arange(8)[:, None] + (np.arange(_PLACES) + 0.5) / _PLACES - 0.5) * (np.pi / 8)
    square = at.reshape(-1, 1) ** 2 + at.reshape(1, -1) ** 2
    s = 2.0**octave
    # The Fourier transforms of the two Gaussians of `raster.band`.
    power = (np.exp(-(s**2) * square / 2) - np.exp(-2 * s**2 * square)) ** 2
    by_frequency = power.reshape(8, _PLACES, 8, _PLACES).mean(axis=(1, 3))
    return float((by_frequency * steps**2).mean() / 12)
