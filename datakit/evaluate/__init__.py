"""How good answers are, and what is to be beaten."""

from .tracks3d import THRESHOLDS_PX, apd3d, focal_at_256, median_scale, points_within
from .trivial import TRIVIAL, constant_depth, static_world
from .video_depth import abs_rel, delta1, depth_scale

__all__ = [
    "THRESHOLDS_PX",
    "TRIVIAL",
    "abs_rel",
    "apd3d",
    "constant_depth",
    "delta1",
    "depth_scale",
    "focal_at_256",
    "median_scale",
    "points_within",
    "static_world",
]
