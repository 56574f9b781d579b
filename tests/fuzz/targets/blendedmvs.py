"""BlendedMVS: depth maps, and the text files of cameras, pairs and lists."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from .kit import Target


def make(_: Path) -> dict[str, Target]:
    from converters.blendedmvs import pfm, texts
    from tests.converters.blendedmvs.snippets import CAM_MATRICES, PAIRS, SCENE_LINE

    def cam(data: bytes) -> None:
        camera = texts.parse_cam(data, "x")
        texts.pose_of(camera, "x")
        texts.intrinsics_of(camera, "x")

    values = np.array([[1, 2.5, np.nan], [0, np.inf, 3]], np.float32)
    return {
        "pfm": Target(
            [f"Pf\n3 2\n{s}\n".encode() + values.tobytes() for s in ("-1.000000", "1.0")],
            lambda data: pfm.z_from_pfm(pfm.parse_pfm(data, "x")),
        ),
        "cam": Target([CAM_MATRICES + tail for tail in (b"1 0.5\n", b"1 0.5 4\n", b"1e0 .5 4.0 9\n")], cam),
        "pair": Target([PAIRS], lambda d: texts.parse_pairs(d, "x")),
        "list": Target([SCENE_LINE], lambda data: texts.parse_list(data, "x")),
    }
