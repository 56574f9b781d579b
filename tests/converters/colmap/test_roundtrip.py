"""World -> workspace -> converter -> the same world, for every form; and the reader's possible mistakes."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import converters.colmap as colmap
from converters.colmap import dense, lens, points, reader
from converters.colmap.write import LENS
from converters.colmap.write import write_workspace as write_one
from datakit import Visibility
from datakit import geometry as g
from datakit.certify import certify_scene
from datakit.errors import ConventionError, UsageError
from datakit.scene import Scene, open_scene, validate_scene, write_scene
from datakit.worlds import World, random_world

from .workspaces import FRAMES, PARAMS, SIZE, disagreements, open_workspace, small_world, write_workspace

WORLDS = {
    "room": lambda: small_world(1),
    "open": lambda: small_world(4, background="open", camera="rotating"),
    "zoom": lambda: small_world(2, lens="general"),
    "rig": lambda: small_world(3, num_views=2, num_frames=3),
}
CASES = [("sparse", w) for w in WORLDS] + [
    ("sparse-text", "rig"),
    ("dense", "open"),
    ("dense", "rig"),
    ("opencv", "zoom"),
]


@pytest.fixture(scope="module", params=CASES, ids="-".join)
def case(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[str, World, Scene]]:
    form, name = request.param
    world = WORLDS[name]()
    tmp = tmp_path_factory.mktemp("case")
    with open_workspace(write_workspace(tmp / "raw", form, world), tmp / "out") as scene:
        yield form, world, scene


def test_the_world_comes_back(case: tuple[str, World, Scene]) -> None:
    form, world, scene = case
    assert disagreements(world, scene, form) == []
    assert validate_scene(scene.path) == []


def test_images_pass_through_and_tags(case: tuple[str, World, Scene]) -> None:
    form, world, scene = case
    root = scene.path.parent.parent / "raw" / world.name / "images"
    for view in scene.views.values():
        for t, name in enumerate(view.frame_names):
            assert view.encoded("rgb", t) == (root / name).read_bytes()
        assert view.times.tolist() == list(range(view.num_frames))
        assert view.depth_kind == "mvs" and not view.record["is_rectified"]
    assert (scene.id, scene.scale, scene.time_kind, scene.licence) == (world.name, "sfm", "set", "unstated")
    assert scene.metadata["depth"] == ("geometric depth maps" if form == "dense" else "points")


def test_provenance_is_the_hash_of_every_file(case: tuple[str, World, Scene]) -> None:
    _, _, scene = case
    raw = scene.path.parent.parent / "raw"
    (ref,) = colmap.scenes(raw, PARAMS)
    stream = colmap.read(raw, ref, PARAMS)
    list(stream.frames)
    for source in stream.sources:
        data = (raw / source.path).read_bytes()
        assert (source.size, source.sha256) == (len(data), hashlib.sha256(data).hexdigest())
    assert sorted(source.path for source in stream.sources) == sorted(
        path.relative_to(raw).as_posix() for path in raw.rglob("*") if path.is_file()
    )


def test_points_are_seen_where_the_world_sees_them(case: tuple[str, World, Scene]) -> None:
    _, world, scene = case
    motion = scene.motion
    assert motion.instance_motion.tolist() == [1] and motion.points_world.shape[1:] == (1, 3)
    for name, view in scene.views.items():
        own = "camera" if len(scene.views) == 1 else name
        for t in range(view.num_frames):
            truth, _, _ = world.see(own, motion.points_world[:, 0], t / world.fps)
            visible = motion.point_state[name][:, t] == Visibility.VISIBLE
            assert visible.sum() > 10 and (truth[visible] == Visibility.VISIBLE).all()


def test_depth_maps_smaller_than_their_images_have_their_own_k(tmp_path: Path) -> None:
    world = small_world(1, size=(66, 50))
    write_one(world, tmp_path / "raw" / world.name, "dense", depth_scale=0.5)
    with open_workspace(tmp_path / "raw", tmp_path / "out") as scene:
        assert scene.views["camera"].depth_size == (33, 25)
        assert disagreements(world, scene, "dense") == []


@pytest.mark.parametrize("form", colmap.NATIVE_FORMS)
def test_written_bytes_are_deterministic(tmp_path: Path, form: str) -> None:
    trees = [write_workspace(tmp_path / name, form, small_world(4, num_frames=2)) for name in "ab"]
    files = [{p.relative_to(t): p.read_bytes() for p in t.rglob("*") if p.is_file()} for t in trees]
    assert files[0] == files[1] and files[0]


def test_what_colmap_cannot_express_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConventionError, match="nothing moves"):
        write_workspace(tmp_path, "sparse", small_world(1, motion="rigid"))
    with pytest.raises(UsageError):
        colmap.write_native(iter([]), tmp_path, "spars")


# --- rectified ------------------------------------------------------------------------------------------------------


def test_undistorted_images_show_the_world_through_their_new_k(tmp_path: Path) -> None:
    world = small_world(1, size=(130, 98), num_frames=2)
    root = write_workspace(tmp_path / "raw", "opencv", world)
    with open_workspace(root, tmp_path / "out", colmap.Params(distortion="undistort")) as scene:
        view = scene.views["camera"]
        assert view.record["camera_model"] == "pinhole" and view.record["is_rectified"]
        assert scene.provenance["params"]["distortion"] == "undistort"
        assert scene.metadata["num_images_encoded_again"] == 2
        assert validate_scene(scene.path) == []
        truth = world.render(1, intrinsics=view.intrinsics[1], size=view.size)
        inner = (slice(4, -4), slice(4, -4))
        right = np.abs(view.rgb(1).astype(float) - truth.rgb)[inner].mean()
        kept = write_workspace(tmp_path / "kept", "sparse", world)
        with open_workspace(kept, tmp_path / "out2") as plain:
            wrong = np.abs(plain.views["camera"].rgb(1).astype(float) - world.render(1).rgb).mean()
        assert wrong == 0
        shifted = np.abs(view.rgb(1).astype(float) - np.roll(truth.rgb, 1, axis=1))[inner].mean()
        # Bilinear, on textures as fine as pixels: not exact, but nowhere near a pixel off.
        assert right < 0.6 * shifted
        z = view.z_depth(1)
        known = np.isfinite(z)
        assert known.sum() > 40
        assert np.median(np.abs(z - truth.z_depth)[known]) < 0.1


# --- certificates, and the mistakes a reader could make ---------------------------------------------------------------

CERTIFIED = {"num_frames": 9, "size": (112, 84), "motion": "static"}
SEQUENCE = colmap.Params(time_kind="sequence", frame_rate=12)


@pytest.fixture(scope="module")
def certifiable(tmp_path_factory: pytest.TempPathFactory) -> tuple[World, Path]:
    world = random_world(0, **CERTIFIED)
    return world, write_workspace(tmp_path_factory.mktemp("certified"), "dense", world)


@pytest.mark.slow
@pytest.mark.parametrize("form", ["sparse", "dense", "opencv"])
def test_certificates_pass(tmp_path: Path, form: str) -> None:
    world = random_world(0, **CERTIFIED)
    with open_workspace(write_workspace(tmp_path / "raw", form, world), tmp_path / "out", SEQUENCE) as scene:
        certificate = certify_scene(scene)
    bad = [(c.name, c.reason) for c in certificate.checks if c.verdict in ("warn", "fail")]
    assert certificate.verdict == "pass", bad
    if form == "dense":
        assert certificate.check("depth_reprojection").verdict == "pass"
    assert certificate.check("track_depth").verdict == "pass"


def _pose(change: Callable[[np.ndarray], np.ndarray]) -> Callable[[pytest.MonkeyPatch], None]:
    right = points.world_from_cam

    def patch(monkey: pytest.MonkeyPatch) -> None:
        for module in (points, reader):
            monkey.setattr(module, "world_from_cam", lambda image: change(right(image)))

    return patch


def _image(change: Callable[[Any], Any]) -> Callable[[pytest.MonkeyPatch], None]:
    right = points.world_from_cam

    def patch(monkey: pytest.MonkeyPatch) -> None:
        for module in (points, reader):
            monkey.setattr(module, "world_from_cam", lambda image: right(change(image)))

    return patch


def _intrinsics(change: Callable[[np.ndarray], np.ndarray]) -> Callable[[pytest.MonkeyPatch], None]:
    right = lens.intrinsics_of
    return lambda monkey: monkey.setattr(lens, "intrinsics_of", lambda *values: change(right(*values)))


def _transposed_map(monkey: pytest.MonkeyPatch) -> None:
    right = dense.parse_depth_map

    def wrong(data: bytes, where: str) -> np.ndarray:
        z = right(data, where)
        return np.ascontiguousarray(z.reshape(z.shape[::-1]).T)

    monkey.setattr(reader, "parse_depth_map", wrong)


def _half(k: np.ndarray) -> np.ndarray:
    return k + np.array([[0, 0, 0.5], [0, 0, 0.5], [0, 0, 0]])


FAULTS: dict[str, tuple[Callable[[pytest.MonkeyPatch], None], bool]] = {
    # name: the mistake, and whether the certificate must fail on it by itself
    "poses not inverted": (_pose(np.linalg.inv), True),
    "OpenGL axes": (_pose(lambda m: m @ np.diag([1.0, -1, -1, 1])), True),
    "quaternion scalar last": (
        _image(lambda i: replace(i, quaternion_wxyz=np.roll(i.quaternion_wxyz, 1))),
        False,
    ),
    "translation taken as the centre": (
        _pose(lambda m: g.rigid_from(m[:3, :3], np.linalg.inv(m)[:3, 3])),
        False,
    ),
    "half a pixel added as if centres were integers": (_intrinsics(_half), False),
    "depth maps column by column": (_transposed_map, False),
    "images in the file's order": (
        lambda monkey: monkey.setattr(reader, "natural", lambda name: 0),
        False,
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize("fault", FAULTS)
def test_a_mistake_in_the_reader_is_caught(
    certifiable: tuple[World, Path], fault: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    world, root = certifiable
    make, is_seen_by_certificate = FAULTS[fault]
    params = replace(SEQUENCE, depth="dense")
    (ref,) = colmap.scenes(root, params)
    make(monkeypatch)
    write_scene(tmp_path / "s.h5", colmap.read(root, ref, params))
    with open_scene(tmp_path / "s.h5") as scene:
        assert disagreements(world, scene, "dense")
        if is_seen_by_certificate:
            assert certify_scene(scene).verdict == "fail"


def test_the_mistaken_lens_is_caught(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Tangential before radial terms, as some tools have them."""
    world = small_world(1)
    root = write_workspace(tmp_path / "raw", "opencv", world)
    right = lens.kept_lens

    def swapped(camera: Any) -> Any:
        kept = right(camera)
        return replace(kept, distortion=(*kept.distortion[2:], *kept.distortion[:2]))

    monkeypatch.setattr(lens, "kept_lens", swapped)
    with open_workspace(root, tmp_path / "out") as scene:
        assert "lens" in disagreements(world, scene, "opencv")
    assert LENS[1][0] != LENS[1][2] and (FRAMES, SIZE, PARAMS)
