"""World -> native tree -> converter -> the same world, for every release; and the reader's possible mistakes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import converters.blendedmvs as blendedmvs
from converters.blendedmvs import pfm, scene, texts
from datakit import geometry as g
from datakit.certify import certify_scene
from datakit.errors import ConventionError, UsageError
from datakit.scene import Scene, open_scene, validate_scene, write_scene
from datakit.worlds import World, random_world

from .sets import FRAMES, PARAMS, disagreements, open_set, small_world, write_set

SCALE = {"low-res": 1, "high-res": 8 / 3, "plus": 1, "plus-plus": 1}
WORLDS = {
    "room": lambda: small_world(1),
    "open": lambda: small_world(4, background="open", camera="rotating"),
}


#: Every form once, and the first of them with every world.
CASES = [
    (f, w) for f in blendedmvs.NATIVE_FORMS for w in WORLDS if w == "room" or f == blendedmvs.NATIVE_FORMS[0]
]


@pytest.fixture(scope="module", params=CASES, ids="-".join)
def case(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[str, World, Scene]]:
    form, name = request.param
    world = WORLDS[name]()
    tmp = tmp_path_factory.mktemp("case")
    with open_set(write_set(tmp / "raw", form, world), tmp / "out") as converted:
        yield form, world, converted


def test_the_world_comes_back(case: tuple[str, World, Scene]) -> None:
    form, world, converted = case
    assert disagreements(world, converted, SCALE[form]) == []
    assert validate_scene(converted.path) == []


def test_tags(case: tuple[str, World, Scene]) -> None:
    form, _, converted = case
    view = converted.views["camera"]
    assert (converted.scale, converted.time_kind, converted.licence) == ("sfm", "set", "CC-BY-4.0")
    assert view.depth_kind == "rendered" and view.pose_is_known.all()
    assert view.times.tolist() == list(range(FRAMES))
    assert view.frame_names == ("00000000", "00000001", "00000002", "00000004", "00000005", "00000009")
    assert converted.motion.instance_motion.tolist() == [1]
    release = {
        "low-res": "BlendedMVS",
        "high-res": "BlendedMVS",
        "plus": "BlendedMVS+",
        "plus-plus": "BlendedMVS++",
    }
    assert converted.metadata["release"] == release[form]


def test_image_bytes_pass_through(case: tuple[str, World, Scene]) -> None:
    _, _, converted = case
    raw = converted.path.parent.parent / "raw"
    for t, name in enumerate(converted.views["camera"].frame_names):
        (path,) = raw.rglob(f"{name}.jpg")
        assert converted.views["camera"].encoded("rgb", t) == path.read_bytes()


def test_parameters_and_sources_are_recorded(case: tuple[str, World, Scene]) -> None:
    _, _, converted = case
    assert converted.provenance["params"] == {"images": "blended"}
    listed = [source["path"] for source in converted.provenance["sources"]]
    assert len(set(listed)) == len(listed) == 3 * FRAMES + 1


@pytest.mark.parametrize("form", blendedmvs.NATIVE_FORMS)
def test_written_bytes_are_deterministic(tmp_path: Path, form: str) -> None:
    trees = [write_set(tmp_path / name, form, small_world(4, num_frames=2, size=(32, 24))) for name in "ab"]
    files = [{p.relative_to(t): p.read_bytes() for p in t.rglob("*") if p.is_file()} for t in trees]
    assert files[0] == files[1] and files[0]


@pytest.mark.parametrize("changes", [{"motion": "rigid"}, {"num_views": 2}], ids=["moving", "two views"])
def test_what_it_cannot_express_is_refused(tmp_path: Path, changes: dict[str, Any]) -> None:
    with pytest.raises(ConventionError):
        write_set(tmp_path, "low-res", small_world(1, num_frames=2, size=(16, 12), **changes))
    with pytest.raises(UsageError):
        blendedmvs.write_native(iter([]), tmp_path, "mid-res")


# --- certificates, and the mistakes a reader could make ---------------------------------------------------------------

CERTIFIED = {"num_frames": 9, "size": (112, 84), "motion": "static", "lens": "general"}


@pytest.fixture(scope="module")
def certifiable(tmp_path_factory: pytest.TempPathFactory) -> tuple[World, Path]:
    world = random_world(3, **CERTIFIED)
    return world, write_set(tmp_path_factory.mktemp("certified"), "low-res", world)


@pytest.mark.slow
@pytest.mark.parametrize("form", blendedmvs.NATIVE_FORMS)
def test_certificates_pass(tmp_path: Path, form: str) -> None:
    world = random_world(3, **CERTIFIED)
    with open_set(write_set(tmp_path / "raw", form, world), tmp_path / "out") as converted:
        certificate = certify_scene(converted)
    bad = [(c.name, c.reason) for c in certificate.checks if c.verdict in ("warn", "fail")]
    assert certificate.verdict == "pass", bad
    assert certificate.check("depth_reprojection").verdict == "pass"


Patch = Callable[[pytest.MonkeyPatch], None]


def _poses(change: Callable[[np.ndarray], np.ndarray]) -> Patch:
    right = texts.pose_of

    def patched(camera: Any, where: str) -> np.ndarray:
        pose = right(camera, where)
        assert pose is not None
        return change(pose)

    return lambda monkey: monkey.setattr(scene, "pose_of", patched)


def _transposed(pose: np.ndarray) -> np.ndarray:
    out = pose.copy()
    out[:3, :3] = pose[:3, :3].T
    return out


def _k(change: Callable[[np.ndarray], np.ndarray]) -> Patch:
    right = texts.intrinsics_of
    return lambda monkey: monkey.setattr(scene, "intrinsics_of", lambda *a: change(right(*a)))


def _depth(change: Callable[[np.ndarray], np.ndarray]) -> Patch:
    right = pfm.parse_pfm
    return lambda monkey: monkey.setattr(
        scene, "parse_pfm", lambda *a: np.ascontiguousarray(change(right(*a))).astype(np.float32)
    )


def _as_ray_length(z: np.ndarray) -> np.ndarray:
    height, width = z.shape
    focal = 1.1 * width
    v, u = np.mgrid[:height, :width] + 0.5
    return z / np.sqrt(1 + ((u - width / 2) / focal) ** 2 + ((v - height / 2) / focal) ** 2)


GL = np.diag([1.0, -1, -1, 1])
HALF = np.array([[0, 0, 0.5], [0, 0, 0.5], [0, 0, 0]])
FAULTS: dict[str, tuple[Patch, bool]] = {
    # name: the mistake, and whether the certificate must fail on it by itself
    "extrinsic read as camera to world": (_poses(g.invert_rigid), True),
    "matrices read column by column": (_poses(_transposed), True),
    "OpenGL axes": (_poses(lambda m: m @ GL), True),
    "pixel centres at integers": (_k(lambda k: k + HALF), True),
    "K of the other resolution": (_k(lambda k: k * [[8 / 3], [8 / 3], [1]]), True),
    "principal point in the middle": (
        _k(lambda k: np.array([[k[0, 0], 0, 56], [0, k[1, 1], 42], [0, 0, 1]])),
        True,
    ),
    "rows of depth from the top": (_depth(np.flipud), True),
    "columns flipped": (_depth(np.fliplr), True),
    "byte order ignored": (_depth(lambda z: z.byteswap()), True),
    "scale of the PFM applied": (_depth(lambda z: 2 * z), True),
    "depth along the ray": (_depth(_as_ray_length), True),
}


@pytest.mark.slow
@pytest.mark.parametrize("fault", FAULTS)
def test_a_mistake_in_the_reader_is_caught(
    certifiable: tuple[World, Path], fault: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    world, root = certifiable
    make, is_seen_by_certificate = FAULTS[fault]
    make(monkeypatch)
    (ref,) = blendedmvs.scenes(root, PARAMS)
    write_scene(tmp_path / "s.h5", blendedmvs.read(root, ref, PARAMS))
    with open_scene(tmp_path / "s.h5") as converted:
        assert disagreements(world, converted)
        if is_seen_by_certificate:
            assert certify_scene(converted).verdict == "fail"
