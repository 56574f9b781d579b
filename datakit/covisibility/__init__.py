"""Which frames of a scene show the same surfaces: measured from geometry, kept beside the scene."""

from .measure import Covisibility, CovisibilityParams, measure_covisibility
from .sets import draw_set, pack_overlap, unpack_overlap
from .store import SUFFIX, read_covisibility, write_covisibility

__all__ = [
    "SUFFIX",
    "Covisibility",
    "CovisibilityParams",
    "draw_set",
    "measure_covisibility",
    "pack_overlap",
    "read_covisibility",
    "unpack_overlap",
    "write_covisibility",
]
