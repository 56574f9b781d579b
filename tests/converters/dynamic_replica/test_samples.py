"""Native files made by an independent writer, against their truth."""

from __future__ import annotations

from pathlib import Path

import numpy as np

import datakit
from converters import dynamic_replica as dr
from datakit.motion import Visibility
from datakit.scene import write_scene


def test_independent_sample(samples_dir: Path, tmp_path: Path) -> None:
    root = samples_dir / "dynamic_replica" / "raw"
    with np.load(samples_dir / "dynamic_replica" / "truth.npz") as truth:
        refs = list(dr.scenes(root, dr.Params()))
        assert len(refs) == 2
        for ref in refs:
            path = tmp_path / f"{ref.id}.h5"
            write_scene(path, dr.read(root, ref, dr.Params()))
            with datakit.open_scene(path) as scene:
                for eye, view in scene.views.items():
                    of = f"{ref.id}|{eye}|"
                    np.testing.assert_allclose(view.intrinsics, truth[of + "K"], atol=1e-6)
                    np.testing.assert_allclose(view.world_from_cam, truth[of + "world_from_cam"], atol=1e-6)
                    for t in range(view.num_frames):
                        np.testing.assert_allclose(view.z_depth(t), truth[of + "z_depth"][t], rtol=2**-11)
                tracks = np.swapaxes(truth[f"{ref.id}|tracks_world"], 0, 1)
                np.testing.assert_allclose(scene.motion.points_world, tracks, atol=1e-6)
                visible = np.swapaxes(truth[f"{ref.id}|tracks_visible"], 0, 1)
                state = scene.motion.point_state["left"]
                inside = state != Visibility.OUTSIDE
                np.testing.assert_array_equal(state[inside] == Visibility.VISIBLE, visible[inside])
                assert inside.any() and not inside.all()
