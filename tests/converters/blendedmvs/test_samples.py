"""Scenes of an independent writer that the official readers were tried on."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import converters.blendedmvs as blendedmvs
from datakit.scene import validate_scene

from .sets import PARAMS, open_set


@pytest.fixture(scope="module")
def raw(samples_dir: Path) -> Path:
    return samples_dir / "blendedmvs" / "raw"


@pytest.mark.parametrize("index", [0, 1])
def test_sample_agrees_with_its_truth(raw: Path, tmp_path: Path, index: int) -> None:
    truth = np.load(raw.parent / "truth.npz")
    with open_set(raw, tmp_path, index=index) as scene:
        view = scene.views["camera"]

        def true(key: str) -> np.ndarray:
            return np.asarray(truth[f"{scene.id}|camera|{key}"])

        assert view.frame_names == tuple(true("name"))
        assert np.abs(view.intrinsics - true("K")).max() < 1e-6
        assert np.abs(view.world_from_cam - true("world_from_cam")).max() < 1e-6
        assert np.array_equal(view.pose_is_known, true("pose_is_known"))
        for t in range(view.num_frames):
            assert np.array_equal(view.z_depth(t), true("z_depth")[t], equal_nan=True)
        assert [len(row) for row in scene.metadata["covisibility"]["rows"]] == [5, 5, 3, 0, 5, 5]
        assert validate_scene(scene.path) == []


def test_sample_lists_decide_the_split(raw: Path) -> None:
    refs = {ref.id: ref.split for ref in blendedmvs.scenes(raw, PARAMS)}
    assert refs == {"000000000000000000000005": "val", "5b7a3890fc8fcf6781e2593a": "train"}


def test_probe_finds_nothing_wrong(raw: Path) -> None:
    report = blendedmvs.probe(raw)
    assert report.problems == () and report.variant == "BlendedMVS 64x48 (1), BlendedMVS+ 64x48 (1)"
