"""Sequences of an independent writer that the official readers were tried on."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import converters.co3dv2 as co3dv2
from datakit.scene import validate_scene

from .takes import PARAMS, open_take


@pytest.fixture(scope="module")
def raw(samples_dir: Path) -> Path:
    return samples_dir / "co3dv2" / "raw"


@pytest.mark.parametrize("index", [0, 1, 2])
def test_sample_agrees_with_its_truth(raw: Path, tmp_path: Path, index: int) -> None:
    truth = np.load(raw.parent / "truth.npz")
    with open_take(raw, tmp_path, index=index) as scene:
        view = scene.views["camera"]

        def true(key: str) -> np.ndarray:
            return np.asarray(truth[f"{scene.id.removeprefix('apple-')}|camera|{key}"])

        assert view.frame_names == tuple(true("name"))
        assert np.abs(view.intrinsics - true("K")).max() < 1e-6
        assert np.abs(view.world_from_cam - true("world_from_cam")).max() < 1e-6
        assert np.array_equal(view.pose_is_known, true("pose_is_known"))
        for t in range(view.num_frames):
            assert np.array_equal(view.z_depth(t), true("z_depth")[t], equal_nan=True)
        assert set(view.layers) == {"rgb", "z_depth", "foreground", "depth_confidence"}
        assert validate_scene(scene.path) == []


def test_sample_formats_and_scales(raw: Path) -> None:
    records = [co3dv2.read(raw, ref, PARAMS).record for ref in co3dv2.scenes(raw, PARAMS)]
    formats = [record.metadata["intrinsics_formats"] for record in records]
    assert formats == [["ndc_isotropic"], ["ndc_norm_image_bounds"], ["ndc_norm_image_bounds"]]
    assert records[1].metadata["frames_without_depth"] == ["frame000007"]
    assert [record.metadata["annotation"]["viewpoint_quality"] for record in records] == [1.7, 0.9, None]


def test_sample_splits(raw: Path) -> None:
    """The first sequence is in fewview_dev too; the others are in no set list."""
    assert [ref.split for ref in co3dv2.scenes(raw, PARAMS)] == ["val", "none", "none"]
    assert len(list(co3dv2.scenes(raw, co3dv2.Params(min_viewpoint_quality=1.0)))) == 1


def test_probe_finds_nothing_wrong(raw: Path) -> None:
    report = co3dv2.probe(raw)
    assert report.problems == () and report.variant.startswith("one category, apple: 1 of 51")
