"""Small sets that the tests of this folder share."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from datakit.shards import PackParams, ShardSet, open_set, pack
from datakit.worlds import random_world, write_world_scene
from tests.tiny import write_tiny

#: 6 + 5 frames in windows of 4 by 2: clips 0-4, 2-6 and 0-4, 1-5.
PARAMS = PackParams(clip_frames=4, stride=2, shard_bytes=150_000)


def certify(scene: Path, verdict: str = "pass") -> None:
    """Write the least that counts as a certificate beside a scene."""
    digest = hashlib.sha256(scene.read_bytes()).hexdigest()
    content = {"verdict": verdict, "scene_sha256": digest}
    scene.with_name(scene.stem + ".certificate.json").write_text(json.dumps(content))


@pytest.fixture(scope="session")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("scenes")
    tiny = write_tiny(folder / "square.h5", num_frames=6)
    world = folder / "world.h5"
    write_world_scene(random_world(3, num_frames=5, size=(64, 48), motion="mixed"), world)
    certify(tiny)
    certify(world, "warn")
    return [tiny, world]


@pytest.fixture(scope="session")
def packed(scenes: list[Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("sets") / "set"
    pack(scenes, out, params=PARAMS, progress=False)
    return out


@pytest.fixture
def shard_set(packed: Path) -> Iterator[ShardSet]:
    yield open_set(packed)
