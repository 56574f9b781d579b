"""Dense tracking takes as many tracks as theory says, and covers every cell with the right one."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from datakit.infer.answers import ClipInfo
from datakit.infer.dense import NOTHING_THERE, _enter, all_dense_tracks, dense_tracks, start_coverage
from datakit.infer.params import InferParams
from datakit.infer.truth import Errors, TruthAnswers
from datakit.infer.window import count_queries, reconstruct_window
from datakit.worlds import make_view
from tests.infer.oracles import CutPath, open_clip, room_world, wall_world
from tests.worlds.helpers import camera_at_origin, hand_world

SIZE = (24, 18)
#: A cell is a pixel, and all of them are followed.
PARAMS = InferParams(dense=True, dense_size=24, dense_stop=1.0)


def check_map(clip, tracks) -> None:
    """Every cell's track really is there, by the oracle's own word."""
    count, rows, columns = tracks.track_of.shape
    t, row, col = np.nonzero(tracks.track_of >= 0)
    number = tracks.track_of[t, row, col]
    query = tracks.query_uv[number].astype(np.float64)
    answer = clip.ask(query, tracks.query_frame[number], t, t)
    place = np.stack([col, row], axis=1) + 0.5
    assert np.abs(answer.uv * (columns, rows) - place).max() <= 0.5 + 1e-4
    assert (answer.visible == 1).all()
    np.testing.assert_allclose(tracks.points_cam[number, t], answer.xyz, rtol=1e-4, atol=1e-4)


def test_a_still_world_takes_one_track_a_cell():
    clip = open_clip(wall_world(6, SIZE))
    tracks = all_dense_tracks(clip, PARAMS)
    assert len(tracks.query_uv) == 24 * 18 and (tracks.query_frame == 0).all()
    assert tracks.share == 1 and (tracks.track_of == tracks.track_of[0]).all()
    # Depth of all cells, and a track for each cell of one frame, against a track for each cell of each frame.
    assert tracks.num_queries == 2 * 6 * 24 * 18 and tracks.saving == 3


@pytest.mark.parametrize("batch", [7, 100, 4096])
def test_a_sliding_camera_takes_what_comes_into_sight_besides(batch):
    num_frames, step = 5, 2
    clip = open_clip(wall_world(num_frames, SIZE, (step, 0)))
    tracks = all_dense_tracks(clip, replace(PARAMS, dense_batch=batch))
    assert len(tracks.query_uv) == 18 * (24 + step * (num_frames - 1))
    assert set(tracks.query_frame.tolist()) == {0, num_frames - 1}
    assert tracks.share == 1
    check_map(clip, tracks)


def test_corners_that_only_the_middle_shows():
    """The picture slides along a diagonal: what neither end shows is found one by one, each once."""
    clip = open_clip(wall_world(4, (12, 9), (2, 1)))
    tracks = all_dense_tracks(clip, replace(PARAMS, dense_size=12, dense_batch=1))
    seen = {(x + 2 * t, y + t) for t in range(4) for x in range(12) for y in range(9)}
    assert len(tracks.query_uv) == len(seen) and tracks.share == 1
    wasteful = all_dense_tracks(clip, replace(PARAMS, dense_size=12))
    assert len(seen) < len(wasteful.query_uv) < 1.3 * len(seen), (
        "a large batch has several cells of one track"
    )


def test_a_cut_begins_anew():
    path = CutPath(camera_at_origin(40.0, SIZE), 0.25)
    world = hand_world([], background=big_background(), num_frames=5, size=SIZE)
    world = replace(world, views={"camera": make_view(path, SIZE, world.times)})
    tracks = all_dense_tracks(open_clip(world), PARAMS)
    assert len(tracks.query_uv) == 2 * 24 * 18
    assert (tracks.track_of[:3] < 24 * 18).all() and (tracks.track_of[3:] >= 24 * 18).all()


def big_background():
    from tests.worlds.helpers import big_room

    return big_room()


def test_a_moving_box_and_camera():
    clip = open_clip(room_world(6))
    tracks = all_dense_tracks(clip, replace(PARAMS, dense_size=16))
    assert tracks.share == 1 and (tracks.track_of >= 0).all()
    cells = 16 * 12
    assert cells < len(tracks.query_uv) < 6 * cells / 1.5
    # A track covers a cell that its place falls in, or the one it was asked for.
    check_map(clip, tracks)


def test_where_depth_disagrees_a_track_does_not_cover():
    """The oracle says that all is visible: then depth alone tells what is hidden."""

    class AllVisible:
        def __init__(self, clip):
            self.clip, self.info, self.num_frames = clip, clip.info, clip.num_frames

        def ask(self, *query):
            answer = self.clip.ask(*query)
            return replace(answer, visible=np.ones(len(answer)))

    clip = open_clip(room_world(6))
    strict = all_dense_tracks(AllVisible(clip), replace(PARAMS, dense_size=16))
    loose = all_dense_tracks(AllVisible(clip), replace(PARAMS, dense_size=16, dense_agreement=None))
    assert len(loose.query_uv) < len(strict.query_uv)
    t, row, col = np.nonzero(strict.track_of >= 0)
    z = strict.points_cam[strict.track_of[t, row, col], t, 2]
    own = strict.z_depth[t, row, col]
    assert (np.abs(z / own - 1) < 0.0201).all()


def test_a_cell_belongs_to_the_first_track_that_covers_it():
    cells = np.array([-1, -1, 5, NOTHING_THERE], np.int32)
    _enter(cells, np.array([2, 0, 0, 3]), np.array([9, 7, 8, 9], np.int32))
    assert cells.tolist() == [7, -1, 5, NOTHING_THERE]


def test_rounding_to_four_cells_covers_more():
    clip = open_clip(wall_world(5, SIZE, (1.5, 0.5)))
    nearest, four = (
        all_dense_tracks(clip, replace(PARAMS, dense_rounding=rounding)) for rounding in ("nearest", "four")
    )
    assert len(four.query_uv) < len(nearest.query_uv) and four.share == nearest.share == 1


def test_stopping_early_leaves_depth_alone():
    clip = open_clip(room_world(6))
    tracks = all_dense_tracks(clip, replace(PARAMS, dense_size=16, dense_stop=0.8, dense_batch=16))
    assert 0.8 <= tracks.share < 0.9
    left = tracks.track_of == -1
    assert left.any() and np.isfinite(tracks.z_depth[left]).all()


def test_sky_is_not_followed():
    world = hand_world([], num_frames=3, size=SIZE)
    clip = TruthAnswers.of_world(world).open_info(ClipInfo(SIZE, world.times, np.arange(3)))
    tracks = all_dense_tracks(clip, PARAMS)
    sky = np.isnan(tracks.z_depth)
    assert sky.any() and (tracks.track_of[sky] == NOTHING_THERE).all() and (tracks.track_of[~sky] >= 0).all()
    assert tracks.share == 1


def test_more_noise_takes_more_tracks():
    counts = [
        len(all_dense_tracks(open_clip(wall_world(5, SIZE), errors=Errors(flips=flips)), PARAMS).query_uv)
        for flips in (0.0, 0.1, 0.4)
    ]
    assert counts[0] < counts[1] < counts[2]


def test_batches_come_one_by_one():
    clip = open_clip(wall_world(4, SIZE, (1, 0)))
    coverage = start_coverage(clip, PARAMS)
    firsts, shares = [], []
    for batch in dense_tracks(clip, coverage, replace(PARAMS, dense_batch=200)):
        firsts.append(batch.first)
        shares.append(coverage.share)
        assert batch.points_cam.shape == (len(batch.query_uv), 4, 3)
    assert firsts == [0, 200, 400, 432] and shares == sorted(shares) and shares[-1] == 1


def test_projected_places_need_focal_lengths():
    clip = open_clip(wall_world(3, SIZE, (1, 0)))
    params = replace(PARAMS, position="projected")
    with pytest.raises(ValueError, match="focal"):
        all_dense_tracks(clip, params)
    window = reconstruct_window(clip, replace(params, camera_grid=8))
    assert window.dense is not None and len(window.dense.query_uv) == 18 * (24 + 2)
    assert count_queries(params, 3, 0, SIZE)["dense"] > 0
