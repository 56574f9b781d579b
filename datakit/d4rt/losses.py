"""The composite loss of arXiv 2512.08924, section 3 and appendix: each term where its truth is known."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import torch
import torch.nn.functional as F
from pydantic import ConfigDict, Field, NonNegativeFloat, NonNegativeInt
from pydantic.dataclasses import dataclass
from torch import Tensor

from .layers import wide_float

TARGETS = ("xyz", "uv", "visible", "displacement", "normal")
#: Least mean depth that a point set is divided by.
DEPTH_FLOOR = 1e-6


@dataclass(frozen=True, config=ConfigDict(extra="forbid"))
class LossConfig:
    """Weights and options; the weights are the paper's. See docs/model.md for what the paper leaves open.

    Attributes:
        xyz: Weight of the 3D term, which alone is multiplied by the confidence.
        uv: Weight of the 2D term.
        visible: Weight of the visibility term.
        displacement: Weight of the motion term.
        normal: Weight of the normal term.
        confidence: Weight of -log(confidence).
        reduction: `queries` divides each term's sum by the number of queries, as the paper's formula does (and so
            that the mean over ranks is the loss of the whole batch); `valid` by the number of known targets.
        confidence_warmup_steps: Over so many steps the factor of the 3D term goes from 1 to the confidence, which
            meanwhile learns from errors that pass no gradient on. MasahiroOgawa/D4RT_MasImpl reports that without
            it the confidence fell and starved the 3D term; 0 is the paper.
        absolute_depth_weight: Weight of an L1 between depths as they are, without any normalisation, in clips of
            metric scale. The same replication reports that depth lost its variance without it, at ViT-B and with
            one dataset; 0 is the paper.
    """

    xyz: NonNegativeFloat = 1.0
    uv: NonNegativeFloat = 0.1
    visible: NonNegativeFloat = 0.1
    displacement: NonNegativeFloat = 0.1
    normal: NonNegativeFloat = 0.5
    confidence: NonNegativeFloat = 0.2
    reduction: Literal["queries", "valid"] = "queries"
    confidence_warmup_steps: NonNegativeInt = 0
    absolute_depth_weight: float = Field(default=0.0, ge=0)


def composite_loss(
    prediction: Mapping[str, Tensor],
    batch: Mapping[str, Any],
    config: LossConfig | None = None,
    step: int | Tensor = 0,
    denominators: Mapping[str, Tensor | float] | None = None,
) -> tuple[Tensor, dict[str, Tensor], dict[str, Tensor]]:
    """Compare predictions with targets.

    A masked target, NaN or not, has no influence on any value or gradient. Arithmetic is float32 or wider.

    Args:
        prediction: What `D4RT.forward` returns.
        batch: target and mask, each with xyz (B, N, 3), uv (B, N, 2), visible (B, N), displacement (B, N, 3), normal
            (B, N, 3); masks (B, N) bool. meta.scale (a list) is looked at for `absolute_depth_weight` only.
        config: Weights; None for the paper's.
        step: Of the training, for `confidence_warmup_steps`.
        denominators: What to divide each target's sum by, in place of what `config.reduction` says: for `valid`
            over several ranks, `count_targets` summed over ranks and divided by their number.

    Returns:
        total: scalar with gradient.
        terms: what each term adds to it, detached: xyz, confidence, uv, visible, displacement, normal, and
            absolute_depth where it has a weight.
        counts: how many targets of each kind were known, as `count_targets`.
    """
    config = LossConfig() if config is None else config
    with torch.autocast(prediction["xyz"].device.type, enabled=False):
        predicted = {name: wide_float(value) for name, value in prediction.items()}
        errors = _errors(predicted, batch, config, step)
        counts = count_targets(batch)
        if denominators is None:
            denominators = _denominators(counts, batch["mask"]["xyz"].numel(), config)
        parts = {
            name: weight * error.sum() / denominators[target]
            for name, (weight, target, error) in errors.items()
        }
        total = torch.stack(list(parts.values())).sum()
    return total, {name: part.detach() for name, part in parts.items()}, counts


def count_targets(batch: Mapping[str, Any]) -> dict[str, Tensor]:
    """Count the known targets of a batch: int64 scalars by name of the target, on its device, without waiting."""
    return {name: batch["mask"][name].sum() for name in TARGETS}


def _denominators(counts: Mapping[str, Tensor], queries: int, config: LossConfig) -> dict[str, Any]:
    if config.reduction == "queries":
        return dict.fromkeys(counts, max(queries, 1))
    return {name: count.clamp(min=1) for name, count in counts.items()}


def _errors(
    predicted: Mapping[str, Tensor], batch: Mapping[str, Any], config: LossConfig, step: int | Tensor
) -> dict[str, tuple[float, str, Tensor]]:
    """Weight, target's name and (B, N) errors of every term; an error is 0 where its target is masked."""
    mask = dict(batch["mask"])
    # A clip without any known point has no depth to measure its motions by.
    mask["displacement"] = mask["displacement"] & mask["xyz"].any(dim=1, keepdim=True)
    dtype = predicted["xyz"].dtype
    known = {name: _known(batch["target"][name].to(dtype), mask[name]) for name in TARGETS}
    guess = {name: _known(predicted[name], mask[name]) for name in TARGETS}
    depth_guess, depth_known = (mean_depth(points["xyz"], mask["xyz"]) for points in (guess, known))

    xyz = l1(signed_log(guess["xyz"] / depth_guess), signed_log(known["xyz"] / depth_known))
    confidence = torch.where(mask["xyz"], predicted["confidence"], 1.0)
    cosine = F.cosine_similarity(guess["normal"], known["normal"], dim=-1, eps=1e-8)
    errors = {
        "xyz": (config.xyz, "xyz", _weigh(xyz, confidence, config, step)),
        "confidence": (config.confidence, "xyz", -confidence.log()),
        "uv": (config.uv, "uv", l1(guess["uv"], known["uv"])),
        "visible": (
            config.visible,
            "visible",
            _known(
                F.binary_cross_entropy_with_logits(guess["visible"], known["visible"], reduction="none"),
                mask["visible"],
            ),
        ),
        "displacement": (
            config.displacement,
            "displacement",
            l1(guess["displacement"] / depth_guess, known["displacement"] / depth_known),
        ),
        "normal": (config.normal, "normal", _known(1 - cosine, mask["normal"])),
    }
    if config.absolute_depth_weight:
        depth = (guess["xyz"][..., 2] - known["xyz"][..., 2]).abs()
        is_metric = _is_metric(batch, depth)
        errors["absolute_depth"] = (config.absolute_depth_weight, "xyz", torch.where(is_metric, depth, 0.0))
    return errors


def mean_depth(points: Tensor, mask: Tensor) -> Tensor:
    """Return (B, 1, 1), the mean |z| of each clip's known points (B, N, 3), at least `DEPTH_FLOOR`.

    |z|, not z: a point may lie behind the camera it is expressed in, and a mean near zero would say nothing of the
    scene's size.
    """
    z = torch.where(mask, points[..., 2].abs(), 0.0)
    mean = z.sum(dim=1) / mask.sum(dim=1).clamp(min=1)
    return mean.clamp(min=DEPTH_FLOOR)[:, None, None]


def signed_log(x: Tensor) -> Tensor:
    """Return sign(x) log(1 + |x|), with the slope of 1 that it has at 0."""
    return torch.where(x >= 0, torch.log1p(x.clamp(min=0)), -torch.log1p((-x).clamp(min=0)))


def l1(a: Tensor, b: Tensor) -> Tensor:
    """Mean absolute difference over the last axis."""
    return (a - b).abs().mean(dim=-1)


def _weigh(error: Tensor, confidence: Tensor, config: LossConfig, step: int | Tensor) -> Tensor:
    """Multiply by the confidence, or by something between it and 1 while it warms up."""
    if not config.confidence_warmup_steps:
        return confidence * error
    share = step / config.confidence_warmup_steps
    share = share.clamp(max=1) if isinstance(share, Tensor) else min(share, 1.0)
    factor = 1 + share * (confidence.detach() - 1)
    learns = confidence * error.detach()
    return factor * error + (learns - learns.detach())


def _known(values: Tensor, mask: Tensor) -> Tensor:
    """Put 0 where masked, in a way that no gradient and no NaN passes."""
    return torch.where(mask if values.ndim == mask.ndim else mask[..., None], values, 0.0)


def _is_metric(batch: Mapping[str, Any], like: Tensor) -> Tensor:
    scale = batch.get("meta", {}).get("scale")
    if scale is None:
        return torch.ones((len(like), 1), dtype=torch.bool, device=like.device)
    return torch.tensor([[name == "metric"] for name in scale], device=like.device)
