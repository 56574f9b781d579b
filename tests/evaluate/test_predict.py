"""An oracle in place of the model: benchmark's files -> clip -> questions -> prediction -> perfect numbers."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

pytest.importorskip("torch", reason="the torch extra is not installed")

from datakit.errors import LayoutError
from datakit.evaluate.benchmarks import open_benchmark
from datakit.evaluate.predict import predict
from datakit.evaluate.predictions import write_prediction
from datakit.evaluate.protocols import choose_protocols
from datakit.evaluate.runner import measure_benchmark
from datakit.infer.job import default_params
from datakit.infer.truth import TruthAnswers
from tests.evaluate import native

NUM_FRAMES = 10


@pytest.fixture(scope="module")
def world():
    return native.small_world(5, num_frames=NUM_FRAMES)


@pytest.fixture(scope="module")
def tracks(world, tmp_path_factory):
    root = tmp_path_factory.mktemp("tracks")
    native.write_tapvid3d(root / "drivetrack" / "a.npz", world)
    return open_benchmark(root)


def measured(benchmark, world, folder, name, max_frames=48, **params):
    answerer = TruthAnswers.of_world(world, max_frames=max_frames)
    entry = benchmark.entries[0]
    chosen = default_params(answerer, normals=False, motion_size=8, **params)
    write_prediction(folder / f"{entry.name}.npz", predict(entry.load(), answerer, chosen))
    (result,) = measure_benchmark(benchmark, folder, choose_protocols(name, (), benchmark.dataset))
    assert result.status == "measured", result.reasons
    return result.values


def test_tracks_in_each_camera_and_in_the_world(world, tracks, tmp_path):
    found = measured(tracks, world, tmp_path, "tapvid3d", depth_size=16)["median"]
    assert found["average_jaccard"] == found["occlusion_accuracy"] == 1.0
    found = measured(tracks, world, tmp_path, "worldtrack", depth_size=16)
    assert found["global"]["apd"] == 1.0 and found["global"]["epe"] == pytest.approx(0, abs=1e-5)
    assert found["d4rt"]["apd3d"] == 1.0


def test_tracks_over_windows(world, tracks, tmp_path):
    """Queries are followed over the seams, to later windows and to earlier ones."""
    entry = tracks.entries[0]
    clip = entry.load()
    answerer = TruthAnswers.of_world(world, max_frames=6)
    found = predict(clip, answerer, default_params(answerer, normals=False, motion_size=8, depth_size=16))
    answered = np.isfinite(found.tracks_world).all(axis=-1)
    first = clip.tracks.query_xyt[:, 2] < 6
    assert first.any() and not first.all()
    assert answered[first, :6].all() and answered[~first, -6:].all()
    assert answered[~first, 0].mean() > 0.5 and answered[first, -1].mean() > 0.5
    error = np.linalg.norm(found.tracks_xyz - clip.tracks.xyz_cam, axis=-1)[answered]
    assert error.max() < 1e-3 * np.linalg.norm(clip.tracks.xyz_cam[answered], axis=-1).max()


@pytest.mark.parametrize("max_frames", [48, 6])
def test_depth_and_cameras(max_frames, world, tmp_path):
    native.write_sintel(tmp_path / "data", world, "alley_2")
    benchmark = open_benchmark(tmp_path / "data")
    found = measured(benchmark, world, tmp_path / "pred", "video-depth", max_frames, depth_size=64)
    # Cells are pixels here: nothing is lost by resizing.
    assert found["cut3r_scale"]["abs_rel"] < 1e-3 and found["d4rt_ss"]["abs_rel"] < 1e-3


def test_a_clip_without_images_cannot_be_asked(world, tracks):
    clip = replace(tracks.entries[0].load(), rgb=None)
    with pytest.raises(LayoutError, match="no images"):
        predict(clip, TruthAnswers.of_world(world))
