"""Tables of token positions."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from datakit.d4rt import CONFIGS
from datakit.d4rt.positions import position_table
from tests.d4rt.samples import SMALL


def test_videomae_table_is_its_formula():
    """OpenGVLab/VideoMAEv2 models/modeling_finetune.py: position / 10000^(2 (j // 2) / width); sine where j is even."""
    config = replace(SMALL, positions="videomae")
    table = position_table(config).flatten(0, 1).numpy()
    assert table.shape == (4 * 16, 128)
    for number, channel in ((0, 0), (17, 4), (63, 5), (40, 127)):
        angle = number / np.power(10000, 2 * (channel // 2) / 128)
        wanted = np.sin(angle) if channel % 2 == 0 else np.cos(angle)
        assert table[number, channel] == pytest.approx(wanted, abs=1e-6)


def test_vit_g_at_256_has_the_table_it_was_trained_with():
    """224 / 14 and 256 / 16 are both 16 tokens a side, so its first 8 slices (16 frames) are those of 224 pixels."""
    paper = replace(CONFIGS["paper"], encoder_width=32, encoder_heads=2)
    trained = replace(paper, image_size=224, patch=14, num_frames=16)
    torch.testing.assert_close(position_table(paper)[:8], position_table(trained), atol=0, rtol=0)


def test_other_grids_are_resampled_within_slices():
    base = replace(CONFIGS["base"], encoder_width=48)
    table = position_table(base)
    trained = position_table(replace(base, image_size=224))
    assert table.shape == (24, 256, 48) and trained.shape == (24, 196, 48)
    slow = slice(40, 48)  # waves longer than a slice: resampling keeps their values along the middle
    a, b = (
        t[3].unflatten(0, (side, side))[..., slow].mean(dim=(0, 1))
        for t, side in ((table, 16), (trained, 14))
    )
    torch.testing.assert_close(a, b, atol=1e-3, rtol=0)
    assert (table - position_table(replace(base, position_grid=16))).abs().max() > 0.1


@pytest.mark.parametrize("name", CONFIGS)
def test_no_two_tokens_have_one_position(name: str):
    config = replace(CONFIGS[name], num_frames=8)
    table = position_table(config).flatten(0, 1)
    distance = torch.cdist(table[::3], table)
    distance[torch.arange(len(distance)), torch.arange(len(distance)) * 3] = 1
    assert distance.min() > 0.05


def test_separable_parts_depend_on_their_axis_only():
    table = position_table(SMALL).unflatten(1, (4, 4))
    across = 2 * (128 // 6)
    time, row, column = table.split((128 - 2 * across, across, across), dim=-1)
    assert time.std(dim=(1, 2)).max() < 1e-6 and time.std(dim=0).max() > 0.1
    assert row.std(dim=(0, 2)).max() < 1e-6 and row.std(dim=1).max() > 0.1
    assert column.std(dim=(0, 1)).max() < 1e-6 and column.std(dim=2).max() > 0.1
