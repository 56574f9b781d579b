"""COLMAP's cameras as pycolmap gets them: its C++ may refuse one, but neither end the process nor fail to end."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from .kit import Target


def make(_: Path) -> dict[str, Target]:
    from converters.colmap import lens
    from datakit.export.colmap_model import CAMERA_MODELS, ColmapCamera
    from datakit.geometry import unproject_distorted

    models = sorted(CAMERA_MODELS)
    points = np.random.default_rng(0).normal(size=(8, 3))

    def use(data: bytes) -> None:
        camera, distortion = camera_of(data)
        stored = lens.lens_of(camera, distortion, "x")
        lens.project_source(camera, points)
        width, height = stored.size
        uv_px = np.array([[0.5, 0.5], [width / 2, height / 2], [width - 0.5, height - 0.5]])
        unproject_distorted(uv_px, np.ones(3), stored.intrinsics, stored.model, stored.distortion)
        if stored.source is not None:
            straight = lens.rectify(np.zeros((camera.size[1], camera.size[0], 3), np.uint8), stored)
            assert straight.shape[1::-1] == stored.size

    def camera_of(data: bytes) -> tuple[ColmapCamera, str]:
        """Read model, parameter, size, and numbers: floats as they come, or what a camera has about that place."""
        head, rest = data[:5].ljust(5, b"\0"), data[5:]
        name = models[head[0] % len(models)]
        size = (1 + head[2] % 64, 1 + head[3] % 64)
        count = CAMERA_MODELS[name][1]
        codes = np.frombuffer(rest[: 4 * count].ljust(4 * count, b"\0"), "<i2").astype(float).reshape(-1, 2)
        raw = np.frombuffer(rest[: 4 * count].ljust(4 * count, b"\0"), "<f4").astype(float)
        num_focal = lens._KEPT[name][1] if name in lens._KEPT else lens._RECTIFIED_ONLY.get(name, 1)
        steps = [2e-3 * max(size)] * num_focal + [size[0] / 3e4, size[1] / 3e4] + [2e-3] * count
        tame = codes[:, 0] * np.array(steps[:count])
        mixed = np.where((head[4] >> (np.arange(count) % 8)) & 1, raw, tame)
        return ColmapCamera(1, name, size, tuple(float(v) for v in mixed)), ("auto", "keep", "undistort")[
            head[1] % 3
        ]

    seeds = []
    for number, name in enumerate(models):
        mild = np.zeros((CAMERA_MODELS[name][1], 2), "<i2")
        mild[:4, 0], mild[4:, 0] = (600, 15000, 15000, 15000)[: len(mild)], 5
        seeds.append(bytes([number, 2, 31, 23, 0]) + mild.tobytes())
    return {"colmap-lens": Target(seeds, use)}
