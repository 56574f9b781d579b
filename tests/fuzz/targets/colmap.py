"""COLMAP: models as binary and as text, and depth maps."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from .kit import Target


def make(folder: Path) -> dict[str, Target]:
    from converters.colmap import dense, lens
    from converters.colmap.model import FILES, parse_model
    from tests.converters.colmap.workspaces import write_hand

    out: dict[str, Target] = {}
    for suffix in (".bin", ".txt"):
        model = write_hand(folder / suffix[1:], as_text=suffix == ".txt") / "sparse" / "0"
        good = [(model / f"{name}{suffix}").read_bytes() for name in FILES]
        for number, name in enumerate(FILES):

            def parse(
                data: bytes, number: int = number, good: list[bytes] = good, suffix: str = suffix
            ) -> None:
                files = [*good[:number], data, *good[number + 1 :]]
                for camera in parse_model(*files, suffix, FILES).cameras.values():
                    lens.lens_of(camera, "auto", "x")

            out[f"colmap-{name}-{suffix[1:]}"] = Target([good[number]], parse)
    depth = b"4&3&1&" + np.arange(12, dtype="<f4").tobytes()
    out["colmap-depth"] = Target([depth], lambda data: dense.parse_depth_map(data, "x"))
    return out
