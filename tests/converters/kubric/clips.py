"""Small native clips for the tests, and ways to damage them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import converters.kubric as kubric
from converters.kubric.write_example import _example_class
from converters.kubric.write_tfds import frame_record
from converters.native.tfrecord import walk_records
from datakit.scene import Scene, open_scene, write_scene
from datakit.worlds import World, random_world

PARAMS = kubric.Params()
FRAMES, SIZE = 5, (48, 32)


def small_world(seed: int = 1, **changes: Any) -> World:
    return random_world(seed, **{"num_frames": FRAMES, "size": SIZE} | changes)


def write_clip(out: Path, form: str = "worker", world: World | None = None) -> Path:
    kubric.write_native(iter([world or small_world()]), out, form)
    return out


def open_clip(root: Path, out: Path, index: int = 0, params: Any = PARAMS) -> Scene:
    """Convert one clip the whole way: native -> scene file -> reader."""
    ref = list(kubric.scenes(root, params))[index]
    path = out / f"{ref.id}.h5"
    out.mkdir(parents=True, exist_ok=True)
    write_scene(path, kubric.read(root, ref, params))
    return open_scene(path)


def drain(root: Path, params: Any = PARAMS) -> None:
    """Read every clip below a root to the end, without writing."""
    for ref in list(kubric.scenes(root, params)):
        for _ in kubric.read(root, ref, params).frames:
            pass


def clip_folder(root: Path) -> Path:
    """The one worker folder of a root written by `write_clip`."""
    return next(path.parent for path in root.rglob("metadata.json"))


def shard_file(root: Path) -> Path:
    return next(iter(sorted(root.rglob("*.tfrecord-*"))))


def edit_json(path: Path, change: Callable[[dict[str, Any]], None]) -> None:
    value = json.loads(path.read_text())
    change(value)
    path.write_text(json.dumps(value))


def edit_record(root: Path, change: Callable[[Any], None]) -> None:
    """Change the features of the first record of a one-record shard, through the protobuf runtime."""
    path = shard_file(root)
    (span,) = walk_records(path)
    example = _example_class().FromString(path.read_bytes()[12 : span.length - 4])
    change(example.features.feature)
    path.write_bytes(frame_record(example.SerializeToString(deterministic=True)))
