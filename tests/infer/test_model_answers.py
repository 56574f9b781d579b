"""A model's answers do not depend on how they are asked for."""

from __future__ import annotations

from dataclasses import fields, replace

import numpy as np
import pytest

pytest.importorskip("torch", reason="the torch extra is not installed")

import torch

from datakit.d4rt import D4RT
from datakit.errors import UsageError
from datakit.infer.answers import Answer, ClipFrames, join_answers, pick_answers
from datakit.infer.model_answers import ModelAnswers
from datakit.infer.params import InferParams
from datakit.infer.window import reconstruct_window
from datakit.stream.images import resize
from tests.d4rt.samples import make_model

COUNT = 100


@pytest.fixture(scope="module")
def model() -> D4RT:
    return make_model()


def make_clip(count: int = 7, size: tuple[int, int] = (60, 40), seed: int = 0) -> ClipFrames:
    rng = np.random.default_rng(seed)
    return ClipFrames(
        rng.integers(0, 256, (count, size[1], size[0], 3), dtype=np.uint8),
        np.arange(count) / 10,
        np.arange(count),
    )


def make_query(num_frames: int = 7, seed: int = 1):
    rng = np.random.default_rng(seed)
    return rng.random((COUNT, 2), np.float32), *rng.integers(0, num_frames, (3, COUNT))


def assert_close(a: Answer, b: Answer, tolerance: float) -> None:
    for field in fields(Answer):
        left, right = getattr(a, field.name), getattr(b, field.name)
        assert left.dtype == right.dtype == np.float32
        size = np.linalg.norm(left) if tolerance else 1.0
        assert np.linalg.norm(left - right) <= tolerance * size, field.name


def test_the_answer_is_the_models(model):
    clip, (uv, t_src, t_tgt, t_cam) = make_clip(), make_query()
    found = ModelAnswers(model, chunk=16).open(clip).ask(uv, t_src, t_tgt, t_cam)
    squares = np.stack([resize(frame, 32) for frame in clip.rgb])
    with torch.no_grad():
        memory = model.encode(torch.from_numpy(squares).permute(0, 3, 1, 2)[None], None, torch.tensor([1.5]))
        query = {"uv": torch.from_numpy(uv)[None]} | {
            name: torch.from_numpy(t)[None]
            for name, t in zip(("t_src", "t_tgt", "t_cam"), (t_src, t_tgt, t_cam), strict=True)
        }
        frames = torch.from_numpy(clip.rgb).permute(0, 3, 1, 2)[None]
        out = model.decode(memory, query, frames=frames)
    expected = Answer(
        *(out[name][0].numpy() for name in ("xyz", "uv")),
        out["visible"][0].sigmoid().numpy(),
        *(out[name][0].numpy() for name in ("displacement", "normal", "confidence")),
    )
    assert_close(expected, found, 1e-6)


@pytest.mark.parametrize("chunk", [1, 7, 512])
def test_chunks_do_not_matter(model, chunk):
    clip, query = make_clip(), make_query()
    assert_close(
        ModelAnswers(model, chunk=100).open(clip).ask(*query),
        ModelAnswers(model, chunk=chunk).open(clip).ask(*query),
        1e-6,
    )


def test_order_and_company_do_not_matter(model):
    query = make_query()
    opened = ModelAnswers(model, chunk=32).open(make_clip())
    whole, order = opened.ask(*query), np.random.default_rng(3).permutation(COUNT)
    assert_close(pick_answers(whole, order), opened.ask(*(part[order] for part in query)), 1e-6)
    halves = [opened.ask(*(part[at] for part in query)) for at in (slice(0, 33), slice(33, None))]
    assert_close(whole, join_answers(halves), 1e-6)
    assert len(opened.ask(*(part[:0] for part in query))) == 0


def test_kept_keys_and_values_change_no_bit(model):
    clip, query = make_clip(), make_query()
    for precision in ("fp32", "bf16"):
        kept, not_kept = (
            ModelAnswers(model, chunk=32, precision=precision, keep_keys_values=keep).open(clip).ask(*query)
            for keep in (True, False)
        )
        assert_close(kept, not_kept, 0.0)


def test_clips_do_not_see_each_other(model):
    answers, query = ModelAnswers(model), make_query()
    first, second = make_clip(seed=0), make_clip(seed=1)
    alone = answers.open(first).ask(*query)
    both = [answers.open(clip) for clip in (first, second)]
    other = both[1].ask(*query)
    assert_close(alone, both[0].ask(*query), 0.0)
    assert np.abs(other.xyz - alone.xyz).max() > 1e-2


def test_half_precision_is_near(model):
    clip, query = make_clip(), make_query()
    exact, half = (ModelAnswers(model, precision=p).open(clip).ask(*query) for p in ("fp32", "bf16"))
    assert_close(exact, half, 0.05)
    assert np.abs(exact.xyz - half.xyz).max() > 0


@pytest.mark.parametrize("count", [1, 2, 5, 8])
def test_short_clips(model, count):
    """Also of an odd number of frames: a short clip is no clip filled up with something."""
    opened = ModelAnswers(model).open(make_clip(count))
    answer = opened.ask(*make_query(count))
    assert opened.num_frames == count and np.isfinite(answer.xyz).all()
    with pytest.raises(UsageError, match="outside the clip"):
        opened.ask(np.zeros((1, 2)), np.array([0]), np.array([count]), np.array([0]))
    with pytest.raises(UsageError, match="longer"):
        ModelAnswers(model).open(make_clip(9))


def test_patches_come_from_the_video_itself(model):
    """A change that the encoder cannot see: two pixels change places inside an averaged block."""
    clip = make_clip(size=(64, 64))
    changed = clip.rgb.copy()
    changed[3, 20, 20:22] = changed[3, 20, 20:22][::-1]
    query = np.array([[20.5 / 64, 20.5 / 64], [0.9, 0.9]]), *(np.full(2, t) for t in (3, 5, 1))
    one, two = (ModelAnswers(model).open(each).ask(*query) for each in (clip, replace(clip, rgb=changed)))
    np.testing.assert_array_equal(resize(clip.rgb[3], 32), resize(changed[3], 32))
    assert np.abs(one.xyz[0] - two.xyz[0]).max() > 1e-4
    np.testing.assert_array_equal(one.xyz[1], two.xyz[1])


def test_the_shape_of_the_picture_is_told(model):
    rgb = np.full((3, 40, 40, 3), 100, np.uint8)
    wide = np.full((3, 40, 60, 3), 100, np.uint8)
    query = np.full((1, 2), 0.5), *(np.zeros(1, int) for _ in range(3))
    one, two = (
        ModelAnswers(model).open(ClipFrames(each, np.arange(3.0), np.arange(3))).ask(*query)
        for each in (rgb, wide)
    )
    assert np.abs(one.xyz - two.xyz).max() > 1e-5


@pytest.mark.parametrize(("compile", "sizes"), [(True, [32, 32, *[4] * 7]), (False, [32, 32, 26])])
def test_what_is_left_over_is_not_filled_up_to_a_whole_chunk(model, monkeypatch, compile, sizes):
    monkeypatch.setattr(torch, "compile", lambda function, **_: function)
    answers, seen = ModelAnswers(model, chunk=32, compile=compile), []
    decode = answers._decode
    answers._decode = lambda memory, uv, *rest: seen.append(uv.shape[1]) or decode(memory, uv, *rest)
    answers.open(make_clip()).ask(*(part[:90] for part in make_query()))
    assert seen == sizes


def test_compiled_code_sees_two_sizes(model, monkeypatch):
    shapes, options = set(), []

    def compiler(function, **given):
        options.append(given)

        def compiled(memory, uv, *rest):
            shapes.add(tuple((tuple(each.shape), each.stride()) for each in (uv, *rest)))
            return function(memory, uv, *rest)

        return compiled

    monkeypatch.setattr(torch, "compile", compiler)
    opened = ModelAnswers(model, chunk=32, compile=True).open(make_clip())
    for count in (100, 7, 32):
        opened.ask(*(part[:count] for part in make_query()))
    assert options == [{"dynamic": False}] and len(shapes) == 2, "strides too, or it is compiled anew"
    for size, one in zip((4, 32), sorted(shapes), strict=True):
        assert [shape for shape, _ in one] == [(1, size, 2), *[(1, size)] * 3, (1, size, 3, 9, 9)]


def test_a_window_of_a_model(model):
    """It runs from end to end; an untrained model knows nothing, so nothing is said of the values."""
    clip = ModelAnswers(model, chunk=256).open(make_clip())
    params = InferParams(
        window=8, overlap=2, depth_size=9, motion_size=6, camera_grid=6, dense=True, dense_size=6
    )
    window = reconstruct_window(clip, params)
    assert window.z_depth.shape == (7, 6, 9) and window.dense is not None
    again = reconstruct_window(clip, params)
    np.testing.assert_array_equal(window.world_from_cam, again.world_from_cam)


def test_what_is_said_of_a_model(model):
    about = ModelAnswers(model, chunk=5).describe()
    assert about["name"] == "D4RT" and about["chunk"] == 5 and about["weights_sha256"] is None
    for options in ({"precision": "fp8"}, {"chunk": 0}, {"device": "tpu"}):
        with pytest.raises(UsageError):
            ModelAnswers(model, **options)
