"""The torch wrapper's own logic with a stand-in for torch, and the real thing where torch is installed."""

from __future__ import annotations

import pickle
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest

from datakit.errors import UsageError
from datakit.stream import torch_dataset as module

from .rank_main import MIXTURE, fingerprints, open_stream

OPTIONS: dict[str, Any] = {"batch_size": 4, "clip_frames": 6, "size": 24, "num_queries": 32, "seed": 5}


class Memory:
    """What `torch.empty` gives, as far as it is used."""

    def __init__(self, size: int, dtype: Any) -> None:
        self._array = np.empty(size, dtype)

    def share_memory_(self) -> Memory:
        return self

    def numpy(self) -> Any:
        return self._array


def sent(batch: Any) -> Any:
    """As a loader sends it from a worker."""
    return pickle.loads(pickle.dumps(batch))


@pytest.fixture
def stand_in(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """Just enough of torch: the base class, from_numpy, shared memory and worker infos."""
    data = ModuleType("torch.utils.data")
    worker = SimpleNamespace(info=None)
    data.IterableDataset = type("IterableDataset", (), {})  # type: ignore[attr-defined]
    data.get_worker_info = lambda: worker.info  # type: ignore[attr-defined]
    utils, torch = ModuleType("torch.utils"), ModuleType("torch")
    torch.utils, utils.data = utils, data  # type: ignore[attr-defined]
    torch.from_numpy = lambda array: array  # type: ignore[attr-defined]
    torch.empty, torch.uint8 = Memory, np.uint8  # type: ignore[attr-defined]
    for name, value in (("torch", torch), ("torch.utils", utils), ("torch.utils.data", data)):
        monkeypatch.setitem(sys.modules, name, value)
    module._dataset_class.cache_clear()
    yield worker
    module._dataset_class.cache_clear()


def whole(shard_root: Path, steps: int) -> list[list[str]]:
    run = open_stream(shard_root)
    return [fingerprints(next(run)) for _ in range(steps)]


def test_workers_of_a_loader_part_the_steps_in_its_own_order(
    shard_root: Path, stand_in: SimpleNamespace
) -> None:
    dataset = module.torch_dataset(shard_root, MIXTURE, num_steps=8, **OPTIONS)
    copies = [pickle.loads(pickle.dumps(dataset)) for _ in range(3)]
    made = []
    for number, copy in enumerate(copies):
        stand_in.info = SimpleNamespace(id=number, num_workers=3)
        made.append([fingerprints(sent(batch)) for batch in copy])
    in_turn = [made[step % 3][step // 3] for step in range(8)]
    assert in_turn == whole(shard_root, 8)


def test_a_worker_resumes_where_it_was(shard_root: Path, stand_in: SimpleNamespace) -> None:
    stand_in.info = SimpleNamespace(id=1, num_workers=2)
    dataset = module.torch_dataset(shard_root, MIXTURE, **OPTIONS)
    walk = iter(dataset)
    next(walk)
    state = dataset.state_dict()
    again = module.torch_dataset(shard_root, MIXTURE, **OPTIONS)
    again.load_state_dict(state)
    assert fingerprints(sent(next(iter(again)))) == fingerprints(sent(next(walk))) == whole(shard_root, 4)[3]


def test_one_integer_resumes_without_workers(shard_root: Path, stand_in: SimpleNamespace) -> None:
    dataset = module.torch_dataset(shard_root, MIXTURE, **OPTIONS)
    assert dataset.state_dict()["step"] == 0
    walk = iter(dataset)
    next(walk), next(walk)
    state = dataset.state_dict()
    assert state["step"] == 2
    again = module.torch_dataset(shard_root, MIXTURE, **OPTIONS)
    again.load_state_dict(state)
    copy = pickle.loads(pickle.dumps(again))  # a loader with workers pickles it
    assert fingerprints(next(iter(copy))) == whole(shard_root, 3)[2]


def test_its_own_workers_are_refused(shard_root: Path, stand_in: SimpleNamespace) -> None:
    with pytest.raises(UsageError, match="DataLoader"):
        module.torch_dataset(shard_root, workers=2, **OPTIONS)


def test_without_torch_the_extra_is_named(shard_root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("torch", "torch.utils", "torch.utils.data"):
        monkeypatch.setitem(sys.modules, name, None)  # as if it were not installed
    module._dataset_class.cache_clear()
    with pytest.raises(UsageError, match=r"datakit\[torch\]"):
        module.torch_dataset(shard_root, **OPTIONS)
    with pytest.raises(UsageError, match=r"datakit\[torch\]"):
        module.to_torch({"a": np.zeros(1)})
