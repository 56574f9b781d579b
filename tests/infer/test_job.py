"""A whole inference with an oracle in place of the model: world -> frames -> windows -> scene, and what it is worth."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest

from datakit import geometry as g
from datakit.certify import certify_scene
from datakit.convert.lock import locked_folder
from datakit.errors import FormatError, UsageError
from datakit.infer.cost import format_seconds
from datakit.infer.files import read_npz
from datakit.infer.folder import WindowFolder
from datakit.infer.job import JobResult, _clips, estimate, infer, plan_windows
from datakit.infer.outputs import DEFAULT_OUTPUTS, OutputOptions
from datakit.infer.params import InferParams
from datakit.infer.truth import Errors, TruthAnswers
from datakit.infer.video import open_source
from datakit.infer.window import WindowResult
from datakit.motion import Visibility
from datakit.scene import open_scene, validate_scene
from datakit.show import write_report
from datakit.worlds import random_world, write_world_scene
from tests.infer.job_main import FRAMES, PARAMS, SEED, SIZE, Slope, SlopeClip, tree

ONLY_SCENE = OutputOptions(kinds=("scene",))


@pytest.fixture(autouse=True)
def no_calibration(monkeypatch):
    monkeypatch.setattr("datakit.infer.cost._CALIBRATION_S", 0.0)


@pytest.fixture(scope="module")
def world():
    return random_world(SEED, num_frames=FRAMES, size=SIZE)


@pytest.fixture(scope="module")
def source(world, tmp_path_factory):
    path = tmp_path_factory.mktemp("world") / "room.h5"
    write_world_scene(world, path)
    return path


@pytest.fixture(scope="module")
def done(world, source, tmp_path_factory):
    said: list[str] = []
    out = tmp_path_factory.mktemp("job") / "out"
    result = infer(source, out, TruthAnswers.of_world(world), PARAMS, tracks="grid:6", say=said.append)
    return result, said


@pytest.fixture(scope="module")
def cheap(source, tmp_path_factory):
    """The same frames with answers that cost nothing: what is tested with it is not geometry."""
    out = tmp_path_factory.mktemp("cheap") / "out"
    return infer(source, out, Slope(), PARAMS, tracks="grid:6")


@pytest.fixture
def scene(done):
    with open_scene(done[0].written["scene"]) as opened:
        yield opened


def first_camera(world):
    return world.views["camera"].world_from_cam[0]


def test_cameras_are_the_worlds(world, scene):
    view, truth = scene.views["camera"], world.views["camera"]
    np.testing.assert_allclose(view.intrinsics[:, 0, 0], truth.intrinsics[:, 0, 0], rtol=1e-3)
    np.testing.assert_allclose(view.intrinsics[:, 1, 1], truth.intrinsics[:, 1, 1], rtol=1e-3)
    from_first = g.invert_rigid(first_camera(world)) @ truth.world_from_cam
    np.testing.assert_allclose(view.world_from_cam, from_first, atol=1e-5)
    assert scene.scale == "unknown" and view.depth_kind == "pseudo"


def test_depth_is_the_worlds(world, scene):
    view = scene.views["camera"]
    assert view.depth_size == (16, 12)
    cells = g.pixel_centres(view.depth_size).reshape(-1, 2) * (np.array(SIZE) / view.depth_size)
    for t in (0, 7, FRAMES - 1):
        pose, k = world.views["camera"].world_from_cam[t], world.views["camera"].intrinsics[t]
        directions = g.camera_rays(cells, k) @ pose[:3, :3].T
        hits = world.cast(pose[:3, 3], directions, np.full(len(cells), world.times[t]))
        points_cam = g.transform_points(g.invert_rigid(pose), hits.points_world)
        np.testing.assert_allclose(view.z_depth(t).ravel(), points_cam[:, 2], rtol=1e-4)


def test_tracks_are_the_worlds(world, scene, source):
    motion = scene.motion
    begun = np.isfinite(motion.points_world[:, 0]).all(axis=1)  # those of the first window
    columns, rows = 6, 4
    uv = np.stack(np.meshgrid((np.arange(columns) + 0.5) / columns, (np.arange(rows) + 0.5) / rows), axis=-1)
    uv_px = uv.reshape(-1, 2) * SIZE
    assert begun.sum() == len(uv_px)
    to_first = g.invert_rigid(first_camera(world))
    with open_scene(source) as truth:
        for t in (4, 9, FRAMES - 1):
            wanted = truth.track("camera", uv_px, np.zeros(len(uv_px), int), np.full(len(uv_px), t))
            found, state = motion.points_world[begun][:, t], motion.point_state["camera"][begun, t]
            known = np.isfinite(found).all(axis=1)
            assert known.sum() > (4 if t == FRAMES - 1 else 15)
            # scene.track looks up a pixel's depth, the oracle casts a ray: a share of a pixel at slanted surfaces.
            off = np.linalg.norm(found - g.transform_points(to_first, wanted.points_world), axis=1)[known]
            assert np.median(off) < 0.02 and (off < 0.25).mean() > 0.8
            seen = state[known] == Visibility.VISIBLE
            assert (seen == (wanted.state[known] == Visibility.VISIBLE)).mean() > 0.85


def test_what_moves_is_told_from_what_is_still(world, scene):
    view = scene.views["camera"]
    moves = [np.ptp(body.world_from_instance[:, :3, 3], axis=0).max() > 0.3 for body in world.bodies]
    ids = cv2.resize(
        world.render(5).instances.astype(np.uint8), view.depth_size, interpolation=cv2.INTER_NEAREST
    )
    truth = np.array(moves)[ids]
    found = view.instances(5) == 1
    assert truth.any() and (found == truth).mean() > 0.9


def test_everything_else_works_on_the_scene(done, scene, tmp_path):
    result, _ = done
    assert validate_scene(result.written["scene"]) == []
    certificate = certify_scene(scene)
    # A grid this small leaves some checks nothing to measure; what is measured must not fail.
    verdicts = {check.name: check.verdict for check in certificate.checks}
    assert "fail" not in (verdicts["depth_reprojection"], verdicts["track_depth"]), verdicts
    assert write_report(result.written["scene"], tmp_path / "report.html").stat().st_size > 10_000


def test_all_outputs_say_the_same(done, scene):
    result, _ = done
    view = scene.views["camera"]
    assert set(result.written) == set(DEFAULT_OUTPUTS)
    arrays = read_npz(result.written["npz"])
    np.testing.assert_array_equal(arrays["z_depth"][7], view.z_depth(7))
    np.testing.assert_array_equal(arrays["world_from_cam"], view.world_from_cam)
    back = g.transform_points(view.world_from_cam[7], arrays["tracks_cam"][:, 7])
    np.testing.assert_allclose(back, scene.motion.points_world[:, 7], atol=1e-5)
    names = {path.name for path in (result.written["colmap"] / "images").iterdir()}
    assert len(names) == FRAMES and result.written["ply"].read_bytes().startswith(b"ply\n")
    report = json.loads((result.out / "report.json").read_text())
    assert len(report["seams"]) == 2 and not any(seam["is_bad"] for seam in report["seams"])
    assert result.num_bad_seams == 0


def test_provenance_names_model_parameters_and_source(world, scene):
    provenance = scene.provenance
    assert provenance["converter"] == "infer" and provenance["params"]["params"]["depth_size"] == 16
    assert provenance["params"]["model"] == json.loads(json.dumps(TruthAnswers.of_world(world).describe()))
    assert provenance["sources"][0]["path"] == "room.h5" and len(provenance["sources"][0]["sha256"]) == 64
    assert scene.licence == "CC0-1.0"


def test_the_estimate_comes_first_and_counts_right(done):
    result, said = done
    line = next(text for text in said if "windows to do" in text)
    foretold = int(line.split(": ")[1].split(" queries")[0].replace(",", ""))
    assert said.index(line) == 1 and 0.7 < result.num_queries / foretold <= 1.05
    assert "queries/s" in line and result.seconds > 0


def test_an_estimate_writes_nothing(world, source, tmp_path):
    cost = estimate(source, TruthAnswers.of_world(world), PARAMS, tracks="none")
    assert cost.num_missing == cost.num_windows == 3 and cost.seconds > 0 and not list(tmp_path.iterdir())
    assert "tracks" not in {name for name, count in cost.queries.items() if count}
    assert format_seconds(3725) == "1 h 2 min"


class Stopped(Slope):
    """Is interrupted when it opens its second window."""

    def open(self, clip):
        if clip.numbers[0] > 0:
            raise KeyboardInterrupt
        return super().open(clip)


def test_ctrl_c_keeps_windows_and_the_rest_is_the_same(source, cheap, tmp_path):
    out = tmp_path / "out"
    with pytest.raises(KeyboardInterrupt):
        infer(source, out, Stopped(), PARAMS, tracks="grid:6")
    assert len(list((out / "windows").iterdir())) == 1 and not (out / "scene.h5").exists()
    again = infer(source, out, Slope(), PARAMS, tracks="grid:6")
    assert again.num_kept == 1 and again.num_queries < cheap.num_queries
    assert tree(out) == tree(cheap.out)


def test_a_finished_job_asks_nothing(source, cheap):
    before = tree(cheap.out)
    again = infer(source, cheap.out, Slope(), PARAMS, tracks="grid:6")
    assert again.num_kept == 3 and again.num_queries == 0 and tree(cheap.out) == before


@pytest.mark.slow
def test_a_killed_run_goes_on_to_the_same_bytes(source, cheap, tmp_path):
    """SIGKILL after the first and after the second window; what is left of a file under way is not believed."""
    root = Path(__file__).parents[2]
    command = [sys.executable, "-m", "tests.infer.job_main", str(source), str(tmp_path / "out")]
    environment = {**os.environ, "PYTHONPATH": str(root), "OMP_NUM_THREADS": "1"}
    windows = tmp_path / "out" / "windows"
    for number in range(2):
        with subprocess.Popen([*command, "0.02"], cwd=root, env=environment) as process:
            while process.poll() is None and len(list(windows.glob("*.npz"))) <= number:
                time.sleep(0.005)
            process.send_signal(signal.SIGKILL)
        assert process.returncode == -signal.SIGKILL, "it was to be killed before it was done"
    (windows / "00002_000008-000015.npz.partial").write_bytes(b"half")
    subprocess.run(command, cwd=root, env=environment, check=True)
    assert tree(tmp_path / "out") == tree(cheap.out)


def test_a_damaged_window_is_made_again(source, cheap, tmp_path):
    shutil.copytree(cheap.out, tmp_path / "out")
    path = sorted((tmp_path / "out" / "windows").iterdir())[1]
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    assert infer(source, tmp_path / "out", Slope(), PARAMS, tracks="grid:6").num_kept == 2
    assert tree(tmp_path / "out") == tree(cheap.out)


def test_another_job_is_refused_with_the_difference(source, tmp_path):
    infer(source, tmp_path, Slope(), PARAMS, tracks="none", outputs=ONLY_SCENE)
    other = replace(PARAMS, depth_size=8)
    with pytest.raises(UsageError, match=r"params\.depth_size was 16, now 8[\s\S]*--overwrite"):
        infer(source, tmp_path, Slope(), other, tracks="none", outputs=ONLY_SCENE)
    with pytest.raises(UsageError, match="tracks"):
        infer(source, tmp_path, Slope(), PARAMS, tracks="grid:2", outputs=ONLY_SCENE)
    with pytest.raises(UsageError, match=r"model\.tilt was 1\.0, now 2"):
        infer(source, tmp_path, Slope(tilt=2), PARAMS, tracks="none", outputs=ONLY_SCENE)
    (tmp_path / "mine.txt").write_text("kept")
    infer(source, tmp_path, Slope(), other, tracks="none", outputs=ONLY_SCENE, overwrite=True)
    with open_scene(tmp_path / "scene.h5") as scene:
        assert scene.views["camera"].depth_size == (8, 6)
    assert (tmp_path / "mine.txt").read_text() == "kept"


def test_a_run_killed_at_its_very_start_leaves_nothing_in_the_way(source, tmp_path):
    (tmp_path / "job.json.partial").write_text("{")
    infer(source, tmp_path, Slope(), PARAMS, tracks="none", outputs=ONLY_SCENE)
    names = sorted(path.name for path in tmp_path.iterdir())
    assert names == ["job.json", "report.json", "scene.h5", "windows"]


def test_a_damaged_job_file_is_named(source, tmp_path):
    (tmp_path / "job.json").write_text("{")
    with pytest.raises(FormatError, match=r"job\.json"):
        infer(source, tmp_path, Slope(), PARAMS)


def test_two_runs_do_not_share_a_folder(source, tmp_path):
    with locked_folder(tmp_path), pytest.raises(UsageError, match="Another run"):
        infer(source, tmp_path, Slope(), PARAMS)


def test_a_folder_of_other_things_is_left_alone(source, tmp_path):
    (tmp_path / "thesis.tex").write_text("")
    with pytest.raises(UsageError, match="other things"):
        infer(source, tmp_path, Slope(), PARAMS, overwrite=True)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


def test_windows_longer_than_the_models_are_refused(source, tmp_path):
    short = Slope(max_frames=4)
    with pytest.raises(UsageError, match="longer than the model"):
        infer(source, tmp_path, short, InferParams(window=8, overlap=2))


def test_a_seam_that_disagrees_is_told_everywhere(world, source, tmp_path):
    """Each window has a unit of its own, and its cameras are further apart than depth says."""
    said: list[str] = []
    wrong = TruthAnswers.of_world(world, errors=Errors(scale_spread=0.5, baseline_spread=0.3))
    options = OutputOptions(kinds=("scene", "viewer"))
    result = infer(source, tmp_path, wrong, PARAMS, tracks="none", outputs=options, say=said.append)
    assert result.num_bad_seams == 2 and sum("bad seam" in text for text in said) == 2
    assert max(abs(np.log(seam["scale"])) for seam in result.seams) > 0.05
    assert "disagrees" in (tmp_path / "viewer.html").read_text()
    with open_scene(tmp_path / "scene.h5") as scene:
        assert [seam["is_bad"] for seam in scene.metadata["seams"]] == [True, True]
    assert [seam["is_bad"] for seam in json.loads((tmp_path / "report.json").read_text())["seams"]] == [
        True
    ] * 2


def test_single_pixels_are_followed_through_windows(source, tmp_path):
    """Onwards and back; a run that was killed while it went back, and one with a damaged window, end the same."""
    (tmp_path / "points.csv").write_text("frame,x,y\n0,24,18\n13,10,10\n")

    def run(name: str) -> JobResult:
        tracks = str(tmp_path / "points.csv")
        return infer(source, tmp_path / name, Slope(), PARAMS, tracks=tracks, outputs=ONLY_SCENE)

    run("out")
    with open_scene(tmp_path / "out" / "scene.h5") as scene:
        known = np.isfinite(scene.motion.points_world).all(axis=2)
    assert known.shape == (2, FRAMES) and known.all()
    assert run("out").num_queries == 0

    shutil.copytree(tmp_path / "out", tmp_path / "damaged")
    windows = sorted((tmp_path / "damaged" / "windows").iterdir())
    assert len(windows) == 3
    windows[1].write_bytes(windows[1].read_bytes()[:-9])
    assert run("damaged").num_kept == 2
    assert tree(tmp_path / "damaged") == tree(tmp_path / "out")

    with pytest.MonkeyPatch.context() as patch:
        saved, save = [], WindowFolder.save

        def killed(self: WindowFolder, number: int, window: WindowResult) -> None:
            saved.append(number)
            if len(saved) == 5:
                raise KeyboardInterrupt
            save(self, number, window)

        patch.setattr(WindowFolder, "save", killed)
        with pytest.raises(KeyboardInterrupt):
            run("killed")
    assert saved == [0, 1, 2, 1, 0]
    assert run("killed").num_kept == 3
    assert tree(tmp_path / "killed") == tree(tmp_path / "out")


def test_dense_tracks_are_written_in_the_world(source, tmp_path):
    params = replace(PARAMS, dense=True, dense_size=8)
    result = infer(source, tmp_path, Slope(), params, tracks="none", outputs=ONLY_SCENE)
    files = sorted(result.written["dense"].iterdir())
    assert [path.name for path in files] == ["00000.npz", "00001.npz", "00002.npz"]
    dense = read_npz(files[1])
    assert dense["track_of"].shape == (8, 6, 8) and dense["covered"] > 0.99 and dense["numbers"][0] == 4
    # A still camera before a still slope: as many tracks as cells, and each stays where it is.
    assert len(dense["query_uv"]) == 48 and dense["saving"] > 3
    np.testing.assert_allclose(dense["points_world"][:, 0], dense["points_world"][:, 7], atol=1e-2)
    with open_scene(result.written["scene"]) as scene:
        middle = scene.views["camera"].z_depth(4).mean()
    assert abs(dense["points_world"][..., 2].mean() - middle) < 0.05


@pytest.mark.parametrize("some", [True, False], ids=["some", "none"])
def test_unknown_focal_lengths_are_filled_and_said(source, tmp_path, some):
    class Blind(SlopeClip):
        def ask(self, uv, t_src, t_tgt, t_cam):
            lost = not some or self.info.numbers[0] > 0
            answer = super().ask(uv, t_src, t_tgt, t_cam)
            return replace(answer, xyz=answer.xyz * [0, 0, 1]) if lost else answer

    class Blinded(Slope):
        def open(self, clip):
            return Blind(*vars(super().open(clip)).values())

    result = infer(
        source, tmp_path, Blinded(), PARAMS, tracks="none", outputs=OutputOptions(kinds=("viewer",))
    )
    assert validate_scene(result.written["scene"]) == []
    with open_scene(result.written["scene"]) as scene:
        focal = scene.views["camera"].intrinsics[:, 0, 0]
        assert len(set(focal.round(3))) == 1 and "no focal length was found" in scene.metadata["notes"][0]
    assert "no focal length" in result.written["viewer"].read_text()


def test_the_grid_of_tracks_is_filled_up(source, tmp_path):
    class Fading(Slope):
        """What was asked for in the left half is out of sight in the next window's frames."""

        def open(self, clip):
            return FadingClip(*vars(super().open(clip)).values())

    class FadingClip(SlopeClip):
        def ask(self, uv, t_src, t_tgt, t_cam):
            answer = super().ask(uv, t_src, t_tgt, t_cam)
            gone = (uv[:, 0] < 0.5) & (self.info.numbers[t_tgt] >= 4) & (self.info.numbers[t_src] < 4)
            return replace(answer, visible=np.where(gone, 0.0, 1.0))

    infer(source, tmp_path, Fading(), PARAMS, tracks="grid:4", outputs=ONLY_SCENE)
    with open_scene(tmp_path / "scene.h5") as scene:
        points, state = scene.motion.points_world, scene.motion.point_state["camera"]
    late = np.isnan(points[:, 0]).any(axis=1)
    assert len(points) == 12 + 6 and late.sum() == 6 and (points[late, 8, 0] < 0).all()
    assert ((state[:, 8:] == Visibility.VISIBLE).sum(axis=0) == 12).all()


def test_a_video_file_gives_what_its_frames_give(source, world, tmp_path):
    writer = cv2.VideoWriter(str(tmp_path / "room.mp4"), cv2.VideoWriter.fourcc(*"mp4v"), world.fps, SIZE)
    with open_scene(source) as truth:
        frames = [truth.views["camera"].rgb(t) for t in range(FRAMES)]
    for frame in frames:
        writer.write(cv2.cvtColor(frame, cv2.COLOR_RGB2BGR))
    writer.release()
    options = replace(ONLY_SCENE, licence="CC-BY-4.0")
    infer(tmp_path / "room.mp4", tmp_path / "out", Slope(), PARAMS, tracks="none", outputs=options)
    with open_scene(tmp_path / "out" / "scene.h5") as video:
        view = video.views["camera"]
        assert video.licence == "CC-BY-4.0" and view.record["layers"]["rgb"]["codec"] == "jpeg"
        np.testing.assert_allclose(view.times, world.times, atol=1e-3)
        assert np.abs(view.rgb(9).astype(int) - frames[9]).mean() < 12


def test_windows_cover_the_video_once_and_overlap():
    for total, window, overlap in ((1, 8, 2), (8, 8, 2), (9, 8, 2), (100, 48, 16), (20, 8, 7)):
        spans = plan_windows(total, window, overlap)
        assert spans[0][0] == 0 and spans[-1][1] == total
        for before, after in zip(spans, spans[1:], strict=False):
            assert before[0] < after[0] < before[1] < after[1] and before[1] - after[0] >= overlap
        assert all(stop - first == min(window, total) for first, stop in spans)
    with pytest.raises(UsageError, match="overlap"):
        plan_windows(20, 8, 8)


def test_streamed_windows_hold_their_frames(source):
    opened = open_source(source)
    whole = np.stack(list(opened.frames()))
    spans = [(0, 7), (5, 12), (9, 16)]
    for wanted in ([0, 1, 2], [0, 2], [1], [2]):
        for number, clip in _clips(opened, spans, wanted):
            first, stop = spans[number]
            np.testing.assert_array_equal(clip.rgb, whole[first:stop])
            assert clip.numbers.tolist() == list(range(first, stop))


def test_rerun_is_asked_for_by_name_where_it_is_missing(source, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "rerun", None)
    with pytest.raises(UsageError, match=r"datakit\[rerun\]"):
        infer(
            source, tmp_path, Slope(), PARAMS, tracks="none",
            outputs=OutputOptions(kinds=("rerun",)),
        )  # fmt: skip
    assert not (tmp_path / "windows").exists(), "it is said before anything is inferred"


def test_a_recording_for_rerun_is_written_where_it_is_installed(source, tmp_path):
    pytest.importorskip("rerun")
    options = OutputOptions(kinds=("rerun",))
    result = infer(source, tmp_path, Slope(), PARAMS, tracks="grid:3", outputs=options)
    assert result.written["rerun"].read_bytes().startswith(b"RRF") and not list(tmp_path.glob("*.partial"))


def test_unknown_outputs_are_named():
    with pytest.raises(UsageError, match="viewer"):
        OutputOptions(kinds=("gif",))
