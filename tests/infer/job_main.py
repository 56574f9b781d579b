"""The jobs of the tests; also a program that can be killed."""

from __future__ import annotations

import hashlib
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from datakit.infer.answers import Answer, ClipFrames, ClipInfo
from datakit.infer.params import InferParams

SEED, FRAMES, SIZE = 3, 16, (48, 36)
#: Windows of frames 0-7, 4-11, 8-15.
PARAMS = InferParams(window=8, overlap=4, depth_size=16, motion_size=8, camera_grid=6)


def tree(folder: Path) -> dict[str, str]:
    """Hash every file below a folder."""
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


@dataclass(frozen=True)
class Slope:
    """Answers at no cost: a still camera before a slope whose distance hangs on the brightness of the frame asked in.

    So a window that was made of wrong frames has other bytes.
    """

    delay: float = 0.0
    max_frames: int = 48
    tilt: float = 1.0

    def open(self, clip: ClipFrames) -> SlopeClip:
        return SlopeClip(clip.info, clip.rgb.reshape(len(clip.rgb), -1).mean(axis=1), self)

    def describe(self) -> dict[str, Any]:
        return {"name": "slope", "tilt": self.tilt}


@dataclass(frozen=True)
class SlopeClip:
    info: ClipInfo
    brightness: np.ndarray
    owner: Slope

    @property
    def num_frames(self) -> int:
        return self.info.num_frames

    def ask(self, uv: Any, t_src: Any, t_tgt: Any, t_cam: Any) -> Answer:
        time.sleep(self.owner.delay)
        z = 4 + self.owner.tilt * uv[:, 0] + 1e-4 * self.brightness[t_src]
        xyz = np.column_stack([(uv - 0.5) * z[:, None], z])
        count = len(uv)
        return Answer(
            xyz,
            np.asarray(uv, np.float64),
            np.ones(count),
            np.zeros((count, 3)),
            np.tile([0.0, 0.0, -1.0], (count, 1)),
            0.1 + 0.8 * uv[:, 1],
        )


def main(source: str, out: str, delay: str = "0") -> None:
    from datakit.infer.job import infer

    infer(source, out, Slope(float(delay)), PARAMS, tracks="grid:6")


if __name__ == "__main__":
    main(*sys.argv[1:])
