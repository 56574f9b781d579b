from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from converters import waymo
from converters.waymo import v1
from converters.waymo.write_v1 import _record
from datakit.convert.api import SceneRef
from datakit.scene import write_scene
from datakit.worlds import DrivingWorld, driving_world


@pytest.fixture(scope="session")
def world() -> DrivingWorld:
    return driving_world(1, num_frames=5, size=(96, 64))


@pytest.fixture(scope="session")
def natives(world: DrivingWorld, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Form -> root of a native tree of the same world."""
    roots = {}
    for form in waymo.NATIVE_FORMS:
        roots[form] = tmp_path_factory.mktemp(form)
        waymo.write_native(iter([world]), roots[form], form)
    return roots


@pytest.fixture(scope="session")
def scene_files(natives: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("scenes")
    return {form: convert(root, folder / f"{form}.h5") for form, root in natives.items()}


def only_scene(root: Path, **params: object) -> SceneRef:
    (ref,) = waymo.scenes(root, waymo.Params(**params))
    return ref


def convert(root: Path, path: Path, **params: object) -> Path:
    write_scene(path, waymo.read(root, only_scene(root), waymo.Params(**params)))
    return path


def segment_file(root: Path) -> Path:
    return next(root.rglob("*.tfrecord"))


def drop(messages: Any, is_dropped: Callable[[Any], bool]) -> None:
    """Take messages out of a repeated field."""
    for index in reversed(range(len(messages))):
        if is_dropped(messages[index]):
            del messages[index]


def edited_segment(natives: dict[str, Path], out: Path, edit: Any) -> Path:
    """Copy the v1 tree with every Frame changed by `edit(frame, number)`."""
    source = segment_file(natives["v1"])
    target = out / source.relative_to(natives["v1"])
    target.parent.mkdir(parents=True)
    with open(target, "wb") as file:
        for number, (frame, _, _) in enumerate(v1.frames(source, check_crc=True)):
            edit(frame, number)
            file.write(_record(frame.SerializeToString()))
    return out
