"""VideoMAE V2's weights into the encoder, and an account of every tensor.

The layout is that of OpenGVLab/VideoMAEv2 (models/modeling_pretrain.py and modeling_finetune.py; what its
run_class_finetuning.py strips from names): tensors under `model` or `module` or at the top; names that may begin with
`encoder.` or `backbone.`; attention biases as `q_bias` and `v_bias`, none for keys; positions computed, not stored.
"""

from __future__ import annotations

import argparse
import re
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any, Literal

import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from torch import Tensor

from datakit.errors import ConventionError, FormatError, LayoutError, UsageError

from .model import D4RT

Status = Literal["loaded", "resized", "missing", "unexpected"]

#: Where training scripts put the tensors.
_HOLDERS = ("model", "module", "state_dict")
#: What wrappers put before names.
_PREFIXES = ("_orig_mod.", "module.", "model.", "backbone.", "encoder.")
_KERNEL = "patch_embed.proj.weight"
#: The aspect-ratio token is D4RT's own.
_NOT_OF_VIDEOMAE = "aspect."


@dataclass(frozen=True)
class LoadedTensor:
    """One line of a report.

    Attributes:
        status: `loaded` as it was, `resized` to another kernel size, `missing` (ours, not in the file: left as it
            was) or `unexpected` (in the file, not ours: not used).
        name: Ours, or the file's where unexpected.
        source: The file's name or names; empty where missing.
        shape: Ours, or the file's where unexpected.
        source_shape: The file's; None where missing.
    """

    status: Status
    name: str
    source: str
    shape: tuple[int, ...]
    source_shape: tuple[int, ...] | None


@dataclass(frozen=True)
class LoadReport:
    """What happened to every tensor of the encoder and of the file."""

    source: str
    tensors: tuple[LoadedTensor, ...]

    def count(self, status: Status) -> int:
        """Return how many tensors have that status."""
        return sum(tensor.status == status for tensor in self.tensors)

    def table(self) -> str:
        """Return the report as text: a summary, then a line for each tensor."""
        states: tuple[Status, ...] = ("loaded", "resized", "missing", "unexpected")
        summary = ", ".join(f"{self.count(state)} {state}" for state in states)
        rows = [("status", "tensor", "shape", "from", "its shape")]
        for tensor in self.tensors:
            theirs = "" if tensor.source_shape is None else _shape_text(tensor.source_shape)
            rows.append((tensor.status, tensor.name, _shape_text(tensor.shape), tensor.source, theirs))
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        lines = [
            "  ".join(f"{text:<{w}}" for text, w in zip(row, widths, strict=True)).rstrip() for row in rows
        ]
        return "\n".join([f"{self.source}: {summary}", *lines])


def load_videomae(
    model: D4RT, source: str | Path, filename: str = "model.safetensors", revision: str | None = None
) -> LoadReport:
    """Load VideoMAE V2 weights into a model's encoder, in place.

    Args:
        model: Its encoder's width must be the checkpoint's; its depth may differ, the report shows it.
        source: A `.safetensors` file, a `.pth` file (read without running any code in it), or the id of a Hugging
            Face repository such as `OpenGVLab/VideoMAEv2-Base`.
        filename: File of that repository.
        revision: Commit or tag of that repository.

    Returns:
        What became of every tensor.

    Raises:
        LayoutError: There is no such file.
        FormatError: The file cannot be read, or has no VideoMAE V2 weights.
        ConventionError: A tensor's shape does not fit the model.
        UsageError: A repository id was given and huggingface_hub is not installed.
    """
    path = _locate(source, filename, revision)
    tensors = {_plain_name(name): (name, tensor) for name, tensor in _read(path).items()}
    ours = {
        name: parameter
        for name, parameter in model.encoder.named_parameters()
        if not name.startswith(_NOT_OF_VIDEOMAE)
    }
    rows, used = [], set()
    with torch.no_grad():
        for name, parameter in ours.items():
            found = _find(name, tensors)
            if found is None:
                rows.append(LoadedTensor("missing", name, "", tuple(parameter.shape), None))
                continue
            names, value = found
            used.update(names)
            rows.append(_copy(name, parameter, value, " + ".join(tensors[n][0] for n in names), path))
    if not used:
        raise FormatError(
            "There are no VideoMAE V2 weights in this file",
            where=path,
            expected="tensors named as in OpenGVLab/VideoMAEv2, such as blocks.0.attn.qkv.weight",
            found=", ".join(sorted(tensors)[:3]) or "no tensors",
        )
    for name, (original, tensor) in tensors.items():
        if name not in used:
            rows.append(
                LoadedTensor("unexpected", original, original, tuple(tensor.shape), tuple(tensor.shape))
            )
    return LoadReport(str(source), tuple(rows))


def resize_kernel(weight: Tensor, size: int) -> Tensor:
    """Resize square kernels so that they say the same of a resized image.

    The pseudo-inverse of linear interpolation (FlexiViT, arXiv 2212.08013, section 3.4): a larger kernel gives on the
    enlarged patch exactly what the kernel gave on the patch. Interpolating the kernel itself would not, and would
    scale the response with the number of pixels.

    Args:
        weight: (..., P, P).
        size: New P.

    Returns:
        (..., size, size) of the same dtype.
    """
    old = weight.shape[-1]
    unit = torch.eye(old, dtype=torch.float64)[None]
    enlarge = F.interpolate(unit, size=size, mode="linear", align_corners=False)[0].T
    back = torch.linalg.pinv(enlarge).T
    return (back @ weight.double() @ back.T).to(weight.dtype)


def _find(name: str, tensors: Mapping[str, tuple[str, Tensor]]) -> tuple[list[str], Tensor] | None:
    """Names in the file and the value for one of our parameters."""
    if name in tensors:
        return [name], tensors[name][1]
    if name.endswith("attn.qkv.bias"):
        names = [name.replace("qkv.bias", part) for part in ("q_bias", "v_bias")]
        if all(part in tensors for part in names):
            query, value = (tensors[part][1] for part in names)
            return names, torch.cat([query, torch.zeros_like(query), value])
    return None


def _copy(name: str, parameter: Tensor, value: Tensor, source: str, path: Path) -> LoadedTensor:
    status: Status = "loaded"
    shape = tuple(value.shape)
    if name == _KERNEL and shape[:-2] == parameter.shape[:-2] and shape != parameter.shape:
        value, status = resize_kernel(value.float(), parameter.shape[-1]), "resized"
    if value.shape != parameter.shape:
        raise ConventionError(
            "A tensor of the checkpoint does not fit the model",
            where=f"{path}: {source}",
            expected=tuple(parameter.shape),
            found=shape,
            mend="choose the configuration of the checkpoint's size: paper for ViT-g, large for ViT-L, base for ViT-B",
        )
    parameter.copy_(value)
    return LoadedTensor(status, name, source, tuple(parameter.shape), shape)


def _shape_text(shape: tuple[int, ...]) -> str:
    return "x".join(map(str, shape))


def _plain_name(name: str) -> str:
    """Take wrappers' prefixes off."""
    while True:
        for prefix in _PREFIXES:
            if name.startswith(prefix):
                name = name[len(prefix) :]
                break
        else:
            return name


def _locate(source: str | Path, filename: str, revision: str | None) -> Path:
    path = Path(source)
    if path.is_file():
        return path
    if isinstance(source, str) and re.fullmatch(r"[\w.-]+/[\w.-]+", source) and not path.suffix[1:].isalpha():
        return _from_hub(source, filename, revision)
    raise LayoutError(
        "There is no such file of weights", where=source, expected="a .safetensors or .pth file"
    )


def _from_hub(repository: str, filename: str, revision: str | None) -> Path:
    try:
        hub = import_module("huggingface_hub")
    except ImportError as error:
        raise UsageError(
            "Weights from the hub need huggingface_hub",
            where=repository,
            mend="pip install 'datakit[hub]', or download the file and give its path",
        ) from error
    return Path(hub.hf_hub_download(repository, filename, revision=revision))


def _read(path: Path) -> dict[str, Tensor]:
    try:
        content: Any = load_file(path) if path.suffix == ".safetensors" else _read_pickle(path)
    except Exception as error:  # bytes of any kind reach the parsers, which fail in as many ways
        raise FormatError(
            "The weights cannot be read",
            where=path,
            expected="safetensors, or a torch checkpoint of tensors and plain containers",
            found=str(error).splitlines()[0] if str(error) else type(error).__name__,
        ) from error
    for holder in _HOLDERS:
        if isinstance(content, Mapping) and isinstance(content.get(holder), Mapping):
            content = content[holder]
            break
    if not isinstance(content, Mapping):
        raise FormatError("The file holds no table of tensors", where=path, found=type(content).__name__)
    return {str(name): value for name, value in content.items() if isinstance(value, Tensor)}


def _read_pickle(path: Path) -> Any:
    # Training scripts store their arguments beside the weights; a Namespace only holds them.
    with torch.serialization.safe_globals([argparse.Namespace]):
        return torch.load(path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path))
