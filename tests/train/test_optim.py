from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from datakit.d4rt import D4RT
from datakit.train.config import OptimConfig
from datakit.train.optim import Average, has_decay, learning_rate, make_optimizer


def test_schedule_rises_linearly_and_falls_as_a_cosine():
    config = OptimConfig(steps=101, warmup_steps=4, lr=1.0, final_lr=0.1)
    rates = [learning_rate(step, config) for step in range(101)]
    assert rates[:5] == pytest.approx([0.2, 0.4, 0.6, 0.8, 1.0])
    assert rates[100] == pytest.approx(0.1)
    assert rates[52] == pytest.approx(0.55) and rates[28] == pytest.approx(
        0.1 + 0.9 * (1 + math.sqrt(0.5)) / 2
    )
    assert learning_rate(500, config) == pytest.approx(0.1)
    assert learning_rate(0, OptimConfig(warmup_steps=0, lr=2.0)) == 2.0


def test_biases_norms_and_time_tables_do_not_decay(config_of):
    model = D4RT(config_of().model)
    groups = make_optimizer(model, OptimConfig()).param_groups
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    decays, rests = ([names[id(p)] for p in group["params"]] for group in groups)
    assert [group["weight_decay"] for group in groups] == [0.03, 0.0]
    assert len(decays) + len(rests) == len(names)
    assert all(name.endswith("weight") for name in decays) and "encoder.blocks.0.attn.qkv.weight" in decays
    assert not any("norm" in name or "_time" in name or name.endswith("bias") for name in decays)
    assert {"query.source_time.weight", "encoder.norm.weight", "head.linear.bias"} <= set(rests)
    assert not has_decay("encoder.norm.weight", torch.zeros(3))


def test_the_average_follows_and_steps_aside():
    model = nn.Linear(1, 1, bias=False)
    with torch.no_grad():
        model.weight.fill_(0.0)
    average = Average(model, decay=0.5)
    with torch.no_grad():
        model.weight.fill_(1.0)
    average.update(0)
    assert average.tensors[0].item() == pytest.approx(0.9)  # (1 + 0) / (10 + 0) of the old is kept
    average.update(100)
    assert average.tensors[0].item() == pytest.approx(0.95)
    with average.in_place():
        assert model.weight.item() == pytest.approx(0.95) and average.tensors[0].item() == 1.0
    assert model.weight.item() == 1.0 and average.tensors[0].item() == pytest.approx(0.95)
    assert list(average.named) == ["weight"] and model.weight.requires_grad
