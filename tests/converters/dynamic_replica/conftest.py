from __future__ import annotations

from pathlib import Path

import pytest

pytest.importorskip("torch")

from converters import dynamic_replica as dr
from datakit.convert.api import SceneRef
from datakit.scene import write_scene
from datakit.worlds import World


@pytest.fixture(scope="session")
def world() -> World:
    return dr.make_world(5, num_frames=4, size=(96, 64), motion="mixed")


@pytest.fixture(scope="session")
def natives(world: World, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Form -> root of a native tree of the same world."""
    roots = {}
    for form in dr.NATIVE_FORMS:
        roots[form] = tmp_path_factory.mktemp(form)
        dr.write_native(iter([world]), roots[form], form)
    return roots


@pytest.fixture(scope="session")
def scene_files(natives: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("scenes")
    return {form: convert(root, folder / f"{form}.h5") for form, root in natives.items()}


def only_scene(root: Path) -> SceneRef:
    (ref,) = dr.scenes(root, dr.Params())
    return ref


def convert(root: Path, path: Path, **params: object) -> Path:
    write_scene(path, dr.read(root, only_scene(root), dr.Params(**params)))
    return path
