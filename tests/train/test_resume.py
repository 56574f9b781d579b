"""A run that was killed anywhere and started again is the run that was not."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

from datakit.errors import FormatError, UsageError
from datakit.train import Trainer, checkpoint

from .conftest import changed, logged

STEPS = 40
TENSORS = ("model.safetensors", "average.safetensors", "optimizer.safetensors", "rng.safetensors")


def abandon(config, out: Path, after: int) -> int:
    """Take some steps and leave without a word, as a kill does; return how many were left to take."""
    steps = Trainer(config, out).steps()
    for _ in range(after):
        if next(steps, None) is None:
            return 0
    steps.close()
    return after


def assert_same_run(one: Path, two: Path) -> None:
    assert logged(one) == logged(two)
    assert logged(one, "validation.jsonl") == logged(two, "validation.jsonl")
    ends = [checkpoint.newest(out / "checkpoints") for out in (one, two)]
    assert ends[0].name == ends[1].name
    for name in TENSORS:
        assert (ends[0] / name).read_bytes() == (ends[1] / name).read_bytes(), name
    seen = [json.loads((end / "ledger.json").read_text()) for end in ends]
    for name in ("samples", "shares", "content_hash", "clip_counts", "queries"):
        assert seen[0][name] == seen[1][name], name
    assert (one / "metrics.json").read_bytes() == (two / "metrics.json").read_bytes()
    assert (one / "loss.csv").read_bytes() == (two / "loss.csv").read_bytes()


@pytest.fixture(scope="module")
def reference(tmp_path_factory, raw_config) -> Path:
    from datakit.train.config import parse_config

    out = tmp_path_factory.mktemp("reference") / "run"
    config = parse_config(changed(raw_config, optim__steps=STEPS))
    assert Trainer(config, out).run()
    return out


def test_losses_fall(reference):
    losses = [line["loss"] for line in logged(reference)]
    assert len(losses) == STEPS and sum(losses[-5:]) < 0.7 * sum(losses[:5])


@pytest.mark.slow
def test_seventeen_kills_at_random_steps_change_nothing(reference, config_of, tmp_path):
    rng, kills = random.Random(4), 0
    config = config_of(optim__steps=STEPS)
    for run in range(4):
        out = tmp_path / str(run)
        while kills < (5, 9, 13, 17)[run]:
            abandon(config, out, rng.randint(1, 9))
            kills += 1
        assert Trainer(config, out).run()
        assert_same_run(reference, out)
    assert kills == 17


@pytest.mark.slow
def test_three_real_kills_change_nothing(reference, raw_config, tmp_path):
    out, file = tmp_path / "run", tmp_path / "config.yaml"
    # A worker process of the stream is part of what a kill leaves behind.
    file.write_text(yaml.safe_dump(changed(raw_config, optim__steps=STEPS, data__workers=1)))
    code = "import sys; from datakit.cli import main; sys.exit(main())"
    command = [sys.executable, "-c", code, "train", str(file), "--out", str(out)]
    rng = random.Random(1)
    for _ in range(3):
        before = len(logged(out)) if (out / "steps.jsonl").exists() else 0
        wanted = before + rng.randint(2, 8)
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
        while process.poll() is None:
            # The log is rewound first, so more lines than before are new ones.
            path = out / "steps.jsonl"
            if path.exists() and path.read_bytes().count(b"\n") >= wanted:
                os.kill(process.pid, signal.SIGKILL)
            time.sleep(0.002)
        assert process.returncode == -signal.SIGKILL, process.stderr.read().decode()
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "going on from step" in done.stderr
    assert_same_run(reference, out)


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_stops_with_a_checkpoint_of_just_there(reference, config_of, tmp_path, signum):
    out = tmp_path / "run"
    trainer = Trainer(config_of(optim__steps=STEPS), out)
    said: list[str] = []
    trainer._say = said.append
    before = signal.getsignal(signum)
    original = trainer._folder.append

    def append(name, line):
        original(name, line)
        if name == "steps.jsonl" and line["step"] == 6:
            os.kill(os.getpid(), signum)

    trainer._folder.append = append
    assert not trainer.run()
    assert signal.getsignal(signum) is before
    stopped = len(logged(out))
    assert 6 <= stopped <= 8
    assert checkpoint.newest(out / "checkpoints").name == f"step-{stopped:08d}"
    assert Trainer(config_of(optim__steps=STEPS), out).run()
    assert_same_run(reference, out)


def test_the_command_says_how_to_go_on(raw_config, tmp_path, monkeypatch, capsys):
    from datakit.cli import main

    file = tmp_path / "config.yaml"
    file.write_text(yaml.safe_dump(raw_config))
    original = Trainer.run

    def run(self):
        self.stop()
        return original(self)

    monkeypatch.setattr(Trainer, "run", run)
    assert main(["train", str(file), "--out", str(tmp_path / "run"), "--quiet"]) == 130
    assert "goes on from there" in capsys.readouterr().err


@pytest.mark.slow
def test_a_kill_inside_a_save_leaves_the_one_before(reference, config_of, tmp_path, monkeypatch):
    """Every sync and rename of a save is a place to be killed at."""
    original = checkpoint._sync
    config = config_of(optim__steps=STEPS)
    for survive in range(0, 13, 2):
        out = tmp_path / str(survive)
        abandon(config, out, 5)
        assert checkpoint.newest(out / "checkpoints").name == "step-00000004"
        calls = 0

        def dies(path, survive=survive):
            nonlocal calls
            calls += ".partial" in str(path) or path.name == "checkpoints"
            if calls > survive:
                raise KeyboardInterrupt
            original(path)

        with monkeypatch.context() as patch:
            steps = Trainer(config, out).steps()
            patch.setattr(checkpoint, "_sync", dies)
            try:
                for _ in range(4):
                    next(steps)
            except KeyboardInterrupt:
                pass
            steps.close()
        kept = checkpoint.newest(out / "checkpoints")
        state = checkpoint.read_state(kept)
        checkpoint._check_files(kept, state)
        assert kept.name in ("step-00000004", "step-00000006", "step-00000008")
    assert Trainer(config, out).run()
    assert_same_run(reference, out)


def test_a_damaged_checkpoint_is_named(config_of, tmp_path):
    out = tmp_path / "run"
    abandon(config_of(), out, 5)
    path = out / "checkpoints" / "step-00000004" / "optimizer.safetensors"
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    with pytest.raises(FormatError, match="optimizer.safetensors"):
        next(Trainer(config_of(), out).steps())
    shutil.rmtree(path.parent)
    assert Trainer(config_of(), out).run()


def test_checkpoints_are_kept_by_rule(config_of, tmp_path):
    out = tmp_path / "run"
    config = config_of(
        checkpoint__every=2, checkpoint__keep_last=1, checkpoint__keep_every=4, checkpoint__best="loss"
    )
    Trainer(config, out).run()
    kept = sorted(int(path.name[5:]) for path in (out / "checkpoints").iterdir())
    best = min(logged(out, "validation.jsonl"), key=lambda line: line["model"]["loss"])["step"]
    assert kept == sorted({4, 8, 12, best})


def test_another_configuration_is_refused_with_the_difference(config_of, shards, tmp_path):
    out = tmp_path / "run"
    abandon(config_of(), out, 1)
    with pytest.raises(UsageError, match=r"config\.optim\.lr") as refused:
        next(Trainer(config_of(optim__lr=1e-3), out).steps())
    assert "0.003" in str(refused.value) and "0.001" in str(refused.value) and "--fresh" in str(refused.value)
    with pytest.raises(UsageError, match="manifests"):
        next(Trainer(config_of(data__shards=[str(shards["other"])]), out).steps())
    # What does not change the result may differ; `fresh` deletes the other run.
    abandon(config_of(checkpoint__every=5, log__every=1), out, 1)
    steps = Trainer(config_of(optim__lr=1e-3), out, existing="fresh").steps()
    assert next(steps)["step"] == 1
    steps.close()


def test_overwrite_goes_on_with_this_run_and_replaces_any_other(config_of, tmp_path):
    def first_step(**changes) -> int:
        steps = Trainer(config_of(**changes), tmp_path, existing="overwrite").steps()
        step = next(steps)["step"]
        steps.close()
        return step

    abandon(config_of(checkpoint__every=1), tmp_path, 3)
    assert first_step() == 4, "this run, stopped after its third checkpoint"
    assert first_step(optim__lr=1e-3) == 1, "another run"
    assert Trainer(config_of(optim__lr=1e-3), tmp_path, existing="overwrite").run()
    assert (tmp_path / "loss.csv").exists()
    assert first_step(optim__lr=1e-3) == 1, "finished, so something else must have changed"
    assert not (tmp_path / "loss.csv").exists()


def test_fresh_deletes_nothing_but_a_run(config_of, tmp_path):
    (tmp_path / "thesis.tex").write_text("x")
    with pytest.raises(UsageError, match="something else"):
        next(Trainer(config_of(), tmp_path, existing="fresh").steps())
    assert (tmp_path / "thesis.tex").exists()


def test_two_runs_cannot_share_a_folder(config_of, tmp_path):
    first = Trainer(config_of(), tmp_path).steps()
    next(first)
    with pytest.raises(UsageError, match="Another run is writing"):
        next(Trainer(config_of(), tmp_path).steps())
    first.close()


def test_what_a_run_was_stands_beside_its_checkpoints(config_of, tmp_path):
    config = config_of()
    Trainer(config, tmp_path).run()
    place = checkpoint.newest(tmp_path / "checkpoints")
    about = json.loads((place / "run.json").read_text())
    assert len(about["manifests"][0]) == 64 and about["starts"][0]["versions"]["torch"]
    from datakit.train.config import parse_config

    assert parse_config(yaml.safe_load((place / "config.yaml").read_text())) == config
    seen = json.loads((place / "ledger.json").read_text())
    assert seen["samples"]["delivered"] == 12 * 4
