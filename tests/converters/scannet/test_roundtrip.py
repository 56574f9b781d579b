"""World -> native tree -> converter -> the same world, for every form; and the reader's possible mistakes."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import converters.scannet as scannet
from converters.scannet import assemble, sens
from datakit import Visibility
from datakit import geometry as g
from datakit.certify import certify_scene
from datakit.errors import ConventionError, UsageError
from datakit.scene import Scene, open_scene, validate_scene, write_scene
from datakit.worlds import World, random_world

from .scans import FRAMES, PARAMS, disagreements, open_scan, small_world, stored_k, write_scan

WORLDS = {
    "room": lambda: small_world(1),
    "open": lambda: small_world(4, background="open", camera="rotating"),
}


@pytest.fixture(scope="module", params=[(f, w) for f in scannet.NATIVE_FORMS for w in WORLDS], ids="-".join)
def case(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[str, World, Scene]]:
    form, name = request.param
    world = WORLDS[name]()
    tmp = tmp_path_factory.mktemp("case")
    with open_scan(write_scan(tmp / "raw", form, world), tmp / "out") as scene:
        yield form, world, scene


def test_the_world_comes_back(case: tuple[str, World, Scene]) -> None:
    form, world, scene = case
    assert disagreements(world, scene, form) == []
    assert validate_scene(scene.path) == []


def test_times_and_names(case: tuple[str, World, Scene]) -> None:
    form, world, scene = case
    view = scene.views["camera"]
    numbers = np.arange(FRAMES) * (100 if form == "frames-25k" else 1)
    assert view.frame_names == tuple(str(n) for n in numbers)
    want = world.times if form == "sens" else numbers / 30
    assert np.abs(view.times - want).max() < 1e-6  # the device's clock ticks in microseconds
    assert scene.metadata["times"].startswith("timestamp_color" if form == "sens" else "frame / 30 Hz")


def test_colour_bytes_pass_through(case: tuple[str, World, Scene]) -> None:
    form, _, scene = case
    raw = scene.path.parent.parent / "raw"
    native = b"".join(path.read_bytes() for path in sorted(raw.rglob("*")) if path.is_file())
    for t in range(FRAMES):
        assert scene.views["camera"].encoded("rgb", t) in native


def test_provenance_is_the_hash_of_every_byte(case: tuple[str, World, Scene]) -> None:
    form, _, scene = case
    raw = scene.path.parent.parent / "raw"
    (ref,) = scannet.scenes(raw, PARAMS)
    stream = scannet.read(raw, ref, PARAMS)
    list(stream.frames)
    for source in stream.sources:
        data = (raw / source.path).read_bytes()
        assert (source.size, source.sha256) == (len(data), hashlib.sha256(data).hexdigest())
    # Labels are not read; everything else is.
    files = {p.relative_to(raw).as_posix() for p in raw.rglob("*") if p.is_file()}
    unread = {name for name in files if "/instance/" in name or "/label/" in name}
    assert {source.path for source in stream.sources} == files - unread
    assert len(stream.sources) == len(files - unread) and form in scannet.NATIVE_FORMS


def test_motion_and_tags(case: tuple[str, World, Scene]) -> None:
    form, _, scene = case
    assert (scene.scale, scene.time_kind, scene.split) == ("metric", "sequence", "train")
    assert scene.id == "scene0000_00" and scene.metadata["form"] == form
    assert scene.views["camera"].depth_kind == "sensor"
    assert scene.motion.instance_motion.tolist() == [1]


def test_tracks_end_where_the_world_says(case: tuple[str, World, Scene]) -> None:
    form, world, scene = case
    rng = np.random.default_rng(0)
    uv = rng.uniform(2, np.array(scene.views["camera"].size) - 2, (200, 2))
    src, tgt = rng.integers(0, FRAMES, (2, 200))
    truth, _ = world.track("camera", uv, src, tgt)
    found = scene.track("camera", uv, src, tgt)
    known = np.isfinite(found.points_world).all(axis=1) & np.isfinite(truth).all(axis=1)
    assert known.sum() > 60 and (found.state == Visibility.VISIBLE).sum() > 40
    assert np.median(np.linalg.norm(found.points_world - truth, axis=1)[known]) < 2e-3


@pytest.mark.parametrize("form", scannet.NATIVE_FORMS)
def test_written_bytes_are_deterministic(tmp_path: Path, form: str) -> None:
    trees = [write_scan(tmp_path / name, form, small_world(4, num_frames=2)) for name in "ab"]
    files = [{p.relative_to(t): p.read_bytes() for p in t.rglob("*") if p.is_file()} for t in trees]
    assert files[0] == files[1] and files[0]


@pytest.mark.parametrize(
    "changes",
    [{"motion": "rigid"}, {"num_views": 2}, {"lens": "general"}],
    ids=["moving", "two views", "zoom"],
)
def test_what_scannet_cannot_express_is_refused(tmp_path: Path, changes: dict[str, Any]) -> None:
    with pytest.raises(ConventionError):
        write_scan(tmp_path, "sens", small_world(1, num_frames=2, size=(16, 12), **changes))
    with pytest.raises(UsageError):
        scannet.write_native(iter([]), tmp_path, "sense")


# --- certificates, and the mistakes a reader could make ---------------------------------------------------------------

#: Of enough frames and pixels for a certificate; the writers lose what the released files lose.
CERTIFIED = {"num_frames": 9, "size": (112, 84), "motion": "static"}


@pytest.fixture(scope="module")
def certifiable(tmp_path_factory: pytest.TempPathFactory) -> tuple[World, Path]:
    world = random_world(0, **CERTIFIED)
    return world, write_scan(tmp_path_factory.mktemp("certified"), "sens", world)


@pytest.mark.slow
@pytest.mark.parametrize("form", scannet.NATIVE_FORMS)
def test_certificates_pass(tmp_path: Path, form: str) -> None:
    world = random_world(0, **CERTIFIED)
    with open_scan(write_scan(tmp_path / "raw", form, world), tmp_path / "out") as scene:
        certificate = certify_scene(scene)
    bad = [(c.name, c.reason) for c in certificate.checks if c.verdict in ("warn", "fail")]
    assert certificate.verdict == "pass", bad
    assert certificate.check("depth_reprojection").verdict == "pass"


def _poses(change: Callable[[np.ndarray], np.ndarray]) -> Callable[[pytest.MonkeyPatch], None]:
    right = assemble.exact_poses

    def patch(monkey: pytest.MonkeyPatch) -> None:
        monkey.setattr(assemble, "exact_poses", lambda m, *rest: right(change(m), *rest))

    return patch


def _transposed(matrices: np.ndarray) -> np.ndarray:
    out = matrices.copy()
    out[:, :3, :3] = np.swapaxes(matrices[:, :3, :3], 1, 2)
    return out


def _k(change: Callable[..., np.ndarray]) -> Callable[[pytest.MonkeyPatch], None]:
    right = assemble.corner_k

    def patch(monkey: pytest.MonkeyPatch) -> None:
        monkey.setattr(
            assemble, "corner_k", lambda m, size, where: change(right(m, size, where), size, where)
        )

    return patch


def _raw_depth_focal(k: np.ndarray, size: tuple[int, int], where: str) -> np.ndarray:
    """The calibration of <id>.txt in place of the head's."""
    return k * [[571.623718 / 577.870605], [571.623718 / 577.870605], [1]] if "depth" in where else k


def _calibration(change: Callable[[Any], dict[str, Any]]) -> Callable[[pytest.MonkeyPatch], None]:
    from dataclasses import replace

    right = sens.calibration

    def patched(header: Any, where: str) -> Any:
        found = right(header, where)
        return replace(found, **change(found))

    return lambda monkey: monkey.setattr(sens, "calibration", patched)


def _multiplied(monkey: pytest.MonkeyPatch) -> None:
    right = assemble.z_of_code
    monkey.setattr(assemble, "z_of_code", lambda per_code: right(1 / per_code))


def _little_as_big(monkey: pytest.MonkeyPatch) -> None:
    right = sens.decode_depth
    monkey.setattr(sens, "decode_depth", lambda *a: right(*a).byteswap())


def _signed(monkey: pytest.MonkeyPatch) -> None:
    right = assemble.z_of_code
    monkey.setattr(
        assemble,
        "z_of_code",
        lambda per: np.where(np.arange(1 << 16) > 4000, np.nan, right(per)).astype("f4"),
    )


def _late(monkey: pytest.MonkeyPatch) -> None:
    right = sens.read_payloads

    def patched(file: Any, index: Any, t: int, where: str) -> Any:
        head, colour, _ = right(file, index, t, where)
        return head, colour, right(file, index, min(t + 1, FRAMES), where)[2]

    monkey.setattr(sens, "read_payloads", patched)


GL = np.diag([1.0, -1, -1, 1])
FAULTS: dict[str, tuple[Callable[[pytest.MonkeyPatch], None], bool]] = {
    # name: the mistake, and whether the certificate must fail on it by itself
    "poses read as world to camera": (_poses(np.linalg.inv), True),
    "OpenGL axes": (_poses(lambda m: m @ GL), True),
    "matrices read column by column": (_poses(_transposed), True),
    "axisAlignment baked in": (
        _poses(
            lambda m: (
                np.diag([0.0, 0, 1, 1]) @ m
                + np.array([[0, -1, 0, 0], [1, 0, 0, 0], [0, 0, 0, 0], [0, 0, 0, 0]]) @ m
            )
        ),
        False,
    ),
    "half a pixel forgotten": (_k(lambda k, *_: k - [[0, 0, 0.5], [0, 0, 0.5], [0, 0, 0]]), False),
    "K of depth from <id>.txt": (_k(_raw_depth_focal), False),
    "fx and fy swapped with cx and cy": (
        _k(
            lambda k, *_: (
                k[:, [2, 1, 0]] * 0 + np.array([[k[0, 2], 0, k[0, 0]], [0, k[1, 2], k[1, 1]], [0, 0, 1]])
            )
        ),
        True,
    ),
    "depth K used for colour (resized colour)": (
        _calibration(lambda c: {"colour_k": g.resize_intrinsics(c.depth_k, c.depth_size, c.colour_size)}),
        False,
    ),
    "colour K used for depth": (_calibration(lambda c: {"depth_k": c.colour_k}), True),
    "depth multiplied by depthShift": (_multiplied, True),
    "big-endian depth": (_little_as_big, True),
    "depth of the next frame": (_late, False),
    "far depth lost": (_signed, False),
}


@pytest.mark.slow
@pytest.mark.parametrize("fault", FAULTS)
def test_a_mistake_in_the_reader_is_caught(
    certifiable: tuple[World, Path], fault: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    world, root = certifiable
    make, is_seen_by_certificate = FAULTS[fault]
    make(monkeypatch)
    (ref,) = scannet.scenes(root, PARAMS)
    write_scene(tmp_path / "s.h5", scannet.read(root, ref, PARAMS))
    with open_scene(tmp_path / "s.h5") as scene:
        assert disagreements(world, scene, "sens")
        if is_seen_by_certificate:
            assert certify_scene(scene).verdict == "fail"


def test_depth_and_colour_differ_by_the_exact_homography(tmp_path: Path) -> None:
    """Kd inv(Kc) maps colour pixels to depth pixels to a hair; a resize is off by far more than that."""
    world = small_world(1)
    with open_scan(write_scan(tmp_path / "raw", "sens", world), tmp_path / "out") as scene:
        view = scene.views["camera"]
        colour_from_depth = view.intrinsics[0] @ np.linalg.inv(view.depth_intrinsics[0])
        centres = g.pixel_centres(view.depth_size).reshape(-1, 2)
        uv = g.homography_points(colour_from_depth, centres)
        z_true = world.cast_pixels("camera", uv, world.times[2]).scale
        assert np.median(np.abs(view.z_depth(2).ravel() - z_true)) < 5.1e-4
        resized = centres * np.array(view.size) / view.depth_size
        assert np.abs(resized - uv).max() > 0.3
    assert np.array_equal(stored_k(np.eye(3) * 2, "export"), np.eye(3) * 2)
