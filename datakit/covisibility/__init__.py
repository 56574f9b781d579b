"""Which frames of a scene show the same surfaces: measured from geometry, kept beside the scene."""

from .measure import Covisibility, CovisibilityParams, measure_covisibility
from .sets import draw_set, pack_overlap, unpack_overlap
from .split import PhotoWindow, split_photos
from .store import SUFFIX, read_covisibility, write_covisibility

__all__ = [
    "SUFFIX",
    "Covisibility",
    "CovisibilityParams",
    "PhotoWindow",
    "draw_set",
    "measure_covisibility",
    "pack_overlap",
    "read_covisibility",
    "split_photos",
    "unpack_overlap",
    "write_covisibility",
]
