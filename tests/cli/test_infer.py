from __future__ import annotations

import hashlib
import json
from dataclasses import asdict

import pytest
import yaml

from datakit.d4rt import D4RT
from datakit.infer.outputs import OUTPUTS
from datakit.scene import open_scene
from tests.d4rt.samples import SMALL
from tests.infer.job_main import Slope
from tests.infer.videos import write_video
from tests.tiny import write_tiny


@pytest.fixture
def source(tmp_path, monkeypatch):
    """A scene, and what stands in for the model that `--model` loads."""
    write_tiny(tmp_path / "room.h5", num_frames=6)
    given = {}

    def load(path, **options):
        given.update(options, path=path)
        return Slope(max_frames=4)

    monkeypatch.setattr("datakit.infer.model_answers.ModelAnswers.load", load)
    return tmp_path / "room.h5", given


def test_a_video_is_inferred(cli, source, tmp_path):
    path, given = source
    out = tmp_path / "out"
    command = [
        "infer",
        path,
        out,
        "--model",
        "run",
        "--depth-size",
        12,
        "--tracks",
        "grid:4",
        "--precision",
        "bf16",
    ]
    result = cli(*command, "--output", "viewer", "--output", "ply", "--chunk", 64)
    assert result.code == 0, result.err
    assert result.out == f"6 frames in 2 windows: {out / 'scene.h5'}\n"
    assert "windows to do" in result.err and "queries/s" in result.err
    assert sorted(entry.name for entry in out.iterdir()) == [
        "job.json", "points.ply", "report.json", "scene.h5", "viewer.html", "windows",
    ]  # fmt: skip
    assert (given["precision"], given["chunk"], given["device"], given["compile"]) == (
        "bf16",
        64,
        "auto",
        False,
    )
    with open_scene(out / "scene.h5") as scene:
        assert scene.views["camera"].depth_size == (12, 9) and len(scene.motion.points_world) >= 12
    again = cli(*command, "--quiet")
    assert again.code == 0 and "2 of them kept from before" in again.out and again.err == ""
    assert cli("validate", out / "scene.h5").code == 0
    assert json.loads((out / "report.json").read_text())["outputs"]["scene"] == "scene.h5"


def test_a_dry_run_says_the_cost_and_does_nothing(cli, source, tmp_path):
    result = cli("infer", source[0], tmp_path / "out", "--model", "run", "--dry-run", "--max-frames", 3)
    assert result.code == 0 and "1 of 1 windows to do" in result.out and not (tmp_path / "out").exists()


def test_wrong_commands_exit_with_2(cli, source, tmp_path):
    path, _ = source
    base = ["infer", path, tmp_path / "out", "--model", "run", "--quiet"]
    for more, words in (
        (["--fps", 5, "--stride", 2], "by stride or by rate"),
        (["--tracks", "squares:3"], "Unknown kind of tracks"),
        (["--window", 40], "longer than the model"),
        (["--view", "left"], "No such view"),
        (["--start", 99], "No frame is left"),
    ):
        result = cli(*base, *more)
        assert result.code == 2 and words in result.err and "Traceback" not in result.err, (more, result.err)


def test_another_job_names_the_option_that_mends(cli, source, tmp_path):
    base = [
        "infer",
        source[0],
        tmp_path / "out",
        "--model",
        "run",
        "--quiet",
        "--output",
        "scene",
        "--tracks",
        "none",
    ]
    assert cli(*base, "--depth-size", 8).code == 0
    refused = cli(*base, "--depth-size", 6)
    assert refused.code == 2 and "--overwrite" in refused.err and "depth_size" in refused.err
    assert cli(*base, "--depth-size", 6, "--overwrite").code == 0


def test_ctrl_c_says_how_to_go_on(cli, source, tmp_path, monkeypatch):
    def stop(self, clip):
        raise KeyboardInterrupt

    monkeypatch.setattr(Slope, "open", stop)
    result = cli("infer", source[0], tmp_path / "out", "--model", "run")
    assert result.code == 130 and "goes on from there" in result.err


def test_the_options_list_every_output():
    from datakit.cli import infer

    assert tuple(OUTPUTS) == infer.OUTPUTS


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run's folder with one checkpoint of an untrained model, as the trainer writes it."""
    import torch

    from datakit.train import checkpoint
    from datakit.train.parallel import Ranks

    folder = tmp_path_factory.mktemp("run")
    (folder / "checkpoints").mkdir()
    torch.manual_seed(0)
    model = D4RT(SMALL)
    config = yaml.safe_dump({"model": asdict(SMALL)}).encode()
    (folder / "config.yaml").write_bytes(config)
    ranks = Ranks(0, 1, torch.device("cpu"), "none")
    optimizer = torch.optim.AdamW(model.parameters())
    sum(parameter.square().sum() for parameter in model.parameters()).backward()
    optimizer.step()
    checkpoint.save(
        folder / "checkpoints",
        model,
        optimizer,
        None,
        checkpoint.Progress(step=1),
        ranks,
        {},
        {"config.yaml": config},
    )
    return folder


def test_a_models_run_is_loaded_and_named(cli, run, tmp_path):
    write_video(tmp_path / "a b.mp4", 7)
    command = [
        "infer",
        tmp_path / "a b.mp4",
        tmp_path / "out",
        "--model",
        run,
        "--depth-size",
        6,
        "--chunk",
        512,
    ]
    done = cli(*command, "--tracks", "grid:3", "--device", "cpu")
    assert done.code == 0 and "Traceback" not in done.err, done.err
    assert cli("validate", tmp_path / "out" / "scene.h5").code == 0
    weights = run / "checkpoints" / "step-00000001" / "model.safetensors"
    with open_scene(tmp_path / "out" / "scene.h5") as scene:
        model = scene.provenance["params"]["model"]
        assert scene.id == "a_b" and scene.provenance["sources"][0]["path"] == "a b.mp4"
    assert model["weights_sha256"] == hashlib.sha256(weights.read_bytes()).hexdigest()
    assert (model["chunk"], model["precision"], model["step"]) == (512, "fp32", 1)
    missing = cli("infer", tmp_path / "a b.mp4", tmp_path / "other", "--model", tmp_path / "no run")
    assert missing.code == 1 and "no run" in missing.err and not (tmp_path / "other").exists()
