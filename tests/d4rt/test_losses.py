"""Losses: values by hand, masks that hold, scale that does not matter, gradients."""

from __future__ import annotations

import math
from dataclasses import asdict, replace
from typing import Any

import pytest
import torch
from pydantic import ValidationError

from datakit.d4rt import LossConfig, composite_loss, count_targets
from datakit.d4rt.losses import DEPTH_FLOOR, mean_depth, signed_log

TARGETS = ("xyz", "uv", "visible", "displacement", "normal")
ONLY = {name: 0.0 for name in (*TARGETS, "confidence")}


def only(**weights: float) -> LossConfig:
    return LossConfig(**(ONLY | weights))


def make_case(
    batch: int = 2, count: int = 6, seed: int = 0, dtype: torch.dtype = torch.float32
) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    """A prediction, and a batch in which about a third of the targets is unknown and NaN."""
    generator = torch.Generator().manual_seed(seed)

    def draw(*shape: int) -> torch.Tensor:
        return torch.randn((batch, count, *shape), generator=generator, dtype=dtype)

    def one() -> dict[str, torch.Tensor]:
        points = {name: draw(3) for name in ("xyz", "displacement", "normal")} | {
            "uv": draw(2),
            "visible": draw(),
        }
        points["xyz"][..., 2] += 4
        return points

    prediction, target = one(), one()
    prediction["confidence"] = draw().sigmoid()
    mask = {name: torch.rand((batch, count), generator=generator) < 0.7 for name in TARGETS}
    mask["xyz"][:, 0] = True
    target["visible"] = target["visible"] > 0
    for name in ("xyz", "uv", "displacement", "normal"):
        target[name][~mask[name]] = math.nan
    return prediction, {"target": target, "mask": mask}


def one_query(**changes: Any) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    """One clip, one query: numbers that can be followed in the head."""
    values = {
        "xyz": ([1.0, 0.0, 2.0], [0.0, 0.0, 8.0]),
        "uv": ([0.5, 0.25], [0.25, 0.75]),
        "visible": (0.0, True),
        "displacement": ([2.0, 0.0, 0.0], [0.0, 8.0, 0.0]),
        "normal": ([0.0, 0.0, -2.0], [0.0, 0.6, -0.8]),
    } | changes
    prediction = {name: torch.tensor([[value[0]]]) for name, value in values.items()}
    prediction["confidence"] = torch.tensor([[0.5]])
    target = {name: torch.tensor([[value[1]]]) for name, value in values.items()}
    return prediction, {"target": target, "mask": {name: torch.tensor([[True]]) for name in TARGETS}}


def test_the_weights_are_the_papers():
    wanted = {"xyz": 1.0, "uv": 0.1, "visible": 0.1, "displacement": 0.1, "normal": 0.5, "confidence": 0.2}
    settings = asdict(LossConfig())
    assert {name: settings[name] for name in wanted} == wanted
    assert settings["confidence_warmup_steps"] == 0 and settings["absolute_depth_weight"] == 0
    with pytest.raises(ValidationError, match="lambda"):
        LossConfig(lambda_3d=1.0)  # type: ignore[call-arg]
    with pytest.raises(ValidationError):
        LossConfig(uv=-1.0)


def test_every_term_by_hand():
    """Mean depths are 2 and 8: points (.5, 0, 1) against (0, 0, 1), motions (1, 0, 0) against (0, 1, 0)."""
    total, terms, counts = composite_loss(*one_query())
    wanted = {
        "xyz": 1.0 * 0.5 * math.log(1.5) / 3,
        "confidence": 0.2 * math.log(2),
        "uv": 0.1 * (0.25 + 0.5) / 2,
        "visible": 0.1 * math.log(2),
        "displacement": 0.1 * 2 / 3,
        "normal": 0.5 * (1 - 0.8),
    }
    assert terms.keys() == wanted.keys()
    for name, value in wanted.items():
        assert terms[name].item() == pytest.approx(value, rel=1e-6), name
    assert total.item() == pytest.approx(sum(wanted.values()), rel=1e-6)
    assert {name: count.item() for name, count in counts.items()} == dict.fromkeys(TARGETS, 1)


def test_confidence_multiplies_only_the_3d_term():
    prediction, batch = one_query()
    _, half, _ = composite_loss(prediction, batch)
    _, whole, _ = composite_loss(prediction | {"confidence": torch.ones(1, 1)}, batch)
    assert whole["xyz"].item() == pytest.approx(2 * half["xyz"].item())
    for name in ("uv", "visible", "displacement", "normal"):
        assert whole[name] == half[name]


def test_the_best_confidence_is_the_weight_over_the_error():
    """The minimum of c E - 0.2 log c is at c = 0.2 / E."""
    prediction, batch = one_query(xyz=([8.0, 0.0, 2.0], [0.0, 0.0, 8.0]))
    error = math.log(5) / 3
    best = 0.2 / error
    losses = [
        composite_loss(prediction | {"confidence": torch.tensor([[c]])}, batch, only(xyz=1, confidence=0.2))[
            0
        ]
        for c in (best * 0.9, best, best * 1.1)
    ]
    assert losses[1] < losses[0] and losses[1] < losses[2]


def test_sums_are_divided_by_all_queries_or_by_the_known_ones():
    prediction, batch = make_case(2, 6)
    counts = count_targets(batch)
    _, by_queries, _ = composite_loss(prediction, batch)
    _, by_known, _ = composite_loss(prediction, batch, LossConfig(reduction="valid"))
    for name, value in by_queries.items():
        known = counts["xyz" if name == "confidence" else name]
        assert by_known[name].item() == pytest.approx(value.item() * 12 / known.item(), rel=1e-5)


@pytest.mark.parametrize("reduction", ["queries", "valid"])
def test_ranks_average_to_the_whole_batch(reduction: str):
    """DDP takes the mean of the ranks' gradients; it must be the gradient of the whole batch's loss."""
    prediction, batch = make_case(4, 6)
    config = LossConfig(reduction=reduction)  # type: ignore[arg-type]
    whole, _, counts = composite_loss(prediction, batch, config)
    shares = {name: count / 2 for name, count in counts.items()} if reduction == "valid" else None
    parts = []
    for rows in (slice(0, 1), slice(1, 2), slice(2, 3), slice(3, 4)):
        part = {name: value[rows] for name, value in prediction.items()}
        known = {group: {name: value[rows] for name, value in batch[group].items()} for group in batch}
        share = None if shares is None else {name: count / 4 for name, count in counts.items()}
        parts.append(composite_loss(part, known, config, denominators=share)[0])
    assert torch.stack(parts).mean().item() == pytest.approx(whole.item(), rel=1e-5)


def test_the_total_is_the_sum_of_its_terms_and_each_weight_scales_its_own():
    prediction, batch = make_case()
    total, terms, _ = composite_loss(prediction, batch)
    assert total.item() == pytest.approx(sum(term.item() for term in terms.values()), rel=1e-6)
    for name in terms:
        more = replace(LossConfig(), **{name: 3 * getattr(LossConfig(), name)})
        _, scaled, _ = composite_loss(prediction, batch, more)
        for other in terms:
            assert scaled[other].item() == pytest.approx(
                terms[other].item() * (3 if other == name else 1), rel=1e-5
            )


# Masks.


@pytest.mark.parametrize("name", TARGETS)
def test_a_masked_target_has_no_gradient_and_no_influence(name: str):
    prediction, batch = make_case()
    prediction = {key: value.clone().requires_grad_() for key, value in prediction.items()}
    total, _, _ = composite_loss(prediction, batch)
    total.backward()
    assert total.isfinite()
    unknown = ~batch["mask"][name]
    assert unknown.any()
    gradient = prediction[name].grad
    assert gradient.isfinite().all()
    assert (gradient[unknown] == 0).all()
    if name == "xyz":
        assert (prediction["confidence"].grad[unknown] == 0).all()
    known = batch["mask"][name]
    assert (gradient[known].abs() > 0).any()
    # Whatever is predicted there, the loss is the same bits.
    changed = {key: value.detach().clone() for key, value in prediction.items()}
    changed[name][unknown] = 1e6
    assert composite_loss(changed, batch)[0] == total


def test_a_masked_prediction_may_be_nan():
    prediction, batch = make_case()
    for name in TARGETS:
        prediction[name][~batch["mask"][name]] = math.nan
    prediction["confidence"][~batch["mask"]["xyz"]] = math.nan
    prediction = {key: value.requires_grad_() for key, value in prediction.items()}
    total, _, _ = composite_loss(prediction, batch)
    total.backward()
    assert total.isfinite() and all(value.grad.isfinite().all() for value in prediction.values())


def test_an_unmasked_nan_is_not_hidden():
    prediction, batch = make_case()
    batch["target"]["xyz"][0, 0] = math.nan
    assert composite_loss(prediction, batch)[0].isnan()


def test_nothing_known_is_zero_and_has_a_gradient_of_zero():
    prediction, batch = make_case()
    batch["mask"] = {name: torch.zeros_like(mask) for name, mask in batch["mask"].items()}
    prediction = {key: value.requires_grad_() for key, value in prediction.items()}
    for config in (LossConfig(), LossConfig(reduction="valid")):
        total, _, counts = composite_loss(prediction, batch, config)
        total.backward()
        assert total == 0 and all(count == 0 for count in counts.values())
        assert all((value.grad == 0).all() for value in prediction.values())


def test_motion_in_a_clip_without_points_is_not_divided_by_the_floor():
    prediction, batch = make_case()
    batch["mask"]["xyz"][0] = False
    batch["mask"]["displacement"][:] = True
    batch["target"]["displacement"] = torch.ones(2, 6, 3)
    _, terms, _ = composite_loss(prediction, batch)
    assert terms["displacement"] < 1


# Scale.


def test_scale_does_not_matter():
    """Of the prediction and of the target, each clip with its own; motions go with their points."""
    prediction, batch = make_case()
    total, terms, _ = composite_loss(prediction, batch)
    for scales in ((torch.tensor([7.0, 0.02]), torch.ones(2)), (torch.ones(2), torch.tensor([0.1, 300.0]))):
        ours, theirs = (scale[:, None, None] for scale in scales)
        scaled = prediction | {name: prediction[name] * ours for name in ("xyz", "displacement")}
        target = batch["target"] | {name: batch["target"][name] * theirs for name in ("xyz", "displacement")}
        other, other_terms, _ = composite_loss(scaled, {"target": target, "mask": batch["mask"]})
        assert other.item() == pytest.approx(total.item(), rel=1e-5)
        for name in terms:
            assert other_terms[name].item() == pytest.approx(terms[name].item(), rel=1e-5, abs=1e-7)


def test_a_right_prediction_of_another_scale_costs_nothing():
    _, batch = make_case()
    target = {name: value.nan_to_num(0.3) for name, value in batch["target"].items() if name != "visible"}
    prediction = {
        name: value * (3 if name in ("xyz", "displacement") else 1) for name, value in target.items()
    }
    prediction |= {
        "visible": torch.where(batch["target"]["visible"], 50.0, -50.0),
        "confidence": torch.ones(2, 6),
    }
    total, _, _ = composite_loss(prediction, batch)
    assert total.item() == pytest.approx(0, abs=1e-5)


def test_mean_depth_is_of_known_points_without_sign():
    """Cayman-Wang/D4RT takes the signed mean over all."""
    points = torch.zeros(2, 4, 3)
    points[0, :, 2] = torch.tensor([2.0, -4.0, 100.0, math.nan])
    points[1, :, 2] = torch.tensor([1e-9, 1e-9, 5.0, 5.0])
    mask = torch.tensor([[True, True, False, False]] * 2)
    assert mean_depth(points, mask).flatten().tolist() == pytest.approx([3.0, DEPTH_FLOOR])
    assert mean_depth(points, torch.zeros_like(mask)).flatten().tolist() == pytest.approx([DEPTH_FLOOR] * 2)


def test_each_clip_has_its_own_mean_depth():
    prediction, batch = make_case(2)
    together = composite_loss(prediction, batch, only(xyz=1.0))[0]
    apart = [
        composite_loss(
            {name: value[row : row + 1] for name, value in prediction.items()},
            {group: {name: value[row : row + 1] for name, value in batch[group].items()} for group in batch},
            only(xyz=1.0),
        )[0]
        for row in range(2)
    ]
    assert together.item() == pytest.approx(sum(part.item() for part in apart) / 2, rel=1e-6)


def test_signed_log():
    x = torch.tensor([-3.0, -0.5, 0.0, 0.5, 3.0], dtype=torch.float64, requires_grad=True)
    y = signed_log(x)
    torch.testing.assert_close(y, torch.sign(x) * torch.log1p(x.abs()))
    (slope,) = torch.autograd.grad(y.sum(), x)
    torch.testing.assert_close(slope, 1 / (1 + x.detach().abs()))  # 1 at zero too


# Gradients and arithmetic.


@pytest.mark.parametrize("reduction", ["queries", "valid"])
def test_gradients_are_those_of_finite_differences(reduction: str):
    prediction, batch = make_case(2, 4, dtype=torch.float64)
    names = list(prediction)
    config = LossConfig(reduction=reduction, absolute_depth_weight=0.3)  # type: ignore[arg-type]

    def loss(*values: torch.Tensor) -> torch.Tensor:
        return composite_loss(dict(zip(names, values, strict=True)), batch, config)[0]

    inputs = [prediction[name].clone().requires_grad_() for name in names]
    assert torch.autograd.gradcheck(loss, inputs, eps=1e-6, atol=1e-7)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_arithmetic_is_float32(dtype: torch.dtype):
    """Rounded inputs give what their rounded values give in float32, also inside autocast."""
    prediction, batch = make_case(2, 64)
    rough = {name: value.to(dtype) for name, value in prediction.items()}
    exact = composite_loss({name: value.float() for name, value in rough.items()}, batch)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = composite_loss(rough, batch)
    assert found[0].dtype == torch.float32 and found[0] == exact[0]


# Options.


def test_confidence_warms_up():
    """At step 0 the 3D term has full weight though c = 0.5, and c still learns from the error; at the end it is c E."""
    config = only(xyz=1.0, confidence=0.2)
    config = replace(config, confidence_warmup_steps=10)
    prediction, batch = one_query()
    error = math.log(1.5) / 3
    for step, factor in ((0, 1.0), (5, 0.75), (10, 0.5), (99, 0.5), (torch.tensor(5), 0.75)):
        leaves = {name: value.clone().requires_grad_() for name, value in prediction.items()}
        total, terms, _ = composite_loss(leaves, batch, config, step=step)
        assert terms["xyz"].item() == pytest.approx(factor * error, rel=1e-5)
        total.backward()
        assert leaves["confidence"].grad.item() == pytest.approx(error - 0.2 / 0.5, rel=1e-5)
        plain = {name: value.clone().requires_grad_() for name, value in prediction.items()}
        composite_loss(plain, batch, replace(config, confidence_warmup_steps=0))[0].backward()
        torch.testing.assert_close(leaves["xyz"].grad, plain["xyz"].grad * factor / 0.5)


def test_absolute_depth_is_for_metric_clips_only():
    prediction, batch = make_case(2, 5)
    config = only(absolute_depth_weight=2.0)
    wanted = (prediction["xyz"][..., 2] - batch["target"]["xyz"][..., 2]).abs().nan_to_num(0)
    _, terms, _ = composite_loss(prediction, batch, config)
    assert terms["absolute_depth"].item() == pytest.approx(2 * wanted.sum().item() / 10, rel=1e-5)
    batch["meta"] = {"scale": ["sfm", "metric"]}
    _, terms, _ = composite_loss(prediction, batch, config)
    assert terms["absolute_depth"].item() == pytest.approx(2 * wanted[1].sum().item() / 10, rel=1e-5)
    assert "absolute_depth" not in composite_loss(prediction, batch)[1]
