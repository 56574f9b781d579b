"""Queries are alone, masked frames are not there, and nothing is clamped in silence."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel

from datakit.d4rt import CONFIGS, D4RT
from datakit.d4rt.layers import Colours
from datakit.errors import UsageError
from tests.d4rt.samples import SMALL, assert_same, make_model, make_query, make_video, part_of

RATIO = torch.tensor([1.5, 0.7])


@pytest.fixture(scope="module")
def model() -> D4RT:
    return make_model()


@pytest.fixture(autouse=True)
def no_gradients():
    with torch.no_grad():
        yield


@pytest.mark.parametrize("name", ["tiny", "small"])
def test_shapes(name: str):
    config = CONFIGS[name]
    torch.manual_seed(0)
    frames, size = min(config.num_frames, 4), config.image_size
    answer = D4RT(config)(make_video(1, frames, size), None, torch.ones(1), make_query(1, 5, frames))
    shapes = {key: tuple(value.shape) for key, value in answer.items()}
    assert shapes == {
        "xyz": (1, 5, 3),
        "uv": (1, 5, 2),
        "visible": (1, 5),
        "displacement": (1, 5, 3),
        "normal": (1, 5, 3),
        "confidence": (1, 5),
    }
    assert all(value.dtype == torch.float32 for value in answer.values())
    assert (answer["confidence"] > 0).all()
    torch.testing.assert_close(answer["normal"].norm(dim=-1), torch.ones(1, 5))


def test_the_start_is_a_point_ahead(model: D4RT):
    torch.manual_seed(3)
    answer = D4RT(SMALL)(make_video(), None, RATIO, make_query())
    assert (answer["xyz"][..., 2] - 1).abs().max() < 0.6
    assert (answer["uv"] - 0.5).abs().max() < 0.6


def test_confidence_stays_positive_and_finite():
    for activation in ("sigmoid", "exp"):
        model = make_model(confidence=activation)
        for bias in (-1e4, 1e4):
            model.head.linear.bias[-1] = bias
            confidence = model(make_video(), None, RATIO, make_query())["confidence"]
            assert (confidence > 0).all() and confidence.log().isfinite().all()


# Queries are alone.


def test_the_order_of_queries_does_not_matter(model: D4RT):
    video, query = make_video(), make_query()
    order = torch.randperm(33, generator=torch.Generator().manual_seed(5))
    answer = model(video, None, RATIO, query)
    mixed = model(video, None, RATIO, part_of(query, slice(None), order))
    assert_same({name: value[:, order] for name, value in answer.items()}, mixed)


@pytest.mark.parametrize("chunk", [1, 7, 512])
def test_chunks_do_not_matter(model: D4RT, chunk: int):
    query = make_query(count=40)
    memory = model.encode(make_video(), None, RATIO)
    assert_same(model.decode(memory, query), model.decode(memory, query, chunk=chunk))


def test_in_float64_chunks_agree_to_its_precision():
    model, query = make_model().double(), make_query(count=40)
    query["uv"] = query["uv"].double()
    memory = model.encode(make_video(), None, RATIO.double())
    answer = model.decode(memory, query)
    assert answer["xyz"].dtype == torch.float64
    for chunk in (1, 7):
        assert_same(answer, model.decode(memory, query, chunk=chunk), tolerance=1e-14)


def test_a_query_does_not_see_another(model: D4RT):
    video, query = make_video(), make_query()
    changed = {name: value.clone() for name, value in query.items()}
    changed["uv"][:, 1:] = 0.5
    changed["t_tgt"][:, 1:] = 0
    first = {name: value[:, :1] for name, value in model(video, None, RATIO, query).items()}
    assert_same(first, {name: value[:, :1] for name, value in model(video, None, RATIO, changed).items()})


def test_a_batch_of_two_is_two_runs(model: D4RT):
    video, query = make_video(), make_query()
    both = model(video, None, RATIO, query)
    for row in range(2):
        alone = model(video[row : row + 1], None, RATIO[row : row + 1], part_of(query, slice(row, row + 1)))
        assert_same({name: value[row : row + 1] for name, value in both.items()}, alone)


def test_every_part_of_a_query_matters(model: D4RT):
    video, query = make_video(), make_query()
    answer = model(video, None, RATIO, query)["xyz"]
    patch = torch.zeros((2, 33, 3, 9, 9), dtype=torch.uint8)
    for name, other in (
        ("uv", query["uv"].roll(1, 1)),
        ("t_tgt", (query["t_tgt"] + 1) % 8),
        ("t_cam", (query["t_cam"] + 1) % 8),
        ("t_src", (query["t_src"] + 1) % 8),
        ("patch", patch),
    ):
        changed = model(video, None, RATIO, query | {name: other})["xyz"]
        assert ((changed - answer).abs().amax(dim=-1) > 1e-4).all(), name


def test_the_three_times_are_told_apart(model: D4RT):
    """If two of them shared a table, (0, 1, 2) and one of its exchanges would sum to the same token."""
    patch = torch.zeros((2, 1, 3, 9, 9), dtype=torch.uint8)
    answers = []
    for times in ((0, 1, 2), (2, 1, 0), (1, 0, 2), (0, 2, 1)):
        query = {"uv": torch.full((2, 1, 2), 0.5), "patch": patch} | {
            name: torch.full((2, 1), t) for name, t in zip(("t_src", "t_tgt", "t_cam"), times, strict=True)
        }
        answers.append(model(make_video(), None, RATIO, query)["xyz"])
    for other in answers[1:]:
        assert (answers[0] - other).abs().max() > 1e-3


# Keys and values are kept.


@pytest.mark.parametrize("masked", [False, True])
def test_kept_keys_and_values_give_the_same_bits(model: D4RT, masked: bool):
    mask = torch.ones(2, 8, dtype=torch.bool)
    if masked:
        mask[0, 5:] = False
    memory = model.encode(make_video(), mask, RATIO)
    assert (memory.mask is not None) == masked
    query = make_query()
    kept = model.keys_values(memory)
    assert_same(model.decode(memory, query), model.decode(kept, query), tolerance=0)
    # Not keeping them: projected again for each chunk.
    chunks = [model.decode(memory, part_of(query, slice(None), slice(at, at + 7))) for at in range(0, 33, 7)]
    again = {name: torch.cat([chunk[name] for chunk in chunks], dim=1) for name in chunks[0]}
    assert_same(again, model.decode(kept, query, chunk=7), tolerance=0)


# Masked frames are not there.


@pytest.mark.parametrize("frames", [1, 5, 6])
def test_padding_does_not_matter(model: D4RT, frames: int):
    """A 5-frame clip alone, and padded to 8 with frames of noise."""
    alone, query = make_video(2, frames), make_query(frames=frames)
    padded = torch.cat([alone, make_video(2, 8 - frames, seed=9)], dim=1)
    mask = torch.zeros(2, 8, dtype=torch.bool)
    mask[:, :frames] = True
    answer = model(alone, None, RATIO, query)
    assert_same(answer, model(padded, mask, RATIO, query))
    # And without the mask it would matter.
    assert (model(padded, None, RATIO, query)["xyz"] - answer["xyz"]).abs().max() > 1e-3


def test_masked_content_does_not_matter_to_the_last_bit(model: D4RT):
    mask = torch.tensor([[True] * 5 + [False] * 3, [True] * 8])
    query = make_query(frames=5)
    video = make_video().float() / 255
    poisoned = video.clone()
    poisoned[0, 5:] = float("nan")
    assert_same(model(video, mask, RATIO, query), model(poisoned, mask, RATIO, query), tolerance=0)


def test_a_hole_in_the_middle_is_masked_too(model: D4RT):
    """Frames 2 and 3 fill a slice: the tokens of that slice may not be seen by anything."""
    mask = torch.tensor([[True, True, False, False, True, True, True, True]] * 2)
    memory = model.encode(make_video(), mask, RATIO)
    spatial = SMALL.grid**2
    slices = memory.mask[:, :-1].view(2, 4, spatial)
    assert slices.all(dim=2).tolist() == [[True, False, True, True]] * 2
    assert slices.any(dim=2).tolist() == [[True, False, True, True]] * 2
    other = make_video()
    other[:, 2:4] = 0
    assert_same(
        model.decode(memory, make_query(frames=2)),
        model.decode(model.encode(other, mask, RATIO), make_query(frames=2)),
        tolerance=0,
    )


def test_a_clip_without_any_frame_is_finite(model: D4RT):
    """A failed sample of the stream keeps its place with all masks false."""
    mask = torch.tensor([[False] * 8, [True] * 8])
    answer = model(make_video(), mask, RATIO, make_query())
    assert all(value.isfinite().all() for value in answer.values())


def test_the_last_frame_of_an_odd_clip_counts(model: D4RT):
    """OpenD4RT drops it."""
    video, query = make_video(2, 5), make_query(frames=4)
    other = video.clone()
    other[:, 4] = 255 - other[:, 4]
    changed = model(other, None, RATIO, query)["xyz"] - model(video, None, RATIO, query)["xyz"]
    assert changed.abs().max() > 1e-4


def test_videos_may_lie_in_memory_as_images_do(model: D4RT):
    """Colours innermost, as decoders give them."""
    video = make_video()
    permuted = video.permute(0, 1, 3, 4, 2).contiguous().permute(0, 1, 4, 2, 3)
    assert not permuted.is_contiguous()
    assert_same(
        model(video, None, RATIO, make_query()), model(permuted, None, RATIO, make_query()), tolerance=0
    )


def test_a_mask_of_all_frames_is_no_mask(model: D4RT):
    """So that flash attention, which takes none, can be used."""
    everything = torch.ones(2, 8, dtype=torch.bool)
    assert model.encode(make_video(), everything, RATIO).mask is None
    with sdpa_kernel(SDPBackend.FLASH_ATTENTION):
        model(make_video(), everything, RATIO, make_query())


# Local and global layers.


def test_slices_meet_only_in_odd_layers():
    """With one layer, a slice knows nothing of another; with two it does. The aspect ratio comes in with the second."""
    video, other = make_video(1), make_video(1)
    other[:, 6:] = 0
    for depth, meets in ((1, False), (2, True)):
        encoder = make_model(encoder_depth=depth).encoder
        a, _ = encoder(video, None, RATIO[:1])
        b, _ = encoder(other, None, RATIO[:1])
        spatial = SMALL.grid**2
        first_slice = (a - b)[:, :spatial].abs().max()
        assert (first_slice > 1e-6) == meets
        last_token = (a - b)[:, -1].abs().max()  # the aspect ratio's: has it looked at the video?
        assert (last_token > 1e-6) == meets
        c, _ = encoder(video, None, RATIO[1:])
        assert ((a - c)[:, :-1].abs().max() > 1e-6) == meets
        assert (a - c)[:, -1].abs().max() > 1e-3


def test_aspect_ratio_matters(model: D4RT):
    video, query = make_video(), make_query()
    a, b = (model(video, None, ratio, query)["xyz"] for ratio in (RATIO, RATIO.flip(0)))
    assert (a - b).abs().max() > 1e-4


def test_tokens_are_those_of_a_3d_convolution(model: D4RT):
    video = Colours()(make_video())
    embedding = model.encoder.patch_embed
    wanted = F.conv3d(
        video.transpose(1, 2),
        embedding.proj.weight,
        embedding.proj.bias,
        stride=(2, SMALL.patch, SMALL.patch),
    )
    torch.testing.assert_close(
        embedding(video), wanted.permute(0, 2, 3, 4, 1).flatten(2, 3), atol=2e-5, rtol=1e-5
    )


def test_colours_are_normalised_as_videomae_has_them(model: D4RT):
    video = make_video()
    mean, deviation = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    wanted = (video / 255 - mean[:, None, None]) / deviation[:, None, None]
    torch.testing.assert_close(Colours()(video), wanted)
    assert_same(
        model(video, None, RATIO, make_query()),
        model(video.float() / 255, None, RATIO, make_query()),
        tolerance=1e-5,
    )


# Errors.


def test_times_outside_the_clip_are_errors(model: D4RT):
    """OpenD4RT clamps them."""
    video = make_video()
    for name in ("t_src", "t_tgt", "t_cam"):
        for bad in (-1, 8):
            query = make_query()
            query[name][1, 3] = bad
            with pytest.raises(UsageError, match=name):
                model(video, None, RATIO, query)
    with pytest.raises(UsageError, match="0 to 4"):
        model(video[:, :5], None, RATIO, make_query())


@pytest.mark.parametrize("bad", [-0.01, 1.01, float("nan")])
def test_places_outside_the_image_are_errors(model: D4RT, bad: float):
    query = make_query()
    query["uv"][0, 5, 1] = bad
    with pytest.raises(UsageError, match="uv"):
        model(make_video(), None, RATIO, query)


def test_more_frames_than_times_are_an_error(model: D4RT):
    with pytest.raises(UsageError, match="more frames"):
        model(make_video(2, 9), None, RATIO, make_query())


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("video", torch.zeros(2, 8, 3, 48, 48, dtype=torch.uint8), "video does not fit"),
        ("video", torch.zeros(2, 8, 3, 32, 32, dtype=torch.int64), "wrong type"),
        ("mask", torch.ones(2, 7, dtype=torch.bool), "frame_mask"),
        ("mask", torch.ones(2, 8), "frame_mask"),
        ("ratio", torch.ones(3), "aspect_ratio"),
        ("ratio", torch.tensor([1.0, 0.0]), "positive"),
        ("uv", torch.zeros(2, 33, 3), "uv"),
        ("t_cam", torch.zeros(2, 32, dtype=torch.int64), "t_cam"),
        ("patch", torch.zeros(2, 33, 3, 8, 8, dtype=torch.uint8), "patch"),
    ],
)
def test_shapes_and_values_that_do_not_fit(model: D4RT, field: str, value: torch.Tensor, message: str):
    arguments = {"video": make_video(), "mask": torch.ones(2, 8, dtype=torch.bool), "ratio": RATIO}
    query = make_query()
    (arguments if field in arguments else query)[field] = value
    with pytest.raises(UsageError, match=message):
        model(arguments["video"], arguments["mask"], arguments["ratio"], query)


def test_a_missing_field_and_a_bad_chunk_are_named(model: D4RT):
    query = make_query()
    del query["t_tgt"]
    with pytest.raises(UsageError, match="t_tgt"):
        model(make_video(), None, RATIO, query)
    with pytest.raises(UsageError, match="chunk"):
        model.decode(model.encode(make_video(), None, RATIO), make_query(), chunk=0)


# Training.


def test_checkpointing_changes_nothing_but_memory():
    gradients = []
    for keeps in (False, True):
        model = make_model(activation_checkpointing=keeps).train()
        saved: list[int] = []
        with (
            torch.enable_grad(),
            torch.autograd.graph.saved_tensors_hooks(
                lambda x, saved=saved: saved.append(x.numel()) or x, lambda x: x
            ),
        ):
            answer = model(make_video(), None, RATIO, make_query())
            sum(value.sum() for value in answer.values()).backward()
        gradients.append(({name: p.grad for name, p in model.named_parameters()}, sum(saved)))
    assert_same(gradients[0][0], gradients[1][0])
    assert gradients[1][1] < 0.5 * gradients[0][1]


def test_every_parameter_learns():
    model = make_model().train()
    with torch.enable_grad():
        answer = model(make_video(), None, RATIO, make_query())
        sum((value**2).sum() for value in answer.values()).backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None and parameter.grad.isfinite().all(), name
        assert parameter.grad.abs().max() > 0, name


@pytest.mark.slow
@pytest.mark.parametrize("keeps", [False, True])
def test_one_graph_compiles(keeps: bool):
    """No data-dependent Python: the whole forward is one graph, also with checkpointing."""
    model = make_model(encoder_depth=2, decoder_depth=1, activation_checkpointing=keeps)
    compiled = torch.compile(model, backend="eager", fullgraph=True)
    mask = torch.tensor([[True] * 5 + [False] * 3, [True] * 8])
    for frame_mask in (None, mask):
        arguments = (make_video(), frame_mask, RATIO, make_query(frames=5))
        with torch.set_grad_enabled(keeps):
            wanted, found = model(*arguments), compiled(*arguments)
        assert_same(*({name: value.detach() for name, value in answer.items()} for answer in (wanted, found)))


def test_bfloat16_autocast_is_close(model: D4RT):
    video, query = make_video(), make_query()
    answer = model(video, None, RATIO, query)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        rough = model(video, None, RATIO, query)
    for name, value in rough.items():
        assert value.dtype == torch.float32
        assert (value - answer[name]).abs().max() < 0.1 * answer[name].abs().max(), name


def test_a_model_in_bfloat16_answers_in_float32():
    rough = make_model().bfloat16()
    answer = make_model()(make_video(), None, RATIO, make_query())
    for name, value in rough(make_video(), None, RATIO, make_query()).items():
        assert value.dtype == torch.float32
        assert (value - answer[name]).abs().max() < 0.2 * answer[name].abs().max(), name


def test_the_same_seed_draws_the_same_weights_also_after_meta():
    """A sharded trainer builds on the meta device, allocates, and then draws."""
    torch.manual_seed(4)
    one = D4RT(SMALL)
    with torch.device("meta"):
        two = D4RT(SMALL)
    two.to_empty(device="cpu")
    torch.manual_seed(4)
    two.init_weights()
    assert torch.equal(one.encoder.positions, two.encoder.positions)
    for (name, p), q in zip(one.named_parameters(), two.parameters(), strict=True):
        assert torch.equal(p, q), name


def test_positions_are_no_part_of_a_checkpoint():
    assert not any("positions" in name for name in make_model().state_dict())
