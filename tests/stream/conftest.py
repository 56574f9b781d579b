"""Shard sets that are small enough to stream thousands of samples from."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import pytest

from datakit.scene import write_scene
from datakit.shards import PackParams, pack
from datakit.worlds import World, random_world
from datakit.worlds.scene import world_scene_stream

FRAMES = 12
#: Dataset -> (first seed, scenes, frames, time_kind, scale)
DATASETS = {
    "alpha": (0, 3, FRAMES, "sequence", "metric"),
    "beta": (10, 2, 5, "sequence", "sfm"),
    "gamma": (20, 2, FRAMES, "set", "unknown"),
}


def make_world(seed: int, num_frames: int) -> World:
    return replace(random_world(seed, num_frames=num_frames, size=(48, 36), motion="rigid"), name=f"w{seed}")


def write_world(world: World, path: Path, **changes: str) -> None:
    scene = world_scene_stream(world)
    write_scene(path, replace(scene, record=replace(scene.record, **changes)))


@pytest.fixture(scope="session")
def shard_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("stream")
    for dataset, (seed, count, frames, time_kind, scale) in DATASETS.items():
        for at in range(seed, seed + count):
            path = root / f"{dataset}{at}.h5"
            write_world(make_world(at, frames), path, dataset=dataset, time_kind=time_kind, scale=scale)
    pack(sorted(root.glob("*.h5")), root / "set", params=PackParams(min_level="none"), progress=False)
    return root / "set"


@pytest.fixture
def shared_memory_names() -> set[str]:
    """Segments that are there before a test."""
    return segments()


def segments(*pids: int) -> set[str]:
    """Shared memory of streams that processes made; of this one by default. Other tests run beside this one."""
    root = Path("/dev/shm")
    if not root.is_dir():
        pytest.skip("this system does not list its shared memory")
    starts = tuple(f"psm_{pid}_" for pid in pids or (os.getpid(),))
    return {name for name in os.listdir(root) if name.startswith(starts)}
