from __future__ import annotations

import json

import numpy as np
import pytest

from datakit.evaluate.benchmarks import ReadOptions, open_benchmark
from datakit.evaluate.predictions import Prediction, write_prediction
from datakit.worlds import write_world_scene
from tests.evaluate import native


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    root = tmp_path_factory.mktemp("data")
    for number, source in enumerate(("adt", "pstudio")):
        native.write_tapvid3d(
            root / source / "a.npz", native.small_world(number, num_frames=3), with_poses=False
        )
        native.write_tapvid3d(
            root / source / "b.npz", native.small_world(number, num_frames=3), with_poses=False
        )
    return root


@pytest.fixture
def pred(data, tmp_path):
    for entry in open_benchmark(data).entries[:3]:
        tracks = entry.load().tracks
        given = Prediction(tracks_xyz=2 * tracks.xyz_cam, visible=tracks.visible)
        write_prediction(tmp_path / "pred" / f"{entry.name}.npz", given)
    return tmp_path / "pred"


def test_a_run_from_end_to_end(cli, data, pred, tmp_path):
    out = tmp_path / "results.json"
    files = ("--out", out, "--csv", tmp_path / "clips.csv", "--metrics", tmp_path / "metrics.json")
    result = cli("evaluate", "tapvid3d", data, "--predictions", pred, *files)
    assert result.code == 0
    assert "3 of 4 clips measured; 1 missing (pstudio/b)" in result.out and "alignment: median" in result.out
    found = json.loads(out.read_text())
    assert found["counts"]["missing"] == 1 and found["settings"]["code"].startswith("datakit ")
    part = found["protocols"]["median"]
    assert part["values"]["all"]["average_jaccard"] == 1.0
    assert part["official"]["values"]["average_jaccard"] == 0.75  # (1 + 1/2) / 2: the missing one is a zero
    numbers = json.loads((tmp_path / "metrics.json").read_text())
    assert numbers["median"]["adt"]["average_jaccard"] == 1.0
    assert "adt/a,adt,measured,median,average_jaccard,1.0" in (tmp_path / "clips.csv").read_text()
    # The same again gives the same bytes, and measures nothing.
    before, kept = out.read_bytes(), (tmp_path / "results.json.clips.jsonl").read_bytes()
    assert cli("evaluate", "tapvid3d", data, "--predictions", pred, "--out", out, "--quiet").out == ""
    assert out.read_bytes() == before and (tmp_path / "results.json.clips.jsonl").read_bytes() == kept
    assert cli("evaluate", "tapvid3d", data, "--predictions", pred, "--out", out, "--fresh").code == 0
    assert out.read_bytes() == before


def test_protocols_and_lists(cli, data, pred, tmp_path):
    names = tmp_path / "names.txt"
    names.write_text("adt/a.npz\nadt/nowhere.npz\n")
    args = ("evaluate", "tapvid3d", data, "--predictions", pred, "--protocol", "none", "--list", names)
    result = cli(*args)
    assert result.code == 0 and "1 of 1 clips measured; 1 of the list are not in the data" in result.out
    assert "\nmedian" not in result.out
    code = tmp_path / "splits.py"
    code.write_text('MINIVAL_FILES = {"pstudio": ["a.npz"]}')
    assert "1 of 1" in cli(*args[:-1], f"{code}:minival").out
    assert cli(*args[:-1], tmp_path / "gone.txt").code == 1
    unknown = cli("evaluate", "tapvid3d", data, "--predictions", pred, "--protocol", "medain")
    assert unknown.code == 2 and "did you mean 'median'?" in unknown.err


def test_what_cannot_be_read_is_said_and_ends_with_1(cli, data, pred):
    (pred / "adt" / "a.npz").write_bytes(b"nothing")
    result = cli("evaluate", "tapvid3d", data, "--predictions", pred)
    assert result.code == 1 and "1 failed (adt/a)" in result.out and "adt/a: FormatError" in result.err


def test_nothing_measured_is_an_error(cli, data, tmp_path):
    (tmp_path / "empty").mkdir()
    result = cli("evaluate", "tapvid3d", data, "--predictions", tmp_path / "empty")
    assert result.code == 1 and "4 missing" in result.err and "adt/a.npz" in result.err
    assert cli("evaluate", "tapvid3d", data, "--predictions", tmp_path / "gone").code == 1
    assert cli("evaluate", "tapvid3d", tmp_path / "gone", "--predictions", tmp_path / "empty").code == 1


def test_scenes_are_truth_and_prediction(cli, tmp_path):
    for place in ("truth", "pred/world"):
        (tmp_path / place).mkdir(parents=True)
    world = native.small_world(3, num_frames=2, size=(32, 24))
    write_world_scene(world, tmp_path / "truth" / "w.h5")
    write_world_scene(world, tmp_path / "pred" / "world" / f"{world.name}.h5")
    args = (
        "evaluate",
        "video-depth",
        tmp_path / "truth",
        "--predictions",
        tmp_path / "pred",
        "--protocol",
        "d4rt_s",
    )
    out = tmp_path / "out.json"
    assert cli(*args, "--out", out).code == 0
    assert json.loads(out.read_text())["protocols"]["d4rt_s"]["values"]["all"]["abs_rel"] == pytest.approx(
        0, abs=1e-6
    )


def test_ctrl_c_keeps_what_is_done(cli, data, pred, tmp_path, monkeypatch):
    import datakit.evaluate.runner as runner

    measure, count = runner.measure_entry, iter(range(9))

    def interrupted(*args):
        if next(count) == 1:
            raise KeyboardInterrupt
        return measure(*args)

    monkeypatch.setattr(runner, "measure_entry", interrupted)
    out = tmp_path / "results.json"
    assert cli("evaluate", "tapvid3d", data, "--predictions", pred, "--out", out).code == 130
    assert not out.exists()
    assert len((tmp_path / "results.json.clips.jsonl").read_text().splitlines()) == 1
    assert cli("evaluate", "tapvid3d", data, "--predictions", pred, "--out", out).code == 0
    assert next(count) == 5  # the first was not measured again


def test_leaks(cli, tmp_path):
    scenes = tmp_path / "scenes"
    scenes.mkdir()
    world = native.small_world(20, num_frames=2, size=(96, 72))
    write_world_scene(world, scenes / "w.h5")
    for t in range(2):
        native.png(tmp_path / "eval" / "final" / "alley_2" / f"frame_{t + 1:04d}.png", world.render(t).rgb)
    out = tmp_path / "leaks.json"
    result = cli("leaks", scenes, "--against", tmp_path / "eval", "--out", out, "--thumbnails")
    assert (
        result.code == 1 and "sintel/alley_2: 2 frame(s) alike, nearest 0 and 0 (0 and 0 bits)" in result.out
    )
    found = json.loads(out.read_text())
    assert found["num_leaks"] == 1 and len(found["thumbnails"]) == 2
    assert cli("leaks", scenes, "--against", tmp_path / "eval", "--allow").code == 0
    clean = cli("leaks", scenes, "--against", tmp_path / "eval", "--against", "scannet:test", "--names-only")
    assert clean.code == 0 and "0 of 1 scene(s) leak into 101 of the evaluation" in clean.out
    assert cli("leaks", scenes, "--against", "nowhere").code == 1
    assert cli("leaks", scenes).code == 2


def test_a_model_fills_what_is_missing(cli, tmp_path, monkeypatch):
    pytest.importorskip("torch", reason="the torch extra is not installed")
    import datakit.infer.model_answers as model_answers
    from datakit.infer.truth import TruthAnswers

    world = native.small_world(5, num_frames=4, size=(32, 24))
    native.write_sintel(tmp_path / "data", world, "alley_2")

    class Oracle:
        @staticmethod
        def load(source, **options):
            assert source == "run" and options == {"device": "auto", "precision": "fp32"}
            return TruthAnswers.of_world(world)

    monkeypatch.setattr(model_answers, "ModelAnswers", Oracle)
    out = tmp_path / "out.json"
    args = (
        "evaluate",
        "video-depth",
        tmp_path / "data",
        "--predictions",
        tmp_path / "pred",
        "--protocol",
        "d4rt_s",
    )
    assert cli(*args, "--model", "run", "--depth-size", 32, "--out", out).code == 0
    assert (tmp_path / "pred" / "sintel" / "alley_2.npz").is_file()
    found = json.loads(out.read_text())
    assert found["protocols"]["d4rt_s"]["values"]["all"]["abs_rel"] < 1e-3
    assert found["settings"]["model"]["params"]["depth_size"] == 32
    again = cli(
        *args, "--model", "run", "--depth-size", 16
    )  # asked otherwise, it would give other predictions
    assert again.code == 2 and "of another model" in again.err
    (tmp_path / "pred" / "model.json").unlink()
    unknown = cli(*args, "--model", "run", "--depth-size", 32)
    assert unknown.code == 2 and "not made by --model" in unknown.err
    assert cli(*args, "--depth-size", 8).code == 2  # without a model there is nothing to ask
    assert np.load(tmp_path / "pred" / "sintel" / "alley_2.npz")["z_depth"].shape == (4, 24, 32)
    assert open_benchmark(tmp_path / "data", options=ReadOptions(clip_list="14")).entries
