"""The table of faults: each mistake of a converter, in each kind of scene where it can be made, must be caught.

Where nothing in the data can show a mistake, the certificate of the clean scene must say so by itself.
"""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import pytest

from datakit.certify import Certificate, certify_scene
from datakit.certify import knobs as k

from .faults import FAULTS, Clip, bare, can_exist, make_clip

#: motion -> seed; each with all layers, and bare (colour, depth, poses; instances where something moves).
WORLDS = {"static": 0, "rigid": 1, "points": 2, "mixed": 3}

#: What some of these scenes cannot show, whatever looks at them.
BLIND = {
    "instance_quaternions": "a smooth instance's own turn shows only in its texture",
    "swapped_instances": "two instances that rest are where they are under either name",
    "half_pixel_colour": "half a pixel of colour against depth shows only at sharp outlines",
    "forward_flow_one_late": "a steady camera's flow hardly changes from one frame to the next",
}


@cache
def _clip(motion: str, camera: str, layers: str) -> Clip:
    if layers == "bare":
        return bare(_clip(motion, camera, "full"))
    return make_clip(WORLDS[motion], motion, camera)


@cache
def _clean(motion: str, camera: str, layers: str, folder: Path) -> Certificate:
    return certify_scene(_clip(motion, camera, layers).write(folder / "clean.h5"))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("faults")


def _problems(certificate: Certificate) -> list[tuple[str, str]]:
    return [(check.name, check.reason) for check in certificate.checks if check.verdict in ("warn", "fail")]


#: Without the rarer layers, a scene where nothing moves and one with everything that can.
SCENES = [*((motion, "full") for motion in WORLDS), ("static", "bare"), ("mixed", "bare")]


def _cases() -> list[tuple[str, str, str]]:
    return [(motion, layers, fault) for motion, layers in SCENES for fault in FAULTS]


@pytest.mark.slow
@pytest.mark.parametrize(("motion", "layers", "fault"), _cases())
def test_fault(motion: str, layers: str, fault: str, folder: Path) -> None:
    clip, mistake = _clip(motion, "moving", layers), FAULTS[fault]
    if not can_exist(mistake, clip):
        pytest.skip("this mistake cannot be made in this scene")
    clean = _clean(motion, "moving", layers, folder)
    assert clean.verdict == "pass", _problems(clean)
    claimed = {check.name for check in clean.checks if mistake.label in check.can_see}
    if not claimed:
        assert fault in BLIND, "nothing claims to see it"
        assert mistake.label in {label for check in clean.checks for label in check.cannot_see}
        return
    faulty = certify_scene(mistake.make(clip).write(folder / "faulty.h5"))
    failed = {check.name for check in faulty.checks if check.verdict == "fail"}
    assert failed & (set(mistake.meant) | claimed), [(c.name, c.verdict, c.reason) for c in faulty.checks]
    # A claim of the certificate is a promise of at least one of the checks that made it.
    assert failed & claimed, sorted(claimed)


@pytest.mark.slow
def test_every_mistake_is_made_somewhere() -> None:
    clips = [_clip(motion, "moving", layers) for motion, layers in SCENES]
    assert [name for name, fault in FAULTS.items() if not any(can_exist(fault, c) for c in clips)] == []


@pytest.mark.slow
@pytest.mark.parametrize(
    ("motion", "camera", "fault"),
    [
        ("static", "rotating", "depth_scaled"),  # no parallax: any scale of depth reprojects
        ("static", "static", "depth_scaled"),
        ("static", "static", "inverted_poses"),  # nothing moves: any pose explains it
        ("static", "static", "late_depth"),
    ],
)
def test_what_cannot_be_seen_is_called_not_testable(
    motion: str, camera: str, fault: str, folder: Path
) -> None:
    clip, mistake = _clip(motion, camera, "bare"), FAULTS[fault]
    clean = _clean(motion, camera, "bare", folder)
    assert clean.verdict == "pass", _problems(clean)
    assert not clean.can_see(mistake.label)
    blind = [check for check in clean.checks if mistake.label in check.cannot_see]
    assert blind
    faulty = certify_scene(mistake.make(clip).write(folder / "faulty.h5"))
    assert not faulty.can_see(mistake.label)
    if camera == "static":
        check = faulty.check("depth_reprojection")
        assert check.verdict == "not_testable" and check.reason


def _measured(clip: Clip, kind: str) -> Clip:
    """Measure depth as a depth camera or a lidar does: noise, steps of a millimetre, holes or single points."""
    rng = np.random.default_rng(0)
    noise, known = (0.005, 0.95) if kind == "sensor" else (0.002, 0.06)

    def measure(t: int, z: np.ndarray) -> np.ndarray:
        noisy = z * (1 + noise * rng.normal(size=z.shape))
        noisy[rng.uniform(size=z.shape) > known] = np.nan
        return (np.round(noisy * 1000) / 1000).astype(np.float32)

    layers = dict(clip.view.layers)
    layers["z_depth"] = replace(layers["z_depth"], depth_kind=kind)
    return clip.with_view(layers=layers).with_layer("z_depth", measure)


COARSE = (
    "inverted_poses",
    "flipped_axes",
    "transposed_rotations",
    "quaternion_order",
    "ray_as_z",
    "k_doubled",
)


@pytest.mark.slow
def test_what_drowns_in_noise_is_called_not_testable(folder: Path) -> None:
    clip = _measured(_clip("static", "moving", "bare"), "sensor")
    clean = certify_scene(clip.write(folder / "clean_noisy.h5"))
    unseen = {label for check in clean.checks for label in check.cannot_see}
    for fault in ("depth_scaled", "k_slightly_larger"):
        assert FAULTS[fault].label in unseen


@pytest.mark.slow
@pytest.mark.parametrize(
    "kind, fault",
    [
        *(("sensor", fault) for fault in (*COARSE, "k_halved", "one_bad_pose")),
        *(("lidar", fault) for fault in (*COARSE, "swapped_instances")),
    ],
)
def test_coarse_faults_show_through_noise(kind: str, fault: str, folder: Path) -> None:
    clip = _clip("static" if kind == "sensor" else "mixed", "moving", "bare")
    clean = certify_scene(_measured(clip, kind).write(folder / "clean_noisy.h5"))
    assert clean.verdict == "pass", _problems(clean)
    faulty = certify_scene(_measured(FAULTS[fault].make(clip), kind).write(folder / "faulty_noisy.h5"))
    failed = {check.name for check in faulty.checks if check.verdict == "fail"}
    assert failed & set(FAULTS[fault].meant), [(c.name, c.verdict, c.reason) for c in faulty.checks]


@pytest.mark.slow
def test_a_failing_certificate_names_the_likely_mistake(folder: Path) -> None:
    clip = _clip("static", "moving", "bare")
    faulty = certify_scene(FAULTS["flipped_axes"].make(clip).write(folder / "hint.h5"))
    assert f"looks like {k.AXES}" in faulty.check("depth_reprojection").reason
