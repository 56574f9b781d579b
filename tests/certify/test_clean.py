"""No false alarms: good worlds of every kind pass, and so do real renderings."""

from __future__ import annotations

from pathlib import Path

import pytest

from converters import kubric
from datakit.certify import certify_scene
from datakit.scene import write_scene
from datakit.worlds import random_world, write_world_scene

MOTIONS = ("static", "rigid", "points", "mixed")
CAMERAS = ("moving", "static", "rotating")


def clean_world(seed: int) -> dict[str, object]:
    """Return the arguments of the clean world of a seed; 50 seeds go through all kinds and lenses."""
    return {
        "num_frames": 12,
        "size": (112, 96) if seed % 2 else (96, 96),
        "motion": MOTIONS[seed % 4],
        "camera": CAMERAS[seed % 3],
        "background": "open" if seed % 5 == 4 else "room",
        "lens": "general" if seed % 7 == 3 else "plain",
        "num_views": 2 if seed % 11 == 5 else 1,
    }


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(50))
def test_a_clean_world_passes(seed: int, tmp_path: Path) -> None:
    path = tmp_path / "s.h5"
    write_world_scene(random_world(seed, **clean_world(seed)), path)  # type: ignore[arg-type]
    certificate = certify_scene(path)
    bad = [(c.name, c.reason) for c in certificate.checks if c.verdict in ("warn", "fail")]
    assert certificate.verdict == "pass", bad


@pytest.mark.slow
@pytest.mark.parametrize("scene", ["2", "3", "4"])
def test_real_kubric_clips_pass(samples_dir: Path, scene: str, tmp_path: Path) -> None:
    root, params = samples_dir / "kubric", kubric.Params()
    (ref,) = [ref for ref in kubric.scenes(root, params) if ref.id == scene]
    write_scene(tmp_path / "s.h5", kubric.read(root, ref, params))
    certificate = certify_scene(tmp_path / "s.h5")
    bad = [(c.name, c.reason) for c in certificate.checks if c.verdict in ("warn", "fail")]
    assert certificate.verdict == "pass", bad
    # Clip 2 has a still camera; its things move.
    assert certificate.check("depth_reprojection").verdict == ("not_testable" if scene == "2" else "pass")
    assert certificate.check("rigid_residual").verdict == certificate.check("object_coords").verdict == "pass"
    assert certificate.check("flow").verdict == "pass"
