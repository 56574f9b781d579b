"""A scene in memory and on disk: read, write, check, migrate."""

from .check import validate_scene
from .codecs import check_image, check_jpeg, check_png, decode_image, encode_png
from .describe import describe_scene
from .migrate import migrate_scene
from .read import Scene, View, open_scene
from .records import (
    LAYER_NAMES,
    Frame,
    LayerRecord,
    MotionRecord,
    Provenance,
    SceneRecord,
    SceneStream,
    SourceFile,
    ViewRecord,
)
from .write import PARTIAL_SUFFIX, check_scene_record, write_scene

__all__ = [
    "LAYER_NAMES",
    "PARTIAL_SUFFIX",
    "Frame",
    "LayerRecord",
    "MotionRecord",
    "Provenance",
    "Scene",
    "SceneRecord",
    "SceneStream",
    "SourceFile",
    "View",
    "ViewRecord",
    "check_image",
    "check_jpeg",
    "check_png",
    "check_scene_record",
    "decode_image",
    "describe_scene",
    "encode_png",
    "migrate_scene",
    "open_scene",
    "validate_scene",
    "write_scene",
]
