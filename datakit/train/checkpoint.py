"""Checkpoints: folders that are there whole or not at all, without pickles, kept by rule.

`step-00001000/` holds

* `model.safetensors`, `average.safetensors`: weights, and their moving average, by parameter name;
* `optimizer.safetensors`: `<slot>/<parameter>`, the two moments and the step;
* `rng.safetensors`: torch's generators of every rank;
* `ledger.json`: what the model has seen up to here;
* `config.yaml`, `run.json`: copies of the run's;
* `state.json`: step, the stream's place, held-out measures, and size and xxh3 of every other file.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
import xxhash
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from datakit.errors import FormatError, UsageError

from .config import CheckpointConfig
from .optim import Average
from .parallel import Ranks, put, whole

CHECKPOINT_VERSION = 1
#: Slots of AdamW.
_SLOTS = ("exp_avg", "exp_avg_sq", "step")
_PARTIAL, _PREFIX = ".partial-", "step-"


@dataclass
class Progress:
    """What of a run is neither a tensor nor in the configuration.

    Attributes:
        step: Steps done.
        stream: State of the stream.
        measures: Held-out measures of the last validation, with its step.
        best: Value of the measure that `checkpoint.best` names, the best so far; None before there is one.
        best_step: When it was found.
    """

    step: int = 0
    stream: dict[str, Any] = field(default_factory=dict)
    measures: dict[str, Any] = field(default_factory=dict)
    best: float | None = None
    best_step: int | None = None


def save(
    folder: Path,
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    average: Average | None,
    progress: Progress,
    ranks: Ranks,
    ledger: Mapping[str, Any],
    beside: Mapping[str, bytes],
) -> Path:
    """Write a checkpoint; all ranks call this, the first one writes.

    It is written beside its place, synced to disk and renamed: a kill at any moment leaves the earlier checkpoints
    as they were, and no part of this one under its name.

    Args:
        folder: Of the run's checkpoints; it is there.
        model: Unwrapped.
        optimizer: AdamW.
        average: The average, if any.
        progress: Goes into `state.json`.
        ranks: The ranks.
        ledger: Of all ranks, as JSON-able data.
        beside: Further files by name.

    Returns:
        The checkpoint's folder.
    """
    place = folder / f"{_PREFIX}{progress.step:08d}"
    tensors = _tensor_files(model, optimizer, average, ranks)
    if not ranks.is_first:
        return place
    partial = folder / f"{_PARTIAL}{place.name}"
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir()
    for name, content in tensors.items():
        save_file(content, partial / name)
    for name, data in ({**beside, "ledger.json": _as_json(ledger)}).items():
        (partial / name).write_bytes(data)
    files = {path.name: _fingerprint(path) for path in sorted(partial.iterdir())}
    state = (
        {"version": CHECKPOINT_VERSION, "world_size": ranks.world_size} | vars(progress) | {"files": files}
    )
    (partial / "state.json").write_bytes(_as_json(state))
    for path in partial.iterdir():
        _sync(path)
    _sync(partial)
    if (
        place.exists()
    ):  # of the same step of the same run, so of the same content: a stop just after it was written
        _remove(place)
    partial.rename(place)
    _sync(folder)
    return place


def load(
    place: Path,
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    average: Average | None,
    ranks: Ranks,
) -> tuple[Progress, dict[str, Any]]:
    """Restore a checkpoint into objects of the same configuration; any number of ranks, any strategy.

    Returns:
        The progress, and the ledger's JSON data.

    Raises:
        FormatError: A file is not as it was written, or does not fit the model.
    """
    state = read_state(place)
    _check_files(place, state)
    load_weights(place / "model.safetensors", model)
    slots = _read(place / "optimizer.safetensors")
    for name, parameter in model.named_parameters():
        optimizer.state[parameter] = {slot: _slot(slots, slot, name, parameter) for slot in _SLOTS}
    if average is not None:
        _fill(average.named, place / "average.safetensors")
    _restore_generators(place / "rng.safetensors", ranks)
    progress = Progress(**{name: state[name] for name in vars(Progress())})
    return progress, json.loads((place / "ledger.json").read_text())


def load_weights(path: Path, model: nn.Module) -> None:
    """Fill a model's parameters from `model.safetensors` or `average.safetensors` of a checkpoint.

    Raises:
        FormatError: The file cannot be read, or its names or shapes are not the model's.
    """
    _fill(dict(model.named_parameters()), path)


def newest(folder: Path) -> Path | None:
    """Return the newest checkpoint of a run; None without one."""
    found = _all(folder)
    return found[-1] if found else None


def read_state(place: Path) -> dict[str, Any]:
    """Read `state.json` of a checkpoint.

    Raises:
        FormatError: It is not one of this version.
    """
    path = place / "state.json"
    try:
        state = json.loads(path.read_text())
        version = state["version"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise FormatError("Not a checkpoint", where=path, found=error) from error
    if version != CHECKPOINT_VERSION:
        raise FormatError(
            "Checkpoint of another version", where=path, expected=CHECKPOINT_VERSION, found=version
        )
    return dict(state)


def prune(folder: Path, config: CheckpointConfig, best_step: int | None) -> None:
    """Delete what the rule does not keep, and what a killed run left half-written."""
    for path in folder.glob(f"{_PARTIAL}*"):
        shutil.rmtree(path)
    found = _all(folder)
    keep = set(found[-config.keep_last :])
    for path in found:
        step = _step_of(path)
        is_kept = step == best_step or (config.keep_every and step % config.keep_every == 0)
        if path not in keep and not is_kept:
            _remove(path)


def write_atomically(path: Path, data: bytes) -> None:
    """Write a file beside its place, sync it and rename it."""
    partial = path.with_name(_PARTIAL + path.name)
    partial.write_bytes(data)
    _sync(partial)
    partial.replace(path)
    _sync(path.parent)


def _tensor_files(
    model: nn.Module, optimizer: torch.optim.Optimizer, average: Average | None, ranks: Ranks
) -> dict[str, dict[str, Tensor]]:
    """File -> name -> tensor in CPU memory; gathering is what every rank has to take part in."""
    named = dict(model.named_parameters())
    files = {
        "model.safetensors": {name: whole(parameter).contiguous() for name, parameter in named.items()},
        "optimizer.safetensors": {
            f"{slot}/{name}": whole(optimizer.state[parameter][slot]).contiguous()
            for name, parameter in named.items()
            for slot in _SLOTS
        },
    }
    if average is not None:
        files["average.safetensors"] = {
            name: whole(tensor).contiguous() for name, tensor in average.named.items()
        }
    generators = ranks.gather(_generators(ranks))
    files["rng.safetensors"] = {
        f"{rank}/{name}": state for rank, states in enumerate(generators) for name, state in states.items()
    }
    return files


def _generators(ranks: Ranks) -> dict[str, Tensor]:
    states = {"cpu": torch.get_rng_state()}
    if ranks.device.type == "cuda":
        states["cuda"] = torch.cuda.get_rng_state(ranks.device)
    return states


def _restore_generators(path: Path, ranks: Ranks) -> None:
    """Restore this rank's; a rank that was not there goes on with those it started with."""
    states = _read(path)
    if f"{ranks.rank}/cpu" in states:
        torch.set_rng_state(states[f"{ranks.rank}/cpu"])
    if ranks.device.type == "cuda" and f"{ranks.rank}/cuda" in states:
        torch.cuda.set_rng_state(states[f"{ranks.rank}/cuda"], ranks.device)


def _slot(slots: Mapping[str, Tensor], slot: str, name: str, parameter: Tensor) -> Tensor:
    key = f"{slot}/{name}"
    if key not in slots:
        raise FormatError("The optimiser's state lacks a tensor", where=key)
    if slot == "step":  # a number; fused AdamW keeps it beside the weights
        return slots[key].to(parameter.device)
    out = torch.empty_like(parameter, requires_grad=False)
    put(out, slots[key])
    return out


@torch.no_grad()
def _fill(tensors: Mapping[str, Tensor], path: Path) -> None:
    values = _read(path)
    shapes = {name: tuple(value.shape) for name, value in values.items()}
    ours = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    if shapes != ours:
        differing = [name for name in sorted({*shapes, *ours}) if shapes.get(name) != ours.get(name)]
        raise FormatError(
            "Weights are not of this model",
            where=path,
            expected={name: ours.get(name) for name in differing[:3]},
            found={name: shapes.get(name) for name in differing[:3]},
        )
    for name, tensor in tensors.items():
        put(tensor, values[name])


def _read(path: Path) -> dict[str, Tensor]:
    try:
        return dict(load_file(path))
    except (OSError, SafetensorError) as error:
        raise FormatError("Tensors cannot be read", where=path, found=error) from error


def _check_files(place: Path, state: Mapping[str, Any]) -> None:
    for name, expected in state["files"].items():
        path = place / name
        found = _fingerprint(path) if path.is_file() else "no such file"
        if found != expected:
            raise FormatError(
                "A file of the checkpoint is not as it was written",
                where=path,
                expected=expected,
                found=found,
                mend="delete this checkpoint: the run then goes on from the one before",
            )


def _fingerprint(path: Path) -> list[Any]:
    """Size and xxh3 of a file."""
    digest = xxhash.xxh3_128()
    with path.open("rb") as file:
        while block := file.read(1 << 24):
            digest.update(block)
    return [path.stat().st_size, digest.hexdigest()]


def _all(folder: Path) -> list[Path]:
    """Checkpoints, oldest first."""
    return sorted(
        path
        for path in folder.glob(f"{_PREFIX}*")
        if path.is_dir() and path.name.removeprefix(_PREFIX).isdecimal()
    )


def _step_of(path: Path) -> int:
    return int(path.name.removeprefix(_PREFIX))


def _remove(place: Path) -> None:
    """Delete a checkpoint; a kill in between leaves nothing that looks like one."""
    hidden = place.with_name(_PARTIAL + place.name)
    shutil.rmtree(hidden, ignore_errors=True)
    place.rename(hidden)
    shutil.rmtree(hidden)


def _as_json(value: Any) -> bytes:
    return (json.dumps(value, indent=1) + "\n").encode()


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def check_checkpoint(place: Path) -> Path:
    """Return a checkpoint's averaged weights, or its weights where there is no average.

    Raises:
        UsageError: There is no such checkpoint.
    """
    for name in ("average.safetensors", "model.safetensors"):
        if (place / name).is_file():
            return place / name
    raise UsageError("No checkpoint here", where=place, expected="a folder step-<number> of a run")
