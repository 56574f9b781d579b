"""Trained models are found where `datakit train` leaves them, and damage is named."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict
from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import save_file

from datakit.d4rt import D4RT
from datakit.d4rt.load import CHECKPOINT_VERSION, find_weights, load_model
from datakit.errors import FormatError, LayoutError, UsageError
from datakit.train import checkpoint
from datakit.train.optim import Average
from datakit.train.parallel import Ranks
from tests.d4rt.samples import SMALL, make_model, make_query, make_video


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> tuple[Path, D4RT, Average]:
    """A run's folder with three checkpoints as the trainer writes them, the second being the best."""
    run = tmp_path_factory.mktemp("run")
    folder = run / "checkpoints"
    folder.mkdir()
    model = make_model()
    optimizer = torch.optim.AdamW(model.parameters())
    average = Average(model, 0.9)
    ranks = Ranks(0, 1, torch.device("cpu"), "none")
    config = yaml.safe_dump({"model": asdict(SMALL), "data": {"shards": ["x"]}}).encode()
    (run / "config.yaml").write_bytes(config)
    for step in (1, 2, 3):
        sum(parameter.square().sum() for parameter in model.parameters()).backward()
        optimizer.step()
        average.update(step)
        progress = checkpoint.Progress(step=step, best=0.5, best_step=2)
        checkpoint.save(folder, model, optimizer, average, progress, ranks, {}, {"config.yaml": config})
    return run, model, average


def place(run: Path, step: int) -> Path:
    return run / "checkpoints" / f"step-{step:08d}"


def test_the_best_checkpoints_average_is_taken(made):
    run, _, _ = made
    found = find_weights(run)
    assert found.path == place(run, 2) / "average.safetensors" and (found.kind, found.step) == ("average", 2)
    assert found.sha256 == hashlib.sha256(found.path.read_bytes()).hexdigest() and found.config == SMALL
    assert find_weights(run, "newest").step == 3 and find_weights(run / "checkpoints").step == 2
    assert find_weights(run, weights="model").path.name == "model.safetensors"
    assert find_weights(place(run, 1)).step == 1
    assert find_weights(place(run, 1) / "model.safetensors").kind == "model"


def test_weights_are_the_trained_ones(made):
    run, model, average = made
    loaded = load_model(run, "newest", "model").model
    averaged = load_model(run, "newest").model
    assert not loaded.training
    for name, parameter in model.named_parameters():
        assert torch.equal(dict(loaded.named_parameters())[name], parameter)
        assert torch.equal(dict(averaged.named_parameters())[name], average.named[name])
    # Constants too, which are in no file: answers are the same.
    model.eval()
    with torch.no_grad():
        asked = (make_video(), None, torch.ones(2), make_query())
        assert torch.equal(model(*asked)["xyz"], loaded(*asked)["xyz"])


def test_the_layout_is_the_trainers():
    assert checkpoint.CHECKPOINT_VERSION == CHECKPOINT_VERSION


@pytest.fixture
def copied(made, tmp_path) -> Path:
    folder = tmp_path / "step-00000002"
    folder.mkdir()
    for file in place(made[0], 2).iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    return folder


def test_without_an_average_the_weights_are_taken(copied):
    (copied / "average.safetensors").unlink()
    assert find_weights(copied).kind == "model"
    with pytest.raises(UsageError, match="no such weights"):
        find_weights(copied, weights="average")


def test_damage_is_named(copied):
    path = copied / "average.safetensors"
    data = bytearray(path.read_bytes())
    data[-5] ^= 1
    path.write_bytes(data)
    with pytest.raises(FormatError, match="as they were written"):
        load_model(copied)
    (copied / "state.json").unlink()  # nothing to compare with
    data[:8] = (1 << 60).to_bytes(8, "little")
    path.write_bytes(data)
    with pytest.raises(FormatError, match="cannot be read"):
        load_model(path)


def test_other_tensors_are_refused(copied):
    (copied / "state.json").unlink()
    path = copied / "model.safetensors"
    tensors = {name: p.detach().clone() for name, p in make_model().named_parameters()}
    first = next(iter(tensors))
    for change, match in (
        ({first: tensors[first][..., :1].contiguous()}, "not of this model"),
        ({"more": torch.zeros(1)}, "not of this model"),
        ({first: torch.full_like(tensors[first], torch.nan)}, "finite"),
        ({first: tensors[first].to(torch.int32)}, "finite"),
    ):
        save_file(tensors | change, path)
        with pytest.raises(FormatError, match=match):
            load_model(path)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("config.yaml", "model: [1"),
        ("config.yaml", "data: {}"),
        ("config.yaml", "model: {patch: -3}"),
        ("config.yaml", "model: {colour: blue}"),
        ("config.yaml", "[]"),
        ("state.json", "{"),
        ("state.json", "[]"),
        ("state.json", json.dumps({"version": 99})),
        ("state.json", "[" * 100_000),
    ],
)
def test_texts_that_cannot_be_understood(copied, name, text):
    (copied / name).write_text(text)
    with pytest.raises((FormatError, UsageError)):
        find_weights(copied)


def test_where_there_is_no_model(tmp_path, copied):
    with pytest.raises(LayoutError, match="No such model"):
        load_model(tmp_path / "nowhere")
    with pytest.raises(LayoutError, match="No checkpoint"):
        load_model(tmp_path / "..")
    (copied / "config.yaml").unlink()
    with pytest.raises(LayoutError, match="which model"):
        load_model(copied)
