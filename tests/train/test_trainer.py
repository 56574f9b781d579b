"""Steps, validation and what is said, on a run of seconds."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
import torch

from datakit.d4rt import D4RT
from datakit.stream import stream
from datakit.train import NonFiniteError, Trainer, checkpoint
from datakit.train import validate as validate_module
from datakit.train.feed import Feed, micro_batches
from datakit.train.parallel import Ranks
from datakit.train.speed import Meter, matmul_rate
from datakit.train.validate import validate

from .conftest import logged

ALONE = Ranks(0, 1, torch.device("cpu"), "none")


def test_a_number_that_is_none_stops_with_the_clips_names(config_of, tmp_path, monkeypatch):
    original = Feed.take

    def take(self):
        fed = original(self)
        if fed.stream_state["step"] == 6:
            # Positive, as the model demands, and yet the logarithm of nothing.
            fed.batch["aspect_ratio"][2] = math.inf
            take.keys = list(fed.batch["meta"]["key"])
        return fed

    monkeypatch.setattr(Feed, "take", take)
    with pytest.raises(NonFiniteError) as error:
        Trainer(config_of(), tmp_path).run()
    assert error.value.where == f"step 6, clips {', '.join(take.keys)}"
    assert error.value.found.endswith(f"alone not finite: {take.keys[2]}") and "nan" in error.value.found
    assert "step-00000004" in error.value.mend
    # Nothing of the step is kept, and without the bad clip the run goes on.
    assert len(logged(tmp_path)) == 5
    monkeypatch.undo()
    assert Trainer(config_of(), tmp_path).run()
    assert all(math.isfinite(line["loss"]) for line in logged(tmp_path))


def test_weights_start_from_another_runs_average(config_of, tmp_path):
    Trainer(config_of(), tmp_path / "a").run()
    first = checkpoint.newest(tmp_path / "a" / "checkpoints")
    config = config_of(init__checkpoint=str(first), optim__lr=1e-9, optim__final_lr=0.0)
    Trainer(config, tmp_path / "b").run()
    one, two = D4RT(config.model), D4RT(config.model)
    checkpoint.load_weights(first / "average.safetensors", one)
    checkpoint.load_weights(checkpoint.newest(tmp_path / "b" / "checkpoints") / "model.safetensors", two)
    for a, b in zip(one.parameters(), two.parameters(), strict=True):
        torch.testing.assert_close(a, b, atol=1e-6, rtol=1e-6)


CHANGES = [{"compile": "blocks"}, {"compile": "model"}, {"precision": "bf16"}]


@pytest.mark.slow
@pytest.mark.parametrize("change", CHANGES, ids=str)
def test_compiled_and_in_bfloat16(config_of, tmp_path, monkeypatch, change):
    plain, changed = tmp_path / "plain", tmp_path / "changed"
    # Everything of torch.compile but the making of C++, which takes minutes and a compiler.
    original = torch.nn.Module.compile
    monkeypatch.setattr(torch.nn.Module, "compile", lambda self: original(self, backend="aot_eager"))
    Trainer(config_of(optim__steps=4), plain).run()
    Trainer(config_of(optim__steps=4, **{f"execution__{k}": v for k, v in change.items()}), changed).run()
    tolerance = 1e-4 if "compile" in change else 0.05
    for a, b in zip(logged(plain), logged(changed), strict=True):
        assert a["loss"] == pytest.approx(b["loss"], rel=tolerance)


@pytest.mark.slow
def test_more_steps_of_learning_beat_the_trivial_depth(config_of, tmp_path):
    config = config_of(optim__steps=120, validation__every=120, checkpoint__every=120, data__augment="none")
    Trainer(config, tmp_path).run()
    metrics = json.loads((tmp_path / "metrics.json").read_text())
    best = min(metrics[name]["abs_rel"] for name in ("constant_depth", "static_world"))
    assert metrics["margin"]["abs_rel"] == pytest.approx(best - metrics["model"]["abs_rel"])
    assert metrics["is_better"]["abs_rel"] and metrics["margin"]["abs_rel"] > 0.05
    rows = (tmp_path / "loss.csv").read_text().splitlines()
    assert len(rows) == 121 and rows[0].startswith("step,loss,") and "held_out_abs_rel" in rows[0]
    assert rows[-1].split(",")[-1] and not rows[1].split(",")[-1]


def oracle(model, batch, config, ranks):
    """Answer with the truth."""
    truth = {name: torch.from_numpy(np.nan_to_num(value)) for name, value in batch["target"].items()}
    return truth | {
        "visible": (truth["visible"].float() - 0.5) * 40,
        "confidence": torch.ones_like(truth["xyz"][..., 0]),
        "xyz": truth["xyz"] * 3,  # up to scale
        "displacement": truth["displacement"] * 3,
    }


def test_truth_is_measured_as_perfect(config_of, monkeypatch):
    monkeypatch.setattr(validate_module, "_ask", oracle)
    found = validate(torch.nn.Identity(), config_of(), ALONE)
    assert found["clips"] == 2 and found["undefined"] == {}
    assert found["model"]["apd3d"] == pytest.approx(1.0) and found["model"]["delta1"] == 1.0
    assert found["model"]["abs_rel"] == pytest.approx(0.0, abs=1e-6)
    assert found["model"]["loss"] == pytest.approx(0.0, abs=1e-4)
    assert all(found["is_better"].values())
    assert found["margin"]["apd3d"] == pytest.approx(1 - found["static_world"]["apd3d"])
    assert 0 < found["constant_depth"]["abs_rel"] < 5


def test_every_held_out_clip_counts_once_whatever_the_batches(config_of, monkeypatch):
    model = D4RT(config_of().model)
    asked: list[str] = []
    original = validate_module._measure

    def measure(sampler, answers, numbered, config, ranks):
        asked.extend(f"{sampler} {row.of('meta', 'key')}" for row in numbered)
        return original(sampler, answers, numbered, config, ranks)

    monkeypatch.setattr(validate_module, "_measure", measure)
    for size in (1, 2, 4):
        asked.clear()
        assert validate(model, config_of(validation__batch_size=size), ALONE)["clips"] == 2
        assert len(asked) == len(set(asked)) == 3 * 2
    assert validate(model, config_of(validation__clips=1, validation__batch_size=4), ALONE)["clips"] == 1
    assert model.training


def test_a_margin_is_positive_where_the_model_is_better():
    values = {"apd3d": 0.5, "abs_rel": 0.2, "delta1": None}
    trivial = {"apd3d": 0.1, "abs_rel": 0.3, "delta1": 0.1}
    better = {"apd3d": 0.6, "abs_rel": 0.25, "delta1": 0.1}
    found = validate_module._margins({"model": values, "constant_depth": trivial, "static_world": better})
    assert found["margin"] == pytest.approx({"apd3d": -0.1, "abs_rel": 0.05, "delta1": None})
    assert found["is_better"] == {"apd3d": False, "abs_rel": True, "delta1": None}


def test_progress_lines_say_what_matters(config_of, tmp_path):
    said: list[str] = []
    Trainer(config_of(log__tensorboard=True), tmp_path, say=said.append).run()
    lines = [line for line in said if line.startswith("step ")]
    assert len(lines) == 3 and lines[-1].startswith("step 12/12  loss ")
    for word in ("clips/s", "stall", "MFU", "ETA"):
        assert word in lines[0]
    assert any(line.startswith("held out at 12: ") and "trivial" in line for line in said)
    assert list((tmp_path / "tensorboard").glob("events*"))


def test_the_meter_counts_waiting_and_arithmetic(monkeypatch):
    now = [0.0]
    monkeypatch.setattr("datakit.train.speed.time.perf_counter", lambda: now[0])
    meter = Meter(clips=8, flops=100.0, peak=200.0)
    meter.restart(0.0)
    assert meter.pace(10) is None
    for _ in range(4):
        now[0] += 2.0
        meter.mark(now[0] / 4)
    pace = meter.pace(10)
    assert (pace.step_seconds, pace.clips_per_second, pace.stall_share) == (2.0, 4.0, 0.25)
    assert pace.mfu == 0.25 and pace.eta_seconds == 20.0
    assert str(pace) == "4.0 clips/s, stall 25%, MFU 25.0%, ETA 0:00:20"


def test_the_matmul_rate_leaves_random_numbers_alone():
    state = torch.get_rng_state()
    assert matmul_rate(torch.device("cpu"), torch.float32) > 1e8
    assert torch.equal(state, torch.get_rng_state())


def test_micro_batches_cut_every_part(shards):
    with stream(shards["train"], batch_size=4, clip_frames=4, size=16, num_queries=8) as clips:
        fed = Feed(clips, torch.device("cpu")).take()
    parts = micro_batches(fed.batch, 2)
    assert [part["meta"]["key"] for part in parts] == [
        fed.batch["meta"]["key"][:2],
        fed.batch["meta"]["key"][2:],
    ]
    for name in ("xyz", "visible"):
        both = torch.cat([part["target"][name] for part in parts])
        assert torch.equal(both.nan_to_num(), fed.batch["target"][name].nan_to_num())
    assert parts[1]["frame_mask"] is None and len(parts[1]["video"]) == 2
    assert fed.stream_state["step"] == 1 and fed.ready is None


def test_a_batch_that_does_not_divide_is_refused(config_of, tmp_path):
    from datakit.errors import UsageError

    with pytest.raises(UsageError, match="accumulate"):
        Trainer(config_of(execution__accumulate=3), tmp_path).run()
