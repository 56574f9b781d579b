"""Shards that take a second to make and a model that takes milliseconds a step."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch", reason="the torch extra is not installed")

from datakit.scene import write_scene
from datakit.shards import PackParams, pack
from datakit.train import TrainConfig
from datakit.train.config import parse_config
from datakit.worlds import random_world
from datakit.worlds.scene import world_scene_stream

SIZE, FRAMES = 16, 4


def make_shards(root: Path, name: str, seeds: range) -> Path:
    for seed in seeds:
        world = random_world(seed, num_frames=6, size=(32, 24), motion="rigid")
        write_scene(root / f"{name}{seed:03d}.h5", world_scene_stream(world))
    pack(sorted(root.glob(f"{name}*.h5")), root / name, params=PackParams(min_level="none"), progress=False)
    return root / name


@pytest.fixture(scope="session")
def shards(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("train-shards")
    return {
        "train": make_shards(root, "train", range(4)),
        "other": make_shards(root, "other", range(20, 21)),
        "held-out": make_shards(root, "held-out", range(10, 12)),
    }


@pytest.fixture(scope="session")
def raw_config(shards: dict[str, Path]) -> dict[str, Any]:
    return {
        "model": {
            "name": "tiny",
            "image_size": SIZE,
            "num_frames": FRAMES,
            "encoder_width": 24,
            "encoder_heads": 2,
            "encoder_depth": 2,
            "encoder_hidden": 48,
            "decoder_width": 24,
            "decoder_heads": 2,
            "decoder_depth": 2,
        },
        "data": {"shards": [str(shards["train"])], "batch_size": 4, "queries": 24, "workers": 0, "seed": 3},
        "loss": {"reduction": "valid"},
        "optim": {"steps": 12, "warmup_steps": 3, "lr": 3e-3, "ema_decay": 0.9},
        "execution": {"precision": "fp32", "threads": 1, "device": "cpu"},
        "validation": {"shards": [str(shards["held-out"])], "every": 6, "queries": 16, "batch_size": 2},
        "checkpoint": {"every": 4, "keep_last": 2},
        "log": {"every": 4},
    }


@pytest.fixture
def config_of(raw_config: dict[str, Any]) -> Any:
    """Make a configuration; `section__field=value` changes it."""

    def make(**changes: Any) -> TrainConfig:
        return parse_config(changed(raw_config, **changes))

    return make


def changed(raw: dict[str, Any], **changes: Any) -> dict[str, Any]:
    out = copy.deepcopy(raw)
    for name, value in changes.items():
        section, field = name.split("__")
        out.setdefault(section, {})[field] = value
    return out


def logged(out: Path, name: str = "steps.jsonl") -> list[dict[str, Any]]:
    return [json.loads(line) for line in (out / name).read_text().splitlines()]
