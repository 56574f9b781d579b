"""datakit: mixed 4D supervision from native dataset releases to training.

>>> from datakit import Visibility
>>> Visibility(3).name
'OUTSIDE'
"""

from importlib import import_module
from typing import Any

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

#: Rooms that are imported when they are first asked for.
_ROOMS = (
    "adapters",
    "certify",
    "convert",
    "covisibility",
    "d4rt",
    "evaluate",
    "export",
    "infer",
    "queries",
    "shards",
    "show",
    "stream",
    "train",
    "worlds",
)


def __getattr__(name: str) -> Any:
    if name in _ROOMS:
        return import_module(f"datakit.{name}")
    raise AttributeError(f"module 'datakit' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *_ROOMS})
