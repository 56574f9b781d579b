"""Optimiser, schedule and the average of weights."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from .config import OptimConfig
from .parallel import local


def learning_rate(step: int, config: OptimConfig) -> float:
    """Return the learning rate of a step, a pure function of its number: there is no schedule state to restore.

    Args:
        step: From 0. The warm-up is linear and reaches `lr` at step `warmup_steps`; the cosine ends with
            `final_lr` at the last step.
        config: The schedule.
    """
    if step < config.warmup_steps:
        return config.lr * (step + 1) / (config.warmup_steps + 1)
    length = max(config.steps - 1 - config.warmup_steps, 1)
    share = min((step - config.warmup_steps) / length, 1.0)
    return config.final_lr + (config.lr - config.final_lr) * 0.5 * (1 + math.cos(math.pi * share))


def has_decay(name: str, parameter: Tensor) -> bool:
    """Whether weight decay applies: to matrices, but not to biases, norms and learned time tables.

    The paper does not say. It is VideoMAE V2's rule (optim_factory.py: one-dimensional parameters and position
    tables have none); the time tables are the positions of queries.
    """
    return parameter.ndim > 1 and not name.endswith("_time.weight")


def make_optimizer(model: nn.Module, config: OptimConfig) -> torch.optim.AdamW:
    """Return AdamW over a model's parameters, those without weight decay in a group of their own."""
    named = list(model.named_parameters())
    groups = [
        {"params": [p for n, p in named if has_decay(n, p)], "weight_decay": config.weight_decay},
        {"params": [p for n, p in named if not has_decay(n, p)], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=config.lr, betas=config.betas, eps=config.eps, fused=True)


class Average:
    """Exponential moving average of a model's weights, in float32, sharded as they are.

    Early on the decay is (1 + k) / (10 + k) after k updates, so that the start is soon forgotten.

    Args:
        model: Its parameters are watched.
        decay: Share of the old average that an update keeps.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.decay = decay
        self._names = [name for name, _ in model.named_parameters()]
        self._weights = list(model.parameters())
        self.tensors = [weight.detach().clone() for weight in self._weights]

    @property
    def named(self) -> dict[str, Tensor]:
        """The averages by the names of their parameters."""
        return dict(zip(self._names, self.tensors, strict=True))

    @torch.no_grad()
    def update(self, updates: int) -> None:
        """Take the weights in, `updates` times having been done before."""
        decay = min(self.decay, (1 + updates) / (10 + updates))
        torch._foreach_lerp_(self._local(self.tensors), self._local(self._weights), 1 - decay)

    @contextmanager
    def in_place(self) -> Iterator[None]:
        """Put the averages into the model, and the weights back at the end, bit by bit."""
        self._swap()
        try:
            yield
        finally:
            self._swap()

    @torch.no_grad()
    def _swap(self) -> None:
        for average, weight in zip(self._local(self.tensors), self._local(self._weights), strict=True):
            kept = weight.clone()
            weight.copy_(average)
            average.copy_(kept)

    @staticmethod
    def _local(tensors: Sequence[Tensor]) -> list[Tensor]:
        return [local(tensor.detach()) for tensor in tensors]
