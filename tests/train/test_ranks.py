"""Two processes give what one gives."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml

from datakit.train import Trainer, checkpoint
from datakit.train.config import parse_config

from .conftest import changed, logged

CODE = "import sys; from datakit.cli import main; sys.exit(main())"


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def launch(file: Path, out: Path, ranks: int = 2, *options: str) -> None:
    """Run `datakit train` as torchrun does, on this machine."""
    shared = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port()), "WORLD_SIZE": str(ranks)}
    command = [sys.executable, "-c", CODE, "train", str(file), "--out", str(out), "--quiet", *options]
    processes = [
        subprocess.Popen(
            command,
            env=os.environ | shared | {"RANK": str(rank), "LOCAL_RANK": str(rank), "OMP_NUM_THREADS": "1"},
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(ranks)
    ]
    errors = [process.communicate(timeout=240)[1] for process in processes]
    assert [process.returncode for process in processes] == [0] * ranks, "\n".join(errors)


def assert_close(one: list[dict], two: list[dict], tolerance: float) -> None:
    assert len(one) == len(two) > 0
    for a, b in zip(one, two, strict=True):
        assert (a["step"], a["lr"], a["order_hash"]) == (b["step"], b["lr"], b["order_hash"])
        for name in ("loss", "grad_norm"):
            assert a[name] == pytest.approx(b[name], rel=tolerance)
        assert a["terms"] == pytest.approx(b["terms"], rel=tolerance, abs=1e-6)


@pytest.fixture(scope="module")
def alone(tmp_path_factory, raw_config) -> Path:
    out = tmp_path_factory.mktemp("alone") / "run"
    Trainer(parse_config(raw_config), out).run()
    return out


@pytest.mark.slow
@pytest.mark.parametrize("strategy", ["ddp", "fsdp"])
def test_two_ranks_give_the_losses_of_one(alone, raw_config, tmp_path, strategy):
    file, out = tmp_path / "config.yaml", tmp_path / "run"
    # Each rank's two clips in two micro-batches: what is summed where must not show.
    file.write_text(
        yaml.safe_dump(changed(raw_config, execution__strategy=strategy, execution__accumulate=2))
    )
    launch(file, out)
    # The same numbers summed in another order; Adam turns the last bits of small gradients into steps.
    assert_close(logged(alone), logged(out), 1e-4)
    ours, theirs = (
        {line["step"]: line["model"] for line in logged(run, "validation.jsonl")} for run in (alone, out)
    )
    for step, found in ours.items():
        assert theirs[step] == pytest.approx(found, rel=1e-3, abs=2e-2), step
    a, b = (
        json.loads((checkpoint.newest(run / "checkpoints") / "ledger.json").read_text())
        for run in (alone, out)
    )
    assert a["content_hash"] == b["content_hash"] and a["shares"] == b["shares"]


@pytest.mark.slow
def test_a_sharded_run_goes_on_alone(alone, raw_config, tmp_path):
    """Two ranks with sharded weights stop at step 8; one process takes over, and the other way round."""
    file = tmp_path / "config.yaml"
    file.write_text(yaml.safe_dump(changed(raw_config, execution__strategy="fsdp")))
    launch(file, tmp_path / "run")
    after = tmp_path / "run" / "checkpoints"
    for place in after.glob("step-*"):
        if place.name != "step-00000008":
            for path in place.iterdir():
                path.unlink()
            place.rmdir()
    assert Trainer(parse_config(raw_config), tmp_path / "run").run()
    assert_close(logged(alone), logged(tmp_path / "run"), 1e-4)


def test_micro_batches_change_nothing_but_the_last_bits(alone, config_of, tmp_path):
    Trainer(config_of(execution__accumulate=4), tmp_path / "run").run()
    assert_close(logged(alone), logged(tmp_path / "run"), 1e-4)


def test_fsdp_alone_and_its_average(alone, config_of, tmp_path):
    """One process with sharding: the same code paths as many, in this process."""
    Trainer(config_of(execution__strategy="fsdp"), tmp_path / "run").run()
    assert_close(logged(alone), logged(tmp_path / "run"), 1e-4)
    from safetensors.numpy import load_file

    one, two = (
        load_file(checkpoint.newest(run / "checkpoints") / "average.safetensors")
        for run in (alone, tmp_path / "run")
    )
    assert one.keys() == two.keys()
    for name in one:
        np.testing.assert_allclose(one[name], two[name], rtol=1e-3, atol=1e-4)
