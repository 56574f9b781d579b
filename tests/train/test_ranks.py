"""Two processes give what one gives."""

from __future__ import annotations

import gc
import itertools
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch.distributed as dist
import yaml
from torch.nn.parallel import DistributedDataParallel

from datakit.train import Trainer, checkpoint
from datakit.train.config import parse_config

from .conftest import changed, logged

CODE = "import sys; from datakit.cli import main; sys.exit(main())"


def launch(file: Path, out: Path, ranks: int = 2, *options: str) -> None:
    """Run `datakit train` under torchrun, as the documentation has it; it finds a free port and ends all or none."""
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={ranks}"]
    train = [sys.executable, "-c", CODE, "train", str(file), "--out", str(out), "--quiet", *options]
    done = subprocess.run(
        [*torchrun, "--no-python", *train],
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        stderr=subprocess.PIPE,
        text=True,
        timeout=240,
    )
    assert done.returncode == 0, done.stderr


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


@pytest.mark.parametrize("steps", [12, 1], ids=["to the end", "left"])
def test_the_module_is_gone_before_the_process_group(config_of, tmp_path, monkeypatch, steps):
    """Whoever drops the group last waits for its threads: DDP's C++ must not, or one run in fifty never ends."""
    alive = []
    destroy = dist.destroy_process_group

    def look() -> None:
        alive.append([each for each in gc.get_objects() if type(each) is DistributedDataParallel])
        destroy()

    monkeypatch.setattr(dist, "destroy_process_group", look)
    lines = Trainer(config_of(execution__strategy="ddp"), tmp_path / "run").steps()
    assert len(list(itertools.islice(lines, steps))) == steps
    assert steps == 1 or next(lines, None) is None
    lines.close()
    assert alive == [[]]


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
