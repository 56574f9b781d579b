"""World -> native tree -> converter -> the same world, for every native form."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import converters.kubric as kubric
from datakit import Visibility
from datakit import geometry as g
from datakit.errors import ConventionError
from datakit.scene import Scene, validate_scene
from datakit.worlds import World, random_world

from .clips import FRAMES, PARAMS, SIZE, open_clip, small_world, write_clip

STEP = {"worker": 1, "tfds": 1, "tfds-half": 2, "tfds-quarter": 4}
WORLDS = {
    "rigid": lambda size: small_world(1, size=size),
    "static": lambda size: small_world(2, size=size, motion="static", camera="rotating"),
    "open": lambda size: small_world(3, size=size, background="open"),
}


@pytest.fixture(scope="module", params=[(f, w) for f in STEP for w in WORLDS], ids=lambda p: "-".join(p))
def case(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> tuple[str, int, World, Scene]:
    form, name = request.param
    step = STEP[form]
    world = WORLDS[name]((SIZE[0] * step, SIZE[1] * step))
    tmp = tmp_path_factory.mktemp("case")
    with open_clip(write_clip(tmp / "raw", form, world), tmp / "out") as scene:
        yield form, step, world, scene


def match_instances(world: World, scene: Scene) -> dict[int, int]:
    """Scene id -> world id, by the poses (names repeat)."""
    poses = np.stack([world.world_from_instance_at(item.id, world.times) for item in world.instances], axis=1)
    match = {0: 0}
    for row in range(1, len(scene.motion.instance_ids)):
        distance = np.abs(poses - scene.motion.world_from_instance[:, row : row + 1]).max(axis=(0, 2, 3))
        match[row] = world.instances[int(distance.argmin())].id
    assert len(set(match.values())) == len(match)
    return match


def test_scene_file_is_sound(case: tuple[str, int, World, Scene]) -> None:
    assert validate_scene(case[3].path) == []


def test_camera(case: tuple[str, int, World, Scene]) -> None:
    form, step, world, scene = case
    view, truth = scene.views["camera"], world.views["camera"]
    # TFDS stores float32: half a unit in the last place of metres below 16 is 5e-7, of a quaternion 3e-8.
    assert np.abs(view.world_from_cam - truth.world_from_cam).max() < (1e-12 if form == "worker" else 1e-6)
    want = g.resize_intrinsics(truth.intrinsics, truth.size, view.size)
    # f = focal / sensor * W: float32 keeps 3e-8 of f = 52 px.
    assert np.abs(view.intrinsics - want).max() < (1e-9 if form == "worker" else 1e-5)
    assert np.array_equal(view.times, world.times)
    assert view.pose_is_known.all() and view.motion_index.tolist() == list(range(world.num_frames))


def test_motion(case: tuple[str, int, World, Scene]) -> None:
    form, _, world, scene = case
    tolerance = 1e-12 if form == "worker" else 1e-6
    match, motion = match_instances(world, scene), scene.motion
    assert motion.instance_motion.tolist() == [1] + [2] * (len(match) - 1)
    assert np.array_equal(motion.world_from_instance[:, 0], np.tile(np.eye(4), (FRAMES, 1, 1)))
    assert np.isnan(motion.world_from_box[:, 0]).all()
    for row, id in list(match.items())[1:]:
        item = world.instances[id - 1]
        truth = world.world_from_instance_at(id, world.times)
        assert np.abs(motion.world_from_instance[:, row] - truth).max() < tolerance
        box = np.eye(4)
        box[:3, :3], box[:3, 3] = np.diag(item.box_hi - item.box_lo), item.box_lo
        assert np.abs(motion.world_from_box[:, row] - truth @ box).max() < 2 * tolerance
        assert motion.instance_names[row] == item.name


def test_layers(case: tuple[str, int, World, Scene]) -> None:
    """Every aux layer equals the world rendered through that layer's own intrinsics."""
    form, step, world, scene = case
    view, match = scene.views["camera"], match_instances(world, scene)
    low, high = scene.metadata.get("depth_range", (0.0, 0.0))
    z_step = 0.5 * (high - low) / 65535 + 1e-5
    to_world_id = np.zeros(256, dtype=np.uint32)
    to_world_id[list(match)] = list(match.values())
    for t in range(view.num_frames):
        truth = world.render(t, intrinsics=view.layer_intrinsics("instances")[t], size=view.size)
        same = to_world_id[view.instances(t)] == truth.instances
        assert same.mean() > (1.0 if step == 1 else 0.999) - 1e-9
        z = view.z_depth(t)
        # The 16-bit depth of a clip with empty background is useless, and left out.
        assert (z is None) == (form != "worker" and bool(np.isnan(truth.z_depth).any()))
        if z is not None:
            assert np.array_equal(np.isnan(z), np.isnan(truth.z_depth))
            assert np.nanmax(np.abs(z - truth.z_depth)[same]) < z_step
        hit = same & np.isfinite(truth.z_depth)
        assert np.abs(view.normals(t) - truth.normals_world)[hit].max() < 2 / 65535 + 1e-6
        objects = hit & (truth.instances > 0)
        assert np.abs(view.object_coords(t) - truth.object_coords)[objects].max() < 1 / 65535 + 1e-6
        for direction in ("forward", "backward"):
            want = getattr(truth, f"flow_{direction}")
            known = hit & np.isfinite(want).all(axis=-1)
            # Encoded by truncation: off by up to one step of the clip's range.
            scale = np.abs(_flow_layer(case, direction).value_scale[0])
            assert np.abs(view.flow(t, direction) - want)[known].max() < scale * 1.01 + 1e-5


def _flow_layer(case: tuple[str, int, World, Scene], direction: str) -> object:
    raw = case[3].path.parent.parent / "raw"
    record = kubric.read(raw, next(iter(kubric.scenes(raw, PARAMS))), PARAMS).record
    return record.views["camera"].layers[f"flow_{direction}"]


def test_colour(case: tuple[str, int, World, Scene]) -> None:
    _, step, world, scene = case
    view = scene.views["camera"]
    for t in range(view.num_frames):
        rgb = world.render(t).rgb.astype(float)
        blocks = rgb.reshape(view.size[1], step, view.size[0], step, 3).mean(axis=(1, 3))
        assert np.abs(view.rgb(t) - blocks).max() <= 0.5


def test_tracks(case: tuple[str, int, World, Scene]) -> None:
    """Points unprojected and carried by the scene end where the world's ray casting puts them."""
    form, _, world, scene = case
    view = scene.views["camera"]
    # An empty background spoils the range of 16-bit depth, and without depth nothing can be said.
    has_depth = form == "worker" or bool(np.isfinite(world.render(0).z_depth).all())
    assert ("z_depth" in view.layers) == has_depth
    if not has_depth:
        assert (scene.track("camera", [[10.5, 10.5]] * 2, [0, 0], [0, 1]).state == Visibility.UNKNOWN).all()
        return
    rng = np.random.default_rng(0)
    n = 200
    cells = np.stack([rng.integers(0, size, n) for size in view.size], axis=-1) + 0.5
    src, tgt = rng.integers(0, FRAMES, (2, n))
    # A pixel of the aux grid, in the colour grid's continuous pixels and in the rendered image's.
    aux, colour = view.layer_intrinsics("z_depth")[0], view.intrinsics[0]
    uv = cells + (colour[:2, 2] - aux[:2, 2])
    scale = np.array(world.views["camera"].size) / view.size
    truth, truth_state = world.track("camera", uv * scale, src, tgt)
    found = scene.track("camera", uv, src, tgt)
    known = np.isfinite(found.points_world).all(axis=1) & np.isfinite(truth).all(axis=1)
    # Only empty background has no truth, and only pixels at a depth edge may have no depth.
    assert known.sum() > 0.9 * np.isfinite(truth).all(axis=1).sum() > 0.3 * n
    error = np.linalg.norm(found.points_world - truth, axis=1)[known]
    low, high = scene.metadata.get("depth_range", (0.0, 0.0))
    assert np.median(error) < 1e-5 + (high - low) / 65535
    # Pixels sampled bilinearly beside an edge may take either side; the centre of a pixel may not.
    assert np.percentile(error, 99) < 1e-4 + (high - low) / 65535
    both = known & (found.state != Visibility.UNKNOWN) & (truth_state != Visibility.UNKNOWN)
    assert (found.state == truth_state)[both].mean() > 0.9


@pytest.mark.parametrize("form", kubric.NATIVE_FORMS)
def test_written_bytes_are_deterministic(tmp_path: Path, form: str) -> None:
    trees = [write_clip(tmp_path / name, form, small_world(4, num_frames=2)) for name in "ab"]
    files = [{p.relative_to(t): p.read_bytes() for p in t.rglob("*") if p.is_file()} for t in trees]
    assert files[0] == files[1] and files[0]


def test_shards_are_numbered_and_counted(tmp_path: Path) -> None:
    kubric.write_native((small_world(s, num_frames=2) for s in (1, 2, 3)), tmp_path, "tfds")
    refs = list(kubric.scenes(tmp_path, PARAMS))
    assert [ref.id[-11:] for ref in refs] == ["00000-00000", "00000-00001", "00001-00000"]
    assert kubric.probe(tmp_path).problems == ()
    assert {ref.num_frames for ref in refs} == {2} and all(ref.num_bytes for ref in refs)


@pytest.mark.parametrize(
    "changes",
    [{"motion": "points"}, {"num_views": 2}, {"lens": "general"}],
    ids=["deforming", "two views", "general lens"],
)
def test_what_kubric_cannot_express_is_refused(tmp_path: Path, changes: dict[str, object]) -> None:
    with pytest.raises(ConventionError, match="Kubric"):
        write_clip(tmp_path, "worker", random_world(1, num_frames=2, size=(16, 16), **changes))
