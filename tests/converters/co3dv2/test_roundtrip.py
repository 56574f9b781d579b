"""World -> native tree -> converter -> the same world, for every form; and the reader's possible mistakes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import converters.co3dv2 as co3dv2
from converters.co3dv2 import scene
from converters.native import halves
from datakit import geometry as g
from datakit.certify import certify_scene
from datakit.errors import ConventionError, UsageError
from datakit.scene import Scene, open_scene, validate_scene, write_scene
from datakit.worlds import World, random_world

from .takes import PARAMS, SHAPES, disagreements, open_take, small_world, write_take

KEPT = {"challenge": [0, 2, 3]}
WORLDS = {
    "portrait": lambda: small_world(1, size=SHAPES["portrait"]),
    "landscape": lambda: small_world(4, size=SHAPES["landscape"], background="open", camera="rotating"),
    "square": lambda: small_world(2, size=SHAPES["square"]),
}


#: Every form once, and the first of them with every world.
CASES = [
    (f, w) for f in co3dv2.NATIVE_FORMS for w in WORLDS if w == "portrait" or f == co3dv2.NATIVE_FORMS[0]
]


@pytest.fixture(scope="module", params=CASES, ids="-".join)
def case(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[str, World, Scene]]:
    form, name = request.param
    world = WORLDS[name]()
    tmp = tmp_path_factory.mktemp("case")
    with open_take(write_take(tmp / "raw", form, world), tmp / "out") as converted:
        yield form, world, converted


def test_the_world_comes_back(case: tuple[str, World, Scene]) -> None:
    form, world, converted = case
    assert disagreements(world, converted, KEPT.get(form)) == []
    assert validate_scene(converted.path) == []


def test_tags(case: tuple[str, World, Scene]) -> None:
    form, _, converted = case
    view = converted.views["camera"]
    assert (converted.scale, converted.time_kind, converted.licence) == ("sfm", "sequence", "CC-BY-NC-4.0")
    assert view.depth_kind == "mvs" and view.pose_is_known.all()
    assert converted.motion.instance_motion.tolist() == [1]
    split = {"full": "train", "category": "train", "single-sequence": "val", "challenge": "test"}
    assert converted.split == split[form]
    formats = ["ndc_isotropic"] if form == "challenge" else ["ndc_isotropic", "ndc_norm_image_bounds"]
    assert set(formats) <= set(converted.metadata["intrinsics_formats"])


def test_image_and_mask_bytes_pass_through(case: tuple[str, World, Scene]) -> None:
    _, _, converted = case
    raw, view = converted.path.parent.parent / "raw", converted.views["camera"]
    folders = {"rgb": "images/{}.jpg", "foreground": "masks/{}.png", "depth_confidence": "depth_masks/{}.png"}
    for t, name in enumerate(view.frame_names):
        for layer, pattern in folders.items():
            (path,) = raw.rglob(pattern.format(name))
            assert view.encoded(layer, t) == path.read_bytes()


def test_masks_are_shares(case: tuple[str, World, Scene]) -> None:
    _, _, converted = case
    soft, sure = converted.views["camera"].foreground(0), converted.views["camera"].depth_confidence(0)
    assert soft is not None and sure is not None
    assert soft.max() == np.float32(254 / 255) and len(np.unique(soft)) > 5
    assert set(np.unique(sure).tolist()) == {0.0, 1.0}


def test_parameters_and_sources_are_recorded(case: tuple[str, World, Scene]) -> None:
    _, _, converted = case
    assert converted.provenance["params"]["max_translation"] == 1e5
    listed = [source["path"] for source in converted.provenance["sources"]]
    assert len(set(listed)) == len(listed) == 1 + 4 * converted.views["camera"].num_frames


def test_several_worlds_fill_several_categories(tmp_path: Path) -> None:
    worlds = [small_world(seed, num_frames=2, size=(16, 12)) for seed in range(3)]
    want = {
        "full": ["apple-110_13051_23361", "apple-112_13065_23383", "teddybear-111_13058_23372"],
        "single-sequence": ["apple-110_13051_23361", "hydrant-112_13065_23383", "teddybear-111_13058_23372"],
    }
    for form, ids in want.items():
        write_take(tmp_path / form, form, *worlds)
        assert [ref.id for ref in co3dv2.scenes(tmp_path / form, PARAMS)] == ids


@pytest.mark.parametrize("form", co3dv2.NATIVE_FORMS)
def test_written_bytes_are_deterministic(tmp_path: Path, form: str) -> None:
    trees = [write_take(tmp_path / name, form, small_world(4, num_frames=2, size=(32, 24))) for name in "ab"]
    files = [{p.relative_to(t): p.read_bytes() for p in t.rglob("*") if p.is_file()} for t in trees]
    assert files[0] == files[1] and files[0]


@pytest.mark.parametrize("changes", [{"motion": "rigid"}, {"num_views": 2}], ids=["moving", "two views"])
def test_what_it_cannot_express_is_refused(tmp_path: Path, changes: dict[str, Any]) -> None:
    with pytest.raises(ConventionError):
        co3dv2.write_native(iter([small_world(1, num_frames=2, size=(16, 12), **changes)]), tmp_path, "full")
    with pytest.raises(UsageError):
        co3dv2.write_native(iter([]), tmp_path, "half")


# --- certificates, and the mistakes a reader could make ---------------------------------------------------------------

CERTIFIED = {"num_frames": 12, "size": (112, 84), "motion": "static", "lens": "general", "fps": 3.0}
SEED = 3


@pytest.fixture(scope="module")
def certifiable(tmp_path_factory: pytest.TempPathFactory) -> tuple[World, Path]:
    world = random_world(SEED, **CERTIFIED)
    return world, write_take(tmp_path_factory.mktemp("certified"), "category", world)


@pytest.mark.slow
@pytest.mark.parametrize("form", co3dv2.NATIVE_FORMS)
def test_certificates_pass(tmp_path: Path, form: str) -> None:
    world = random_world(SEED, **CERTIFIED)
    with open_take(write_take(tmp_path / "raw", form, world), tmp_path / "out") as converted:
        certificate = certify_scene(converted)
    bad = [(c.name, c.reason) for c in certificate.checks if c.verdict in ("warn", "fail")]
    assert certificate.verdict == "pass", bad
    assert certificate.check("depth_reprojection").verdict == "pass"


Patch = Callable[[pytest.MonkeyPatch], None]


def _viewpoint(change: Callable[[Any], Any]) -> Patch:
    """Read another viewpoint than the one that is stored."""
    right = scene.pose_of
    return lambda monkey: monkey.setattr(scene, "pose_of", lambda v, params: right(change(v), params))


def _poses(change: Callable[[np.ndarray], np.ndarray]) -> Patch:
    right = scene.pose_of
    return lambda monkey: monkey.setattr(
        scene, "pose_of", lambda v, params: (change(right(v, params)[0]), "")
    )


def _format(kind: str) -> Patch:
    right = scene.intrinsics_of
    return lambda monkey: monkey.setattr(
        scene, "intrinsics_of", lambda v, size: right(replace(v, format=kind), size)
    )


def _k(change: Callable[[np.ndarray], np.ndarray]) -> Patch:
    right = scene.intrinsics_of
    return lambda monkey: monkey.setattr(scene, "intrinsics_of", lambda *a: change(right(*a)))


def _stored(change: Callable[[np.ndarray], np.ndarray]) -> Patch:
    right = scene.depth_codes
    return lambda monkey: monkey.setattr(scene, "depth_codes", lambda *a: change(right(*a)))


def _as_integers(monkey: pytest.MonkeyPatch) -> None:
    """Take the codes of half floats for millimetres."""
    monkey.setattr(halves, "float_of_code", lambda: np.arange(1 << 16, dtype=np.float32) / 1000)


def _last_frame(monkey: pytest.MonkeyPatch) -> None:
    """Look cameras up by the number in the file name, which is one ahead."""
    right = scene._cameras

    def patched(source: Any, notes: Any, params: Any) -> Any:
        return right(
            source,
            [replace(n, viewpoint=notes[min(t + 1, len(notes) - 1)].viewpoint) for t, n in enumerate(notes)],
            params,
        )

    monkey.setattr(scene, "_cameras", patched)


FLIP = np.diag([-1.0, -1, 1, 1])
HALF = np.array([[0, 0, 0.5], [0, 0, 0.5], [0, 0, 0]])
FAULTS: dict[str, tuple[Patch, str]] = {
    # name: the mistake, and how bad the certificate must call it by itself, "" for not at all
    "column vectors (R not transposed)": (_viewpoint(lambda v: replace(v, rotation=v.rotation.T)), "fail"),
    "axes not flipped": (_poses(lambda m: m @ FLIP), "fail"),
    "camera to world": (_poses(g.invert_rigid), "fail"),
    "T taken as the camera's centre": (
        _poses(lambda m: g.rigid_from(m[:3, :3], -np.diag([-1.0, -1, 1]) @ m[:3, :3].T @ m[:3, 3])),
        "fail",
    ),
    "all formats isotropic": (_format("ndc_isotropic"), "fail"),
    "all formats by image bounds": (_format("ndc_norm_image_bounds"), "warn"),
    "principal point not negated": (
        _k(lambda k: np.array([[k[0, 0], 0, 112 - k[0, 2]], [0, k[1, 1], 84 - k[1, 2]], [0, 0, 1]])),
        "fail",
    ),
    "pixel centres at integers": (_k(lambda k: k + HALF), ""),
    "size read as W, H": (
        _k(lambda k: np.array([[k[1, 1], 0, k[1, 2]], [0, k[0, 0], k[0, 2]], [0, 0, 1]])),
        "fail",
    ),
    "depth codes as millimetres": (_as_integers, "fail"),
    "depth of the other byte order": (_stored(lambda h: h.byteswap()), "fail"),
    "cameras by the number in the file name": (_last_frame, "fail"),
}


@pytest.mark.slow
@pytest.mark.parametrize("fault", FAULTS)
def test_a_mistake_in_the_reader_is_caught(
    certifiable: tuple[World, Path], fault: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    world, root = certifiable
    make, least = FAULTS[fault]
    make(monkeypatch)
    (ref,) = co3dv2.scenes(root, PARAMS)
    write_scene(tmp_path / "s.h5", co3dv2.read(root, ref, PARAMS))
    with open_scene(tmp_path / "s.h5") as converted:
        assert disagreements(world, converted)
        if least:
            assert certify_scene(converted).verdict in (least, "fail")
