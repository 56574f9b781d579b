"""Scans written independently of our writer and checked with the official C++ reader, against their truth."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pytest

import converters.scannet as scannet
from datakit.scene import validate_scene

from .scans import PARAMS, open_scan

SCANS = ("scene0000_00", "scene0706_00")


@pytest.fixture(scope="module")
def root(samples_dir: Path) -> Path:
    return samples_dir / "scannet" / "raw"


@pytest.mark.parametrize("index", [0, 1], ids=SCANS)
def test_sample_agrees_with_its_truth(root: Path, index: int, tmp_path: Path) -> None:
    with np.load(root.parent / "truth.npz") as truth, open_scan(root, tmp_path, index=index) as scene:
        want = {name.split("|")[2]: truth[name] for name in truth if name.startswith(SCANS[index])}
        view = scene.views["camera"]
        assert scene.id == SCANS[index] and validate_scene(scene.path) == []
        assert np.abs(view.intrinsics - want["K"]).max() < 1e-6
        known = want["pose_is_known"]
        assert np.array_equal(view.pose_is_known, known) and not known.all()
        assert np.abs(view.world_from_cam - want["world_from_cam"])[known].max() < 1e-6
        assert list(view.frame_names) == want["name"].tolist()
        for t in range(view.num_frames):
            assert np.array_equal(view.z_depth(t), want["z_depth_on_depth_grid"][t], equal_nan=True)


def test_traps_of_the_samples(root: Path, tmp_path: Path) -> None:
    with open_scan(root, tmp_path, index=0) as usual, open_scan(root, tmp_path, index=1) as small:
        a, b = usual.views["camera"], small.views["camera"]
        assert (a.size, a.depth_size, b.size, b.depth_size) == ((1296, 968), *((640, 480),) * 3)
        assert np.array_equal(b.intrinsics, b.depth_intrinsics)
        assert usual.metadata["times"] == "timestamp_color" and "are 0" in small.metadata["times"]
        assert usual.metadata["num_color_frames"] == 6 and a.num_frames == 5
        # The homography of the usual pair, by hand: the depth grid begins at (0.25, -1.75) of the colour grid.
        corner = a.intrinsics[0] @ np.linalg.inv(a.depth_intrinsics[0]) @ [0, 0, 1]
        assert np.allclose(corner, [0.25, -1.75, 1], atol=1e-3)


def test_provenance_is_the_hash_of_every_byte(root: Path) -> None:
    for ref in scannet.scenes(root, PARAMS):
        stream = scannet.read(root, ref, PARAMS)
        list(stream.frames)
        assert {Path(s.path).suffix for s in stream.sources} == {".sens", ".txt"}
        for source in stream.sources:
            data = (root / source.path).read_bytes()
            assert (source.size, source.sha256) == (len(data), hashlib.sha256(data).hexdigest())


def test_probe_of_the_samples(root: Path) -> None:
    probe = scannet.probe(root)
    assert (probe.variant, probe.num_scenes) == (".sens (2)", {"train": 2})
    assert [p.severity for p in probe.problems] == ["warning", "warning"]
