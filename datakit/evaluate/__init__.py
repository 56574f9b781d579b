"""How good answers are, and what is to be beaten."""

from .apd import THRESHOLDS_PX, apd3d, focal_at_256, median_scale, points_within
from .depth import abs_rel, delta1, depth_scale
from .trivial import TRIVIAL, constant_depth, static_world

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
