"""Held-out clips: the model and the trivial predictors, asked the same and measured by the same code."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn

from datakit.d4rt import LossConfig, composite_loss
from datakit.evaluate import TRIVIAL, abs_rel, apd3d, delta1, focal_at_256
from datakit.stream import AugmentParams, Stream, stream

from .config import TrainConfig
from .feed import to_device
from .parallel import Ranks

#: Measure -> whether more is better.
MEASURES = {"apd3d": True, "abs_rel": False, "delta1": True}
#: Sampler -> what it is asked for: tracks give APD3D, depth gives AbsRel, and the loss is that of training's mix.
_TRACK, _DEPTH, _LOSS = "track", "depth", "paper"


@dataclass(frozen=True)
class _Row:
    """A clip of a batch and its number among all."""

    batch: dict[str, Any]
    row: int
    number: int

    def of(self, *names: str) -> Any:
        """Return one array of the batch at this clip."""
        value: Any = self.batch
        for name in names:
            value = value[name]
        return value[self.row]


def validate(model: nn.Module, config: TrainConfig, ranks: Ranks) -> dict[str, Any]:
    """Measure a model on the held-out clips.

    Args:
        model: Unwrapped; in evaluation mode while this runs. All ranks call this.
        config: Names clips and queries.
        ranks: Share the clips among them; the result does not depend on how many they are.

    Returns:
        JSON-able: `clips`; `model` and each trivial predictor -> apd3d, abs_rel, delta1 (means over clips), the
        model's also `loss` and its terms; `undefined` -> clips without a value, by measure; `margin` -> measure ->
        by how much the model is better than the best trivial predictor (positive is better), and `is_better`.
    """
    model.eval()
    rows: list[dict[str, Any]] = []
    for sampler in (_TRACK, _DEPTH, _LOSS):
        with _open(config, sampler, ranks) as clips:
            for batch, numbered in _batches(clips, config):
                answers = {"model": _ask(model, batch, config, ranks)}
                rows += _measure(sampler, answers, numbered, config, ranks)
    model.train()
    merged = [row for part in ranks.gather(rows) for row in part]
    return _summary(sorted(merged, key=lambda row: (row["measure"], row["by"], row["number"])))


def _open(config: TrainConfig, sampler: str, ranks: Ranks) -> Stream:
    asked = config.validation
    return stream(
        asked.shards,
        batch_size=asked.batch_size or config.data.batch_size // config.execution.accumulate,
        clip_frames=config.clip_frames,
        size=config.model.image_size,
        num_queries=asked.queries,
        sampler=sampler,
        seed=asked.seed,
        augment=AugmentParams.none(),
        rank=ranks.rank,
        world_size=ranks.world_size,
    )


def _batches(clips: Stream, config: TrainConfig) -> Iterator[tuple[dict[str, Any], list[_Row]]]:
    """Yield batches with the clips in them that count; the last batch may hold clips of the next round."""
    size = clips.state_dict()["order"]["batch_size"]
    count = config.validation.clips or sum(len(shown) for shown in clips.ledger.shown)
    for _ in range(-(-count // size)):
        batch = next(clips)
        numbers = batch["meta"]["step"] * size + batch["meta"]["slot"]
        yield batch, [_Row(batch, row, int(n)) for row, n in enumerate(numbers) if n < count]


@torch.no_grad()
def _ask(model: nn.Module, batch: Mapping[str, Any], config: TrainConfig, ranks: Ranks) -> Any:
    moved = to_device(batch, ranks.device)
    is_half = config.execution.precision == "bf16"
    with torch.autocast(ranks.device.type, torch.bfloat16, enabled=is_half):
        return model(moved["video"], moved["frame_mask"], moved["aspect_ratio"], moved["query"])


def _measure(
    sampler: str, answers: Mapping[str, Any], numbered: list[_Row], config: TrainConfig, ranks: Ranks
) -> list[dict[str, Any]]:
    """One value a clip, measure and predictor."""
    if not numbered:
        return []
    batch, out = numbered[0].batch, []
    if sampler == _LOSS:
        for row in numbered:
            for name, value in _loss(answers["model"], row, config, ranks).items():
                out.append({"measure": name, "by": "model", "number": row.number, "value": value})
        return out
    points = {"model": answers["model"]["xyz"].float().cpu().numpy()}
    points |= {name: predict(batch) for name, predict in TRIVIAL.items()}
    for row in numbered:
        for by, xyz in points.items():
            for name, value in (_tracks if sampler == _TRACK else _depths)(xyz[row.row], row).items():
                out.append({"measure": name, "by": by, "number": row.number, "value": value})
    return out


def _tracks(xyz: Any, row: _Row) -> dict[str, float]:
    size = row.of("video").shape[-1]
    focal = focal_at_256(row.of("camera", "intrinsics"), (size, size))[row.of("query", "t_cam")]
    visible = row.of("target", "visible") & row.of("mask", "visible") & row.of("mask", "xyz")
    return {"apd3d": apd3d(xyz, row.of("target", "xyz"), visible, focal)}


def _depths(xyz: Any, row: _Row) -> dict[str, float]:
    truth, known = row.of("target", "xyz")[:, 2], row.of("mask", "xyz")
    return {"abs_rel": abs_rel(xyz[:, 2], truth, known), "delta1": delta1(xyz[:, 2], truth, known)}


def _loss(
    answer: Mapping[str, torch.Tensor], row: _Row, config: TrainConfig, ranks: Ranks
) -> dict[str, float]:
    """Loss and terms of one clip alone."""
    at = slice(row.row, row.row + 1)
    moved = to_device(row.batch, ranks.device)
    alone = {part: {name: value[at] for name, value in moved[part].items()} for part in ("target", "mask")}
    alone["meta"] = {"scale": row.batch["meta"]["scale"][at]}
    loss: LossConfig = config.loss
    guess = {name: value[at] for name, value in answer.items()}
    total, terms, _ = composite_loss(guess, alone, loss, config.optim.steps)
    return {"loss": total.item()} | {f"loss_{name}": value.item() for name, value in terms.items()}


def _summary(rows: list[dict[str, Any]]) -> dict[str, Any]:
    out: dict[str, Any] = {"clips": len({row["number"] for row in rows})}
    undefined: dict[str, int] = {}
    for by in ("model", *TRIVIAL):
        out[by] = {}
        for measure in dict.fromkeys(row["measure"] for row in rows if row["by"] == by):
            values = np.array([r["value"] for r in rows if (r["by"], r["measure"]) == (by, measure)])
            known = values[~np.isnan(values)]
            # Which clips have no truth is the same for all predictors.
            undefined[measure] = len(values) - len(known)
            out[by][measure] = float(known.mean()) if len(known) else None
    out["undefined"] = {measure: count for measure, count in undefined.items() if count}
    return out | _margins(out)


def _margins(found: Mapping[str, Any]) -> dict[str, Any]:
    """By how much the model is better than the best trivial predictor of each measure."""
    margin: dict[str, float | None] = {}
    for measure, more_is_better in MEASURES.items():
        others = [found[name].get(measure) for name in TRIVIAL]
        own = found["model"].get(measure)
        if own is None or None in others:
            margin[measure] = None
            continue
        margin[measure] = own - max(others) if more_is_better else min(others) - own
    is_better = {name: None if value is None else bool(value > 0) for name, value in margin.items()}
    return {"margin": margin, "is_better": is_better}
