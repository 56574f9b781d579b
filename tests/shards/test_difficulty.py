from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from datakit import Visibility, open_scene
from datakit.shards.difficulty import _comebacks, _longest_run, measure_difficulty, summarise_difficulty
from tests.tiny import write_tiny

U, V, O, X = (int(v) for v in Visibility)  # noqa: E741  unknown, visible, occluded, outside


def test_comebacks_and_runs() -> None:
    state = np.array([[V, O, O, V, O, V], [V, U, V, V, U, V], [O, O, V, V, O, O], [V, X, U, V, V, V]])
    assert _comebacks(state.astype(np.uint8)).tolist() == [2, 0, 0, 1]
    assert _longest_run(state == O).tolist() == [2, 0, 2, 0]


def test_motion_and_parallax_of_the_tiny_scene(tmp_path: Path) -> None:
    path = write_tiny(tmp_path / "s.h5", num_frames=4, square_step=(0, 0.1, 0), camera_step=(0.25, 0, 0))
    with open_scene(path) as scene:
        view = scene.views["cam"]
        arrays = measure_difficulty(scene, view, range(4), 64)
        t, u, v = arrays["difficulty_uv"].T
        on_square = np.array(
            [view.instances(int(a))[int(r), int(c)] for a, c, r in zip(t, u, v, strict=True)], bool
        )
    assert len(t) == 64
    assert set(t) == {0, 1, 2, 3}
    assert 32 <= on_square.sum() < 60
    motion = arrays["difficulty_motion"]
    assert (motion[~on_square] == 0).all()
    # 0.1 m a frame at z = 5, from frame t to the farther end of the clip
    farthest = np.maximum(t, 3 - t)[on_square]
    np.testing.assert_allclose(motion[on_square], farthest * 0.1 / 5, rtol=1e-6)
    # A point of the wall straight ahead sees the baseline of 0.75 m from 10 m.
    centre = ~on_square & (np.abs(u - 20 - (1.5 - t) * -1) < 12)
    expected = np.degrees(2 * np.arctan(0.375 / 10))
    assert np.abs(arrays["difficulty_parallax"][centre] / expected - 1).max() < 0.2


def test_a_later_window_speaks_of_its_own_frames(tmp_path: Path) -> None:
    with open_scene(write_tiny(tmp_path / "s.h5", num_frames=8, square_step=(0, 0.05, 0))) as scene:
        arrays = measure_difficulty(scene, scene.views["cam"], range(5, 8), 40)
    assert set(arrays["difficulty_uv"][:, 0]) == {0, 1, 2}
    assert np.nanmax(arrays["difficulty_motion"]) == pytest.approx(2 * 0.05 / 5, rel=1e-6)


def test_photos_that_do_not_adjoin_are_read_and_followed_by_their_own_numbers(tmp_path: Path) -> None:
    photos = np.array([0, 3, 4, 7])
    path = write_tiny(tmp_path / "s.h5", num_frames=8, square_step=(0, 0.1, 0), camera_step=(0.25, 0, 0))
    with open_scene(path) as scene:
        view = scene.views["cam"]
        arrays = measure_difficulty(scene, view, photos.tolist(), 64)
        t, u, v = arrays["difficulty_uv"].T
        frame = photos[t.astype(int)]
        on_square = np.array(
            [view.instances(int(a))[int(r), int(c)] for a, c, r in zip(frame, u, v, strict=True)], bool
        )
    assert on_square.reshape(4, 16)[:, :8].all()  # of each photo, half of the points start on what moves
    motion = arrays["difficulty_motion"]
    assert (motion[~on_square] == 0).all()
    farthest = np.maximum(frame, 7 - frame)[on_square]
    np.testing.assert_allclose(motion[on_square], farthest * 0.1 / 5, rtol=1e-6)


def test_no_tracks_and_unknown_values() -> None:
    arrays = {
        "difficulty_motion": np.array([np.nan, 2.0, 4.0]),
        "difficulty_occlusion": np.zeros(0),
        "difficulty_reappearance": np.array([np.nan]),
        "difficulty_parallax": np.array([1.0]),
    }
    assert summarise_difficulty(arrays) == {
        "motion": 3.0,
        "occlusion": None,
        "reappearance": None,
        "parallax": 1.0,
    }


def test_view_without_known_depth_has_no_tracks(tmp_path: Path) -> None:
    with open_scene(write_tiny(tmp_path / "s.h5")) as scene:
        arrays = measure_difficulty(scene, scene.views["cam"], range(4), 0)
    assert all(len(value) == 0 for value in arrays.values())
