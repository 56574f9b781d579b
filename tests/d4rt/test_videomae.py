"""VideoMAE V2 checkpoints, made up in the layout of the real ones (names from OpenGVLab/VideoMAEv2)."""

from __future__ import annotations

import argparse
import builtins
import os
import sys
import types
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import save_file

from datakit.d4rt import CONFIGS, D4RT, ModelConfig, load_videomae
from datakit.d4rt.videomae import resize_kernel
from datakit.errors import ConventionError, FormatError, LayoutError, UsageError

#: A ViT-g in small: patch 14, 16 tokens a side at 224, MLP ratio 48/11.
SMALL_G = replace(
    CONFIGS["paper"],
    image_size=64,
    encoder_width=22,
    encoder_depth=3,
    encoder_heads=2,
    encoder_hidden=96,
    decoder_width=16,
    decoder_depth=1,
    decoder_heads=2,
)


def pretrained(width: int = 22, depth: int = 3, hidden: int = 96, patch: int = 14) -> dict[str, torch.Tensor]:
    """State of `pretrain_videomae_giant_patch14_224` (models/modeling_pretrain.py), with small sizes.

    Biases of q and v are apart, keys have none; positions are computed and not in the state.
    """
    generator = torch.Generator().manual_seed(7)

    def draw(*shape: int) -> torch.Tensor:
        return torch.randn(shape, generator=generator)

    def block(prefix: str, width: int, hidden: int) -> dict[str, torch.Tensor]:
        shapes = {
            "norm1.weight": (width,),
            "norm1.bias": (width,),
            "attn.q_bias": (width,),
            "attn.v_bias": (width,),
            "attn.qkv.weight": (3 * width, width),
            "attn.proj.weight": (width, width),
            "attn.proj.bias": (width,),
            "norm2.weight": (width,),
            "norm2.bias": (width,),
            "mlp.fc1.weight": (hidden, width),
            "mlp.fc1.bias": (hidden,),
            "mlp.fc2.weight": (width, hidden),
            "mlp.fc2.bias": (width,),
        }
        return {prefix + name: draw(*shape) for name, shape in shapes.items()}

    state = {"mask_token": draw(1, 1, 8)}
    state |= {
        "encoder.patch_embed.proj.weight": draw(width, 3, 2, patch, patch),
        "encoder.patch_embed.proj.bias": draw(width),
    }
    for number in range(depth):
        state |= block(f"encoder.blocks.{number}.", width, hidden)
    state |= {"encoder.norm.weight": draw(width), "encoder.norm.bias": draw(width)}
    for number in range(2):
        state |= block(f"decoder.blocks.{number}.", 8, 32)
    state |= {"decoder.norm.weight": draw(8), "decoder.norm.bias": draw(8)}
    state |= {"decoder.head.weight": draw(1176, 8), "decoder.head.bias": draw(1176)}
    return state | {"encoder_to_decoder.weight": draw(8, width)}


def finetuned(**sizes: int) -> dict[str, torch.Tensor]:
    """State of a `vit_giant_patch14_224` that was fine-tuned (models/modeling_finetune.py): no prefix, `fc_norm`."""
    state = {
        name.removeprefix("encoder."): value
        for name, value in pretrained(**sizes).items()
        if name.startswith("encoder.") and ".norm.w" not in name and ".norm.b" not in name
    }
    return state | {
        "fc_norm.weight": torch.ones(22),
        "fc_norm.bias": torch.zeros(22),
        "head.weight": torch.ones(4, 22),
    }


def write(path: Path, holder: str | None = "model", prefix: str = "", state: dict | None = None) -> Path:
    content: Any = {prefix + name: value for name, value in (state or pretrained()).items()}
    if holder is not None:
        # What their utils.save_model stores beside the weights.
        content = {holder: content, "epoch": 1199, "args": argparse.Namespace(model="giant", lr=6e-4)}
    torch.save(content, path)
    return path


def make(config: ModelConfig = SMALL_G) -> D4RT:
    torch.manual_seed(0)
    return D4RT(config)


@pytest.mark.parametrize(
    ("holder", "prefix"),
    [
        ("model", ""),
        ("module", ""),
        ("module", "module."),
        (None, ""),
        (None, "_orig_mod."),
        ("state_dict", "backbone."),
    ],
)
def test_every_encoder_tensor_is_found(tmp_path: Path, holder: str | None, prefix: str):
    model, state = make(), pretrained()
    report = load_videomae(model, write(tmp_path / "vit_g.pth", holder, prefix))
    assert (report.count("loaded"), report.count("resized"), report.count("missing")) == (3 * 12 + 3, 1, 0)
    unexpected = {row.source for row in report.tensors if row.status == "unexpected"}
    wanted = {prefix + name for name in state if not name.startswith("encoder.")}
    assert unexpected == wanted and report.count("unexpected") == 2 * 13 + 6
    block = model.encoder.blocks[1]
    torch.testing.assert_close(
        block.attn.qkv.weight, state["encoder.blocks.1.attn.qkv.weight"], atol=0, rtol=0
    )
    bias = block.attn.qkv.bias.detach()
    torch.testing.assert_close(bias[:22], state["encoder.blocks.1.attn.q_bias"], atol=0, rtol=0)
    assert (bias[22:44] == 0).all()
    torch.testing.assert_close(bias[44:], state["encoder.blocks.1.attn.v_bias"], atol=0, rtol=0)
    torch.testing.assert_close(model.encoder.norm.weight, state["encoder.norm.weight"], atol=0, rtol=0)


def test_a_loaded_encoder_layer_computes_what_theirs_does(tmp_path: Path):
    """The formulas of their Block and Attention, written out: scaled products, softmax, residuals, eps 1e-6."""
    model, state = make(), pretrained()
    load_videomae(model, write(tmp_path / "vit_g.pth"))
    of = {name.removeprefix("encoder.blocks.2."): value for name, value in state.items()}
    x = torch.randn(2, 5, 22, generator=torch.Generator().manual_seed(1))
    y = F.layer_norm(x, (22,), of["norm1.weight"], of["norm1.bias"], eps=1e-6)
    bias = torch.cat([of["attn.q_bias"], torch.zeros(22), of["attn.v_bias"]])
    q, k, v = F.linear(y, of["attn.qkv.weight"], bias).view(2, 5, 3, 2, 11).permute(2, 0, 3, 1, 4)
    weights = ((q * 11**-0.5) @ k.transpose(-2, -1)).softmax(dim=-1)
    x1 = x + F.linear(
        (weights @ v).transpose(1, 2).reshape(2, 5, 22), of["attn.proj.weight"], of["attn.proj.bias"]
    )
    y = F.layer_norm(x1, (22,), of["norm2.weight"], of["norm2.bias"], eps=1e-6)
    hidden = F.gelu(F.linear(y, of["mlp.fc1.weight"], of["mlp.fc1.bias"]))
    wanted = x1 + F.linear(hidden, of["mlp.fc2.weight"], of["mlp.fc2.bias"])
    with torch.no_grad():
        torch.testing.assert_close(model.encoder.blocks[2](x), wanted, atol=1e-3, rtol=1e-5)


def test_safetensors_of_the_hub_layout(tmp_path: Path):
    """OpenGVLab/VideoMAEv2-*: names begin with `model.`, the last norm is `fc_norm` of the mean token."""
    path = tmp_path / "model.safetensors"
    save_file({f"model.{name}": value for name, value in finetuned().items()}, path)
    report = load_videomae(make(), path)
    assert {row.name for row in report.tensors if row.status == "missing"} == {"norm.weight", "norm.bias"}
    assert {row.source for row in report.tensors if row.status == "unexpected"} == {
        "model.fc_norm.weight",
        "model.fc_norm.bias",
        "model.head.weight",
    }


def test_the_report_names_every_tensor(tmp_path: Path):
    model = make()
    path = write(tmp_path / "vit_g.pth")
    report = load_videomae(model, path)
    table = report.table()
    print(table)
    for name, _ in model.encoder.named_parameters():
        assert name.startswith("aspect.") or any(line.split()[1] == name for line in table.splitlines()[2:])
    for name in pretrained():
        assert name in table
    assert f"{path}: 39 loaded, 1 resized, 0 missing, 32 unexpected" in table
    line = next(line for line in table.splitlines() if line.startswith("resized"))
    kernel = "patch_embed.proj.weight"
    assert line.split() == ["resized", kernel, "22x3x2x16x16", f"encoder.{kernel}", "22x3x2x14x14"]
    assert "encoder.blocks.0.attn.q_bias + encoder.blocks.0.attn.v_bias" in table


def test_other_depths_are_reported(tmp_path: Path):
    path = write(tmp_path / "vit_g.pth")
    deeper = load_videomae(make(replace(SMALL_G, encoder_depth=4)), path)
    assert {row.name.split(".")[1] for row in deeper.tensors if row.status == "missing"} == {"3"}
    shallower = load_videomae(make(replace(SMALL_G, encoder_depth=2)), path)
    left = {row.source for row in shallower.tensors if row.status == "unexpected"}
    assert shallower.count("missing") == 0 and "encoder.blocks.2.attn.q_bias" in left


def test_only_one_of_the_two_biases_is_not_enough(tmp_path: Path):
    state = pretrained()
    del state["encoder.blocks.0.attn.v_bias"]
    report = load_videomae(make(), write(tmp_path / "vit_g.pth", state=state))
    assert [row.name for row in report.tensors if row.status == "missing"] == ["blocks.0.attn.qkv.bias"]
    assert "encoder.blocks.0.attn.q_bias" in {
        row.source for row in report.tensors if row.status == "unexpected"
    }


def test_the_rest_of_the_model_is_not_touched(tmp_path: Path):
    model, before = make(), make().state_dict()
    load_videomae(model, write(tmp_path / "vit_g.pth"))
    for name, value in model.state_dict().items():
        changed = name.startswith("encoder.") and not name.startswith("encoder.aspect.")
        assert torch.equal(value, before[name]) != changed, name


# The kernel's size.


def test_a_resized_kernel_says_the_same_of_an_enlarged_image():
    kernel = torch.randn(5, 3, 2, 14, 14, generator=torch.Generator().manual_seed(0))
    patch = torch.randn(4, 3, 2, 14, 14, generator=torch.Generator().manual_seed(1))
    enlarged = F.interpolate(patch.flatten(0, 1), size=16, mode="bilinear", align_corners=False)
    enlarged = enlarged.unflatten(0, (4, 3))
    wanted = torch.einsum("octij,bctij->bo", kernel, patch)
    found = torch.einsum("octij,bctij->bo", resize_kernel(kernel, 16), enlarged)
    torch.testing.assert_close(found, wanted, atol=2e-4, rtol=1e-5)
    assert resize_kernel(kernel, 16).sum() == pytest.approx(kernel.sum().item(), rel=1e-4)
    # Interpolating the kernel instead would overstate a flat image by the number of pixels.
    flat = torch.ones(1, 14, 14)
    assert F.interpolate(flat[None], size=16, mode="bilinear").sum() == pytest.approx(256)
    assert resize_kernel(flat, 16).sum() == pytest.approx(196)


def test_the_same_size_is_the_same_kernel():
    kernel = torch.randn(2, 3, 2, 16, 16)
    torch.testing.assert_close(resize_kernel(kernel, 16), kernel)


# What is refused.


def test_a_checkpoint_of_another_width_is_refused(tmp_path: Path):
    with pytest.raises(ConventionError, match=r"blocks.0.norm1|patch_embed"):
        load_videomae(make(replace(SMALL_G, encoder_width=44)), write(tmp_path / "vit_g.pth"))
    state = pretrained()
    name = "encoder.patch_embed.proj.weight"
    state[name] = state[name].repeat(1, 1, 2, 1, 1)
    with pytest.raises(ConventionError, match=r"\(22, 3, 4, 14, 14\)"):
        load_videomae(make(), write(tmp_path / "tubelet.pth", state=state))


def test_something_else_is_refused(tmp_path: Path):
    with pytest.raises(FormatError, match="no VideoMAE"):
        load_videomae(make(), write(tmp_path / "resnet.pth", state={"layer1.0.conv1.weight": torch.ones(3)}))
    torch.save([torch.ones(3)], tmp_path / "list.pth")
    with pytest.raises(FormatError, match="no table"):
        load_videomae(make(), tmp_path / "list.pth")
    for name, content in (("a.pth", b"hello"), ("a.safetensors", b"hello"), ("b.pth", b"")):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(FormatError, match=name):
            load_videomae(make(), tmp_path / name)
    whole = write(tmp_path / "vit_g.pth").read_bytes()
    (tmp_path / "cut.pth").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(FormatError, match=r"cut\.pth"):
        load_videomae(make(), tmp_path / "cut.pth")


class Runs:
    """What a hostile checkpoint holds: loading it calls a function."""

    def __init__(self, call: Callable[..., object], argument: str) -> None:
        self.call, self.argument = call, argument

    def __reduce__(self) -> tuple[Any, ...]:
        return self.call, (self.argument,)


@pytest.mark.parametrize("call", [os.mkdir, builtins.exec])
def test_a_checkpoint_cannot_run_code(tmp_path: Path, call: Callable[..., object]):
    target = tmp_path / "made"
    argument = str(target) if call is os.mkdir else f"import os; os.mkdir({str(target)!r})"
    torch.save({"model": pretrained(), "extra": Runs(call, argument)}, tmp_path / "bad.pth")
    with pytest.raises(FormatError, match=r"bad\.pth"):
        load_videomae(make(), tmp_path / "bad.pth")
    assert not target.exists()


def test_a_missing_file_is_named(tmp_path: Path):
    for source in (tmp_path / "gone.pth", "weights/gone.pth", "gone.safetensors", str(tmp_path)):
        with pytest.raises(LayoutError, match="gone|test_a_missing"):
            load_videomae(make(), source)


def test_the_hub_is_asked_through_its_own_library(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    path, asked = write(tmp_path / "downloaded.pth"), []

    def hf_hub_download(repository: str, filename: str, revision: str | None = None) -> str:
        asked.append((repository, filename, revision))
        return str(path)

    hub = types.ModuleType("huggingface_hub")
    hub.hf_hub_download = hf_hub_download  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "huggingface_hub", hub)
    report = load_videomae(make(), "OpenGVLab/VideoMAE2", "mae-g/vit_g_hybrid_pt_1200e.pth", "abc")
    assert asked == [("OpenGVLab/VideoMAE2", "mae-g/vit_g_hybrid_pt_1200e.pth", "abc")]
    assert report.source == "OpenGVLab/VideoMAE2" and report.count("missing") == 0
    load_videomae(make(), "OpenGVLab/VideoMAEv2-Base")
    assert asked[1] == ("OpenGVLab/VideoMAEv2-Base", "model.safetensors", None)


def test_without_the_hubs_library_the_extra_is_named(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(UsageError, match=r"datakit\[hub\]"):
        load_videomae(make(), "OpenGVLab/VideoMAEv2-Base")
