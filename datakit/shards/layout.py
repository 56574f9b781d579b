"""Names and constants of a shard set on disk; `docs/shards.md` describes it for other readers."""

from __future__ import annotations

import hashlib
import json
import re
from typing import Any

FORMAT = "datakit-shards"
#: Readers refuse another number.
FORMAT_VERSION = 2

#: Members of a sample in the order in which they lie in the tar; a clip without a layer lacks its member.
KINDS = (
    "clip.json",
    "arrays.safetensors",
    "rgb.pack",
    "z_depth.pack",
    "instances.pack",
    "normals.pack",
)
MANIFEST, INDEX, SCENES = "manifest.json", "index.safetensors", "scenes.jsonl"

#: Certificate levels, best first. "none" is a scene without a certificate.
LEVELS = ("pass", "warn", "not_testable", "fail", "none")
SCALES = ("metric", "sfm", "unknown")
TIME_KINDS = ("sequence", "set")
DEPTH_KINDS = ("rendered", "sensor", "mvs", "lidar", "pseudo")
#: Columns of the index's `difficulty`; each is also a per-track array "difficulty_<name>" of the clip.
DIFFICULTY = ("motion", "occlusion", "reappearance", "parallax")

_NOT_IN_KEY = re.compile(r"[^A-Za-z0-9_-]")


def shard_name(number: int) -> str:
    """Name the shard.

    >>> shard_name(3)
    'shard-000003.tar'
    """
    return f"shard-{number:06d}.tar"


def clip_key(dataset: str, scene_id: str, view: str, start: int) -> str:
    """Make the key of a sample; it has no dot, because webdataset ends a key at the first one.

    >>> clip_key("kubric", "movi_e.7", "camera", 0)
    'kubric-movi_e_7-camera-000000'
    """
    return _NOT_IN_KEY.sub("_", f"{dataset}-{scene_id}-{view}-{start:06d}")


def canonical_json(value: Any) -> bytes:
    """Give the one JSON text of a value: sorted keys, no spaces, UTF-8, no NaN."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    return text.encode("utf-8")


def sha256_json(value: Any) -> str:
    """Hash the canonical JSON of a value."""
    return hashlib.sha256(canonical_json(value)).hexdigest()
