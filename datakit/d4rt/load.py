"""Find and load a trained model: from a run's folder, one of its checkpoints, or a file of weights in one.

What lies where is what `datakit train` writes (datakit/train/checkpoint.py): `checkpoints/step-<number>/` with
`model.safetensors`, `average.safetensors`, `config.yaml` and `state.json`, which tells size and xxh3 of every file.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
import xxhash
import yaml
from pydantic import TypeAdapter, ValidationError
from safetensors import SafetensorError, safe_open

from datakit.errors import FormatError, LayoutError, UsageError

from .config import ModelConfig
from .model import D4RT

Which = Literal["best", "newest"]
Kind = Literal["average", "model"]

CHECKPOINTS, PREFIX, STATE, CONFIG = "checkpoints", "step-", "state.json", "config.yaml"
CHECKPOINT_VERSION = 1
#: File of each kind of weights; the moving average comes first, since it is what validation measured.
FILES: dict[Kind, str] = {"average": "average.safetensors", "model": "model.safetensors"}
#: Files of text are a few kilobytes; more is not read.
_MOST_TEXT = 16 << 20
_BLOCK = 1 << 24
_CONFIG = TypeAdapter(ModelConfig)


@dataclass(frozen=True)
class WeightsFile:
    """A file of weights and what is known of it.

    Attributes:
        path: The file.
        kind: `average` is the moving average, `model` the last step's own.
        step: Optimiser steps that it has seen; None where nothing tells.
        sha256: Of its bytes.
        config: The model it is of.
    """

    path: Path
    kind: Kind
    step: int | None
    sha256: str
    config: ModelConfig


@dataclass(frozen=True)
class LoadedModel:
    """A model and where its weights come from.

    Attributes:
        model: In evaluation mode, float32, CPU memory.
        weights: Its file.
    """

    model: D4RT
    weights: WeightsFile


def load_model(source: str | Path, which: Which = "best", weights: Kind | None = None) -> LoadedModel:
    """Load a trained model.

    Args:
        source: Folder of a run, of a checkpoint, or a `.safetensors` file with its `config.yaml` beside it.
        which: Of a run: the checkpoint with the best held-out measure (the newest where there is none), or the
            newest. Not looked at for other sources.
        weights: Which weights; None for the average where there is one.

    Raises:
        LayoutError: There is no such folder or file, or the run has no checkpoint.
        FormatError: A file is damaged, or its tensors are not the model's.
        UsageError: The weights asked for are not there.
    """
    found = find_weights(source, which, weights)
    with torch.device("meta"):
        model = D4RT(found.config)
    model = model.to_empty(device="cpu")
    for module in model.modules():  # constants, which are no part of the file
        if list(module.buffers(recurse=False)):
            module.reset_parameters()  # type: ignore[operator]
    _fill(model, found.path)
    return LoadedModel(model.eval(), found)


def find_weights(source: str | Path, which: Which = "best", weights: Kind | None = None) -> WeightsFile:
    """Find a file of weights and check that it is as it was written; arguments and errors as of `load_model`."""
    source = Path(source)
    if source.is_file():
        return _describe(source, _kind_of(source))
    if not source.is_dir():
        raise LayoutError("No such model", where=source, expected="the folder of a run or a checkpoint")
    place = source if (source / STATE).is_file() else _choose(source, which)
    for kind in [weights] if weights else FILES:
        path = place / FILES[kind]
        if path.is_file():
            return _describe(path, kind)
    raise UsageError(
        "The checkpoint has no such weights", where=place, expected=weights or "average or model"
    )


def _choose(run: Path, which: Which) -> Path:
    """Return a run's best or newest checkpoint."""
    folder = run / CHECKPOINTS if (run / CHECKPOINTS).is_dir() else run
    places = sorted(
        path
        for path in folder.glob(f"{PREFIX}*")
        if path.is_dir() and path.name.removeprefix(PREFIX).isdecimal() and (path / STATE).is_file()
    )
    if not places:
        raise LayoutError(
            "No checkpoint here",
            where=run,
            expected=f"{CHECKPOINTS}/{PREFIX}<number> of a run, or {STATE} of a checkpoint",
        )
    if which == "best":
        best = _read_state(places[-1] / STATE).get("best_step")
        for place in places:
            if int(place.name.removeprefix(PREFIX)) == best:
                return place
    return places[-1]


def _kind_of(path: Path) -> Kind:
    return "average" if path.name == FILES["average"] else "model"


def _describe(path: Path, kind: Kind) -> WeightsFile:
    config = _read_config(path.with_name(CONFIG))
    sha256, xxh3 = hashlib.sha256(), xxhash.xxh3_128()
    with path.open("rb") as file:
        while block := file.read(_BLOCK):
            sha256.update(block)
            xxh3.update(block)
    state = _read_state(path.with_name(STATE)) if path.with_name(STATE).is_file() else {}
    files = state.get("files")
    expected = files.get(path.name) if isinstance(files, dict) else None
    found = [path.stat().st_size, xxh3.hexdigest()]
    if expected is not None and expected != found:
        raise FormatError("Weights are not as they were written", where=path, expected=expected, found=found)
    step = state.get("step")
    return WeightsFile(path, kind, step if isinstance(step, int) else None, sha256.hexdigest(), config)


def _read_text(path: Path) -> str:
    try:
        with path.open(encoding="utf-8") as file:
            text = file.read(_MOST_TEXT + 1)
    except (OSError, UnicodeDecodeError) as error:
        raise FormatError("File cannot be read", where=path, found=error) from error
    if len(text) > _MOST_TEXT:
        raise FormatError("File is too long", where=path, expected=f"at most {_MOST_TEXT} characters")
    return text


def _read_state(path: Path) -> dict[str, Any]:
    try:
        state = json.loads(_read_text(path))
    except (ValueError, RecursionError) as error:
        raise FormatError("Not the state of a checkpoint", where=path, found=error) from error
    version = state.get("version") if isinstance(state, dict) else None
    if version != CHECKPOINT_VERSION:
        raise FormatError(
            "Checkpoint of another version", where=path, expected=CHECKPOINT_VERSION, found=version
        )
    return dict(state)


def _read_config(path: Path) -> ModelConfig:
    """Read the section `model` of a run's configuration, which names every field."""
    if not path.is_file():
        raise LayoutError(
            "Nothing tells which model the weights are of", where=path, expected=f"a run's {CONFIG}"
        )
    try:
        raw = yaml.safe_load(_read_text(path))
        return _CONFIG.validate_python(raw["model"])
    except (yaml.YAMLError, KeyError, TypeError, RecursionError, ValidationError) as error:
        raise FormatError(
            "Not the configuration of a run", where=path, expected="a section model", found=error
        ) from error


@torch.no_grad()
def _fill(model: D4RT, path: Path) -> None:
    """Copy tensor by tensor, after names and shapes have been compared."""
    ours = dict(model.named_parameters())
    try:
        with safe_open(path, framework="pt") as file:
            theirs = {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118
            expected = {name: tuple(parameter.shape) for name, parameter in ours.items()}
            differing = [n for n in sorted({*theirs, *expected}) if theirs.get(n) != expected.get(n)]
            if differing:
                raise FormatError(
                    "Weights are not of this model",
                    where=path,
                    expected={name: expected.get(name) for name in differing[:3]},
                    found={name: theirs.get(name) for name in differing[:3]},
                )
            for name, parameter in ours.items():
                tensor = file.get_tensor(name)
                if not tensor.is_floating_point() or not bool(tensor.isfinite().all()):
                    raise FormatError(
                        "A tensor of weights holds no finite numbers",
                        where=f"{path}: {name}",
                        found=tensor.dtype,
                    )
                parameter.copy_(tensor)
    except (OSError, SafetensorError) as error:
        raise FormatError("Weights cannot be read", where=path, found=error) from error
