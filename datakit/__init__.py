"""datakit: mixed 4D supervision from native dataset releases to training.

>>> from datakit import Visibility
>>> Visibility(3).name
'OUTSIDE'
"""

from datakit.errors import (
    ConventionError,
    DatakitError,
    FormatError,
    LayoutError,
    QualityError,
    ShardError,
    UsageError,
)
from datakit.motion import MotionKind, Reason, Tracks, Visibility
from datakit.scene import Scene, View, open_scene, validate_scene

__version__ = "0.1.0"

__all__ = [
    "ConventionError",
    "DatakitError",
    "FormatError",
    "LayoutError",
    "MotionKind",
    "QualityError",
    "Reason",
    "Scene",
    "ShardError",
    "Tracks",
    "UsageError",
    "View",
    "Visibility",
    "open_scene",
    "validate_scene",
]
