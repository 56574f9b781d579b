"""JPEG, of every dataset."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
from PIL import Image

from .kit import Target


def make(_: Path) -> dict[str, Target]:
    from datakit.scene.codecs import decode_image, jpeg_head

    pixels = Image.fromarray((np.arange(20 * 24 * 3) % 251).astype(np.uint8).reshape(20, 24, 3))
    seeds = []
    for options in (
        {"quality": 30},
        {"quality": 60, "progressive": True},
        {"subsampling": 0, "restart_marker_rows": 1},
    ):
        file = io.BytesIO()
        pixels.save(file, "JPEG", **options)
        seeds.append(file.getvalue())
    file = io.BytesIO()
    pixels.convert("L").save(file, "JPEG")

    def photo(data: bytes) -> None:
        jpeg_head(data, "x")
        decode_image(data, "x")

    return {"jpeg": Target([*seeds, file.getvalue()], photo)}
