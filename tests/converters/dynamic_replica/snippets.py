"""Small sound pieces of native files, which fuzzing starts from."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import torch

from datakit.scene import encode_png
from tests.converters.co3dv2.snippets import FRAME

#: Of the pictures that the rasters belong to: (W, H).
SIZE = (6, 4)
#: An item of frame_annotations_<split>.jgz; its cameras are written as in CO3Dv2.
ROW: dict[str, Any] = {
    "sequence_name": "009850-3_obj",
    "frame_number": 0,
    "frame_timestamp": 0.0,
    "camera_name": "left",
    "image": {"path": "a/b.png", "size": [4, 6]},
    "depth": {"path": "a/d.png", "scale_adjustment": 1.0, "mask_path": None},
    "viewpoint": FRAME["viewpoint"],
    "instance_id_map_path": {"path": "a/i.png"},
    "trajectories": {"path": None},
    "flow_forward": {"path": "a/f.png"},
}
DEPTH_PNG = encode_png(np.arange(24, dtype=np.uint16).reshape(4, 6) * 1000)
#: dx beside dy.
FLOW_PNG = encode_png(np.arange(48, dtype=np.uint16).reshape(4, 12) * 1300)
MASK_PNG = encode_png(np.full((4, 6), 255, np.uint8))


def trajectory_file() -> bytes:
    """Make a file of trajectories/, of five vertices."""
    buffer = io.BytesIO()
    content = {
        "traj_3d_world": torch.arange(15.0).reshape(5, 3),
        "verts_inds_vis": torch.ones(5, dtype=torch.bool),
        "instances": torch.ones(5),
        "img": torch.zeros(2, 2, 3, dtype=torch.uint8),
    }
    torch.save(content, buffer)
    return buffer.getvalue()
