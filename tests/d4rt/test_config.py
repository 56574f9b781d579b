"""Sizes: what the paper says, and what the counts say of them."""

from __future__ import annotations

import resource
import subprocess
import sys
from dataclasses import replace

import pytest
import torch
from pydantic import ValidationError
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from datakit.d4rt import CONFIGS, D4RT, ModelConfig, count_parameters, find_config, forward_flops
from datakit.errors import UsageError
from tests.d4rt.samples import SMALL, make_query, make_video


def test_paper_has_the_papers_size():
    """arXiv 2512.08924: a ViT-g of 40 layers with about 1 B parameters, a decoder of 8 layers with 144 M."""
    config, before = CONFIGS["paper"], resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    counts = count_parameters(config)
    print(counts)
    # Nothing is allocated: kB here; the weights would be 4.6 million.
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 200_000
    assert (config.encoder_depth, config.decoder_depth, config.image_size, config.num_frames) == (
        40,
        8,
        256,
        48,
    )
    assert 1.00e9 < counts["encoder"] < 1.02e9
    assert 143.5e6 < counts["decoder"] < 144.5e6
    assert counts["total"] == sum(counts[name] for name in ("encoder", "query", "decoder", "head"))
    assert config.grid**2 * config.num_slices == 6144


@pytest.mark.parametrize("name", ["small", "tiny"])
def test_counts_are_those_of_the_model(name: str):
    config = CONFIGS[name]
    model = D4RT(config)
    assert count_parameters(config)["total"] == sum(p.numel() for p in model.parameters())


@pytest.mark.parametrize("name", CONFIGS)
def test_named_configurations_are_whole(name: str):
    config = find_config(name)
    assert config.image_size % config.patch == 0
    assert config.encoder_depth % 2 == 0  # the last layer looks at all
    assert config.decoder_width % config.decoder_heads == 0


def test_an_unknown_name_or_field_is_an_error():
    with pytest.raises(UsageError, match="paper, large(.|\n)*huge"):
        find_config("huge")
    with pytest.raises(ValidationError, match="encoder_widht"):
        ModelConfig(encoder_widht=3)  # type: ignore[call-arg]
    with pytest.raises(ValidationError, match="positions"):
        replace(SMALL, positions="rope")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "changes",
    [{"image_size": 30}, {"encoder_heads": 7}, {"decoder_heads": 5}, {"query_patch": 8}],
    ids=lambda changes: next(iter(changes)),
)
def test_sizes_that_do_not_divide_are_refused(changes: dict[str, int]):
    with pytest.raises((UsageError, ValidationError)):
        replace(SMALL, **changes)


def test_flops_are_those_torch_counts():
    """Against torch's own counter, which sees the products and attentions that really run."""
    model = D4RT(SMALL).eval()
    query = make_query(count=50)
    # The counter knows attention on a CPU only when it is written out.
    with torch.no_grad(), sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        model(make_video(), None, torch.ones(2), query)
    predicted = forward_flops(SMALL, batch=2, frames=8, queries=50)
    assert predicted["total"] == pytest.approx(
        counter.get_total_flops(), rel=1e-4
    )  # not in it: the FC of the aspect ratio


def test_without_torch_the_extra_is_named():
    code = "import sys; sys.modules['torch'] = None\nimport datakit\nimport datakit.d4rt"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.returncode == 1
    assert "UsageError" in result.stderr and "datakit[torch]" in result.stderr


def test_datakit_does_not_import_torch():
    code = "import sys, datakit; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
