"""Small models, clips and queries made from a seed."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch

from datakit.d4rt import CONFIGS, D4RT, ModelConfig

SMALL = replace(CONFIGS["tiny"], image_size=32, encoder_depth=4, decoder_depth=2)


def make_model(seed: int = 0, config: ModelConfig = SMALL, **changes: Any) -> D4RT:
    """A model whose outputs depend strongly on everything: freshly drawn heads are almost constant."""
    torch.manual_seed(seed)
    model = D4RT(replace(config, **changes)).eval()
    torch.nn.init.normal_(model.head.linear.weight, std=model.head.linear.in_features**-0.5)
    return model


def make_video(batch: int = 2, frames: int = 8, size: int = 32, seed: int = 1) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (batch, frames, 3, size, size), generator=generator, dtype=torch.uint8)


def make_query(batch: int = 2, count: int = 33, frames: int = 8, seed: int = 2) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    times = torch.randint(0, frames, (3, batch, count), generator=generator)
    return {
        "uv": torch.rand((batch, count, 2), generator=generator),
        "t_src": times[0],
        "t_tgt": times[1],
        "t_cam": times[2],
    }


def part_of(query: dict[str, torch.Tensor], rows: Any, places: Any = slice(None)) -> dict[str, torch.Tensor]:
    """Rows of the batch, and queries of each."""
    return {name: value[rows][:, places] for name, value in query.items()}


def assert_same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor], tolerance: float = 1e-6) -> None:
    """Compare answers: 0 asks for the same bits, else the error's norm may be so much of the answer's.

    Single numbers may differ by some units in the last place more: one row is multiplied by another routine than
    many, and a unit normal divides by the length of what may be short.
    """
    assert a.keys() == b.keys()
    for name in a:
        if not tolerance:
            assert torch.equal(a[name], b[name]), name
            continue
        error, size = a[name] - b[name], max(a[name].abs().max().item(), 1.0)
        assert error.norm() <= tolerance * max(a[name].norm().item(), 1.0), name
        assert error.abs().max() <= 5 * tolerance * size, name
