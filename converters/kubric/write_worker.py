"""Writer of worker output folders, from the layout in Kubric's file_io.py."""

from __future__ import annotations

import colorsys
import io
import json
import struct
import zlib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from datakit.scene import encode_png
from datakit.worlds import World

from .write_common import Capture, capture

_TIFF_DESCRIPTION, _TIFF_SAMPLES_PER_PIXEL = 270, 277


def write_worker(worlds: Iterable[World], out: Path) -> None:
    """Write one folder per world, named after it.

    Raises:
        ConventionError: See `write_common.capture`.
    """
    for world in worlds:
        write_clip(capture(world), out / world.name)


def write_clip(clip: Capture, folder: Path) -> None:
    """Write a rendered clip: seven files a frame and three JSON files."""
    folder.mkdir(parents=True, exist_ok=True)
    num_frames = len(clip.rgba)
    palette = _palette(int(clip.segmentation.max()) + 1)
    ranges, flow_codes = {}, {}
    for name, flow in clip.flows.items():
        ranges[name], flow_codes[name] = quantise_flow(flow)
    for t in range(num_frames):
        files = {
            f"rgba_{t:05d}.png": encode_png(clip.rgba[t]),
            f"depth_{t:05d}.tiff": _tiff(clip.depth[t]),
            f"segmentation_{t:05d}.png": _palette_png(clip.segmentation[t], palette),
            f"normal_{t:05d}.png": encode_png(clip.normal[t]),
            f"object_coordinates_{t:05d}.png": encode_png(clip.object_coordinates[t]),
        }
        for name, codes in flow_codes.items():
            blue = np.zeros_like(codes[t][..., :1])
            files[f"{name}_{t:05d}.png"] = encode_png(np.concatenate([codes[t], blue], axis=-1))
        for name, data in files.items():
            (folder / name).write_bytes(data)
    flags = {key: clip.metadata["metadata"][key] for key in ("frame_rate", "step_rate", "seed")}
    _write_json(folder / "metadata.json", {**clip.metadata, "flags": flags})
    _write_json(folder / "data_ranges.json", ranges)
    _write_json(folder / "events.json", {"collisions": []})


def quantise_flow(flow: NDArray[np.float32]) -> tuple[dict[str, float], NDArray[np.uint16]]:
    """Encode flow with one range for both channels and all frames, truncating (kubric/file_io.py:282).

    Where nothing moves the range is degenerate and Kubric divides by zero; its pixels are then garbage, here
    zeros.

    Returns:
        {"min", "max"} and the uint16 codes.
    """
    low, high = flow.min(), flow.max()
    with np.errstate(invalid="ignore", divide="ignore"):
        codes = np.nan_to_num((flow - low) * np.float32(65535) / (high - low))
    return {"min": low.item(), "max": high.item()}, np.minimum(codes, 65535).astype(np.uint16)


def _palette(num: int) -> bytes:
    colours = [(0.0, 0.0, 0.0)] + [colorsys.hls_to_rgb(k / max(1, num - 1), 0.5, 0.7) for k in range(num - 1)]
    return bytes(round(255 * channel) for colour in colours for channel in colour)


def _palette_png(ids: NDArray[np.uint32], palette: bytes) -> bytes:
    """Encode an 8-bit palette PNG, as Kubric does; Pillow would pack few ids into 1, 2 or 4 bits."""
    height, width = ids.shape
    header = struct.pack(">IIBBBBB", width, height, 8, 3, 0, 0, 0)
    # Every row starts with its filter type, 0.
    rows = np.pad(ids.astype(np.uint8), ((0, 0), (1, 0)))
    chunks = (
        (b"IHDR", header),
        (b"PLTE", palette),
        (b"IDAT", zlib.compress(rows.tobytes(), 6)),
        (b"IEND", b""),
    )
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        for kind, data in chunks
    )


def _tiff(distance: NDArray[np.float32]) -> bytes:
    height, width = distance.shape
    buffer = io.BytesIO()
    description = json.dumps({"shape": [height, width, 1]})
    tags = {_TIFF_DESCRIPTION: description, _TIFF_SAMPLES_PER_PIXEL: 1}
    Image.fromarray(distance).save(buffer, format="TIFF", tiffinfo=tags)
    return buffer.getvalue()


def _write_json(path: Path, value: Any) -> None:
    path.write_text(json.dumps(value, indent=4, sort_keys=True))
