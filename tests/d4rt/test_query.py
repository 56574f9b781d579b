"""Colour patches and query tokens."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.profiler import ProfilerActivity, profile

from datakit.d4rt.query import QueryEmbedding, gather_patches
from datakit.queries import Draw, cut_patches
from datakit.worlds import random_world
from tests.d4rt.samples import SMALL, assert_same, make_model, make_query, make_video
from tests.queries.views import view_of

RATIO = torch.tensor([1.5, 0.7])


def draw_over_borders(size: tuple[int, int], frames: int) -> Draw:
    """Queries anywhere, on pixel borders, and all along the image's edge and its corners.

    Where a side is no power of two, a border is not exact in floating point, and may be told either way.
    """
    rng = np.random.default_rng(0)
    width, height = size
    anywhere = rng.random((500, 2)) * size
    borders = rng.integers(0, (width + 1, height + 1), (200, 2)).astype(np.float64)
    is_exact = not (width & (width - 1) or height & (height - 1))
    if not is_exact:
        borders = borders[(borders < size).all(axis=1)] + 0.5
    zero = 0 if is_exact else 1e-3
    along = np.linspace(0, 1, 50) * (1 - 1e-3) + 3e-4
    rim = [np.stack([along * width, np.full(50, y)], axis=1) for y in (zero, 0.3, height - 0.2, height)]
    rim += [np.stack([np.full(50, x), along * height], axis=1) for x in (zero, 1.7, width - 0.01, width)]
    uv = np.concatenate([anywhere, borders, *rim])
    times = rng.integers(0, frames, (3, len(uv)))
    return Draw(uv, *times, np.zeros(len(uv), np.uint8))


@pytest.mark.parametrize("size", [(64, 64), (48, 64)])
def test_patches_are_those_of_the_stream(size: tuple[int, int]):
    """Where the stream cuts from the network's own frames, both must agree to the last value."""
    clip = view_of(random_world(3, motion="rigid", num_frames=6, size=(80, 60)), [0, 2, 5], size=size)
    clip = replace(clip, patch_frames=clip.video, patch_intrinsics=clip.intrinsics)
    draw = draw_over_borders(size, 3)
    wanted = cut_patches(clip, draw)
    frames = torch.from_numpy(np.moveaxis(clip.video, -1, 1))[None]
    uv = torch.from_numpy((draw.uv_px / clip.size).astype(np.float32))[None]
    found = gather_patches(frames, uv, torch.from_numpy(draw.t_src)[None], 9)
    assert found.dtype == torch.uint8
    np.testing.assert_array_equal(found[0].numpy(), wanted)


def test_patches_come_from_their_own_clip_and_frame():
    frames = torch.arange(2 * 3, dtype=torch.uint8).view(2, 3, 1, 1, 1).expand(2, 3, 3, 20, 20)
    query = make_query(2, 40, 3)
    found = gather_patches(frames, query["uv"], query["t_src"], 9)
    wanted = query["t_src"] + torch.tensor([[0], [3]])
    assert (found == wanted[..., None, None, None]).all()


def test_gathering_does_not_copy_frames():
    """OpenD4RT gathers a frame for each query: 2048 x 3 x 256 x 256 bytes = 403 MB here, as floats 1.6 GB."""
    frames = torch.zeros((1, 4, 3, 256, 256), dtype=torch.uint8)
    query = make_query(1, 2048, 4)
    gather_patches(frames, query["uv"], query["t_src"], 9)
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as watch:
        patches = gather_patches(frames, query["uv"], query["t_src"], 9)
    allocated = sum(max(event.self_cpu_memory_usage, 0) for event in watch.key_averages())
    assert allocated >= patches.numel()
    assert allocated < 4 * patches.numel()  # patches, and some index numbers a query


def test_absent_patches_are_cut_from_the_video():
    model, video, query = make_model(), make_video(), make_query()
    patch = gather_patches(video, query["uv"], query["t_src"], 9)
    with torch.no_grad():
        given = model(video, None, RATIO, query | {"patch": patch})
        assert_same(given, model(video, None, RATIO, query), tolerance=0)
        assert_same(given, model(video, None, RATIO, query | {"patch": None}), tolerance=0)
        memory = model.keys_values(model.encode(video, None, RATIO))
        assert_same(given, model.decode(memory, query, chunk=5))


def test_sharper_frames_give_sharper_patches():
    """Table 10 of the paper: patches from the original resolution."""
    model, video, query = make_model(), make_video(), make_query()
    sharp = make_video(size=80, seed=5)
    with torch.no_grad():
        memory = model.encode(video, None, RATIO)
        patch = gather_patches(sharp, query["uv"], query["t_src"], 9)
        wanted = model.decode(memory, query | {"patch": patch})
        assert_same(model.decode(memory, query, frames=sharp), wanted, tolerance=0)
        assert (wanted["xyz"] - model.decode(memory, query)["xyz"]).abs().max() > 1e-3


def test_fourier_features():
    embedding = QueryEmbedding(SMALL)
    features = embedding.fourier(torch.tensor([[[0.25, 1.0]]]))[0, 0]
    bands = SMALL.fourier_bands
    assert features.shape == (2 + 4 * bands,)
    octaves = np.pi * 2.0 ** np.arange(bands)
    angles = np.concatenate([0.25 * octaves, octaves])
    wanted = np.concatenate([[-0.5, 1.0], np.sin(angles), np.cos(angles)])
    np.testing.assert_allclose(features.numpy(), wanted, atol=2e-5)


def test_uint8_and_float_patches_are_the_same_colours():
    embedding = QueryEmbedding(SMALL)
    query = make_query(1, 6)
    patch = torch.randint(0, 256, (1, 6, 3, 9, 9), dtype=torch.uint8)
    places = [query[name] for name in ("uv", "t_src", "t_tgt", "t_cam")]
    torch.testing.assert_close(embedding(*places, patch), embedding(*places, patch / 255), atol=1e-5, rtol=0)
