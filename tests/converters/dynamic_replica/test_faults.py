"""The table of faults: each mistake of a Dynamic Replica reader, made on purpose, must show.

`caught` says what shows it: "world" is a comparison with the synthetic world, "certificate" the scene's own data, which
contradict each other.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import datakit
from converters import dynamic_replica as dr
from converters.dynamic_replica import annotations, rasters, reading, trajectories
from converters.dynamic_replica.write import FIRST_ID, VIEWS
from converters.native import halves
from datakit import geometry as g
from datakit.certify import certify_scene
from datakit.motion import Visibility
from datakit.worlds import World

from .conftest import convert

Patch = Callable[[pytest.MonkeyPatch], None]


@pytest.fixture(scope="module")
def stage() -> World:
    return dr.make_world(5, num_frames=10, size=(112, 84), motion="mixed")


@pytest.fixture(scope="module")
def native(stage: World, tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("stage")
    dr.write_native(iter([stage]), root, "split")
    return root


def _pose(edit: Callable[[np.ndarray], np.ndarray]) -> Patch:
    def patch(mp: pytest.MonkeyPatch) -> None:
        read = annotations.world_from_cam
        mp.setattr(annotations, "world_from_cam", lambda view, where: edit(read(view, where)))

    return patch


def _intrinsics(edit: Callable[[np.ndarray, Any, tuple[int, int]], np.ndarray]) -> Patch:
    def patch(mp: pytest.MonkeyPatch) -> None:
        read = annotations.intrinsics
        mp.setattr(
            annotations, "intrinsics", lambda view, size, where: edit(read(view, size, where), view, size)
        )

    return patch


def _half_pixel_less(k: np.ndarray, view: Any, size: tuple[int, int]) -> np.ndarray:
    out = k.copy()
    out[:2, 2] -= 0.5
    return out


def _ndc_by_each_side(k: np.ndarray, view: Any, size: tuple[int, int]) -> np.ndarray:
    half = np.array(size) / 2
    out = np.diag([*(np.array(view["focal_length"]) * half), 1.0])
    out[:2, 2] = half - np.array(view["principal_point"]) * half
    return out


def _principal_point_mirrored(k: np.ndarray, view: Any, size: tuple[int, int]) -> np.ndarray:
    out = k.copy()
    out[:2, 2] = np.array(size) - k[:2, 2]
    return out


def _depth(edit: Callable[[float, float], np.ndarray]) -> Patch:
    return lambda mp: mp.setattr(halves, "z_of_code", edit)


_Z = halves.z_of_code
_FLOW = rasters.flow_codes


def _linear_depth(scale: float, nearest: float = 0) -> np.ndarray:
    codes = np.arange(1 << 16, dtype=np.float32)
    return np.where(codes == 0, np.nan, (codes - 14800) * np.float32(0.0014)).astype(np.float32)


def _unscaled_depth(scale: float, nearest: float = 0) -> np.ndarray:
    return _Z(1.0, nearest)


def _inverse_depth(scale: float, nearest: float = 0) -> np.ndarray:
    return (1 / _Z(scale, nearest)).astype(np.float32)


def _infinite_depth(scale: float, nearest: float = 0) -> np.ndarray:
    return halves.float_of_code() * np.float32(scale)


def _flow(edit: Callable[[np.ndarray], np.ndarray]) -> Patch:
    def patched(*args: Any) -> np.ndarray:
        return np.ascontiguousarray(edit(_FLOW(*args).view(np.float16))).view(np.uint16)

    return lambda mp: mp.setattr(rasters, "flow_codes", patched)


def _eyes_swapped(mp: pytest.MonkeyPatch) -> None:
    read = reading.rows_of

    def swapped(path: Path, sequence: str) -> list[Any]:
        rows = read(path, sequence)
        other = {(row.eye, row.number): row for row in rows}
        names = {"left": "right", "right": "left"}
        return [replace(row, world_from_cam=other[names[row.eye], row.number].world_from_cam) for row in rows]

    mp.setattr(reading, "rows_of", swapped)


def _vertices(edit: Callable[[Any], Any]) -> Patch:
    def patch(mp: pytest.MonkeyPatch) -> None:
        read = trajectories.read_vertices
        mp.setattr(trajectories, "read_vertices", lambda *args: edit(read(*args)))

    return patch


def _flag_is_all(mp: pytest.MonkeyPatch) -> None:
    def states(row: Any, vertices: Any) -> np.ndarray:
        flags = np.where(vertices.is_visible, Visibility.VISIBLE, Visibility.OCCLUDED)
        return flags.astype(np.uint8)

    mp.setattr(trajectories, "states", states)


def _ids_one_less(mp: pytest.MonkeyPatch) -> None:
    read = rasters.instances
    mp.setattr(rasters, "instances", lambda *args: np.maximum(read(*args), 1) - 1)


#: Fault -> how it is made, and what shows it.
FAULTS: dict[str, tuple[Patch, tuple[str, ...]]] = {
    "R transposed": (
        _pose(lambda p: g.rigid_from(p[:3, :3].T, p[:3, 3])),
        ("world", "certificate"),
    ),
    "pose inverted": (_pose(g.invert_rigid), ("world", "certificate")),
    "PyTorch3D's axes kept": (
        _pose(lambda p: p @ np.diag([-1.0, -1, 1, 1])),
        ("world", "certificate"),
    ),
    "eyes swapped": (_eyes_swapped, ("world", "certificate")),
    "half a pixel": (_intrinsics(_half_pixel_less), ("world",)),
    "NDC by each side": (_intrinsics(_ndc_by_each_side), ("world", "certificate")),
    "principal point mirrored": (_intrinsics(_principal_point_mirrored), ("world", "certificate")),
    "depth as integers": (_depth(_linear_depth), ("world", "certificate")),
    "inverse depth": (_depth(_inverse_depth), ("world", "certificate")),
    "depth without its scale": (_depth(_unscaled_depth), ("world",)),
    "codes for unknown kept": (_depth(_infinite_depth), ("world", "certificate")),
    "flow negated": (_flow(np.negative), ("world", "certificate")),
    "flow's halves swapped": (_flow(lambda f: f[..., ::-1].copy()), ("world", "certificate")),
    "visible flag alone": (_flag_is_all, ("world",)),
    "vertices' places in the camera's axes": (
        _vertices(lambda v: replace(v, points_world=v.points_world * np.float32([-1, -1, 1]))),
        ("world",),
    ),
    "instance ids one less": (_ids_one_less, ("world",)),
}


def _truths(path: Path, world: World) -> Iterator[tuple[str, bool]]:
    """Compare a scene with its world: (what, whether it agrees)."""
    with datakit.open_scene(path) as scene:
        yield "no frame is called broken", scene.metadata["broken_depth_frames"] == []
        for eye, view in scene.views.items():
            truth = world.views[VIEWS[eye]]
            yield f"{eye}: poses", np.allclose(view.world_from_cam, truth.world_from_cam, atol=1e-6)
            yield f"{eye}: K", np.allclose(view.intrinsics, truth.intrinsics, atol=1e-6)
            for t in (1, 4):
                frame = world.render(t, VIEWS[eye])
                want = frame.z_depth.copy()
                want[0, :4] = np.nan
                yield f"{eye}: depth", np.allclose(view.z_depth(t), want, rtol=2**-11, equal_nan=True)
                flow = view.flow(t, "forward")
                yield (
                    f"{eye}: flow",
                    np.allclose(flow, frame.flow_forward, rtol=2**-11, atol=1e-6, equal_nan=True),
                )
                yield f"{eye}: instances", np.array_equal(view.instances(t), frame.instances + FIRST_ID)
        motion = scene.motion
        mine = motion.points_world.astype(np.float64)
        state, _, _ = world.see("camera", mine.reshape(-1, 3), np.tile(world.times, len(mine)))
        yield "states", bool((motion.point_state["left"] == state.reshape(mine.shape[:2])).mean() > 0.99)
        body = next(body for body in world.bodies if body.is_dynamic)
        tracks = {p.tobytes() for p in world.trajectories(body.id, 300).astype(np.float32)}
        found = {p.tobytes() for p in motion.points_world[motion.point_instance == body.id + FIRST_ID]}
        yield "trajectories", bool(found) and found <= tracks


def test_the_clean_scene_agrees_with_its_world(native: Path, stage: World, tmp_path: Path) -> None:
    path = convert(native, tmp_path / "s.h5")
    assert [what for what, agrees in _truths(path, stage) if not agrees] == []


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_shows_against_the_world(
    fault: str, native: Path, stage: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    FAULTS[fault][0](monkeypatch)
    path = convert(native, tmp_path / "s.h5")
    monkeypatch.undo()
    assert [what for what, agrees in _truths(path, stage) if not agrees]


@pytest.mark.slow
def test_the_clean_certificate_passes(native: Path, tmp_path: Path) -> None:
    certificate = certify_scene(convert(native, tmp_path / "s.h5"))
    assert certificate.verdict == "pass", [(c.name, c.reason) for c in certificate.checks]


@pytest.mark.slow
@pytest.mark.parametrize("fault", [name for name, (_, caught) in FAULTS.items() if "certificate" in caught])
def test_a_fault_fails_the_certificate(
    fault: str, native: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    FAULTS[fault][0](monkeypatch)
    path = convert(native, tmp_path / "s.h5")
    monkeypatch.undo()
    certificate = certify_scene(path)
    assert certificate.verdict == "fail", [(c.name, c.verdict, c.reason) for c in certificate.checks]
