"""The stream through torch's own loaders, for real: the same batches, resumed exactly, nothing left behind."""

from __future__ import annotations

import gc
import json
import os
import pickle
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from datakit.errors import ShardError
from datakit.shards import open_set
from datakit.stream.torch_dataset import to_torch, torch_dataset
from tests.endpoints import serve

from .rank_main import MIXTURE, fingerprints, open_stream

torch = pytest.importorskip("torch")
from torch.utils.data import DataLoader  # noqa: E402

ROOT = Path(__file__).resolve().parents[2]
STEPS = 6
OPTIONS: dict[str, Any] = {"batch_size": 4, "clip_frames": 6, "size": 24, "num_queries": 32, "seed": 5}
#: Workers and how they are started; a spawned one imports torch anew, which takes seconds.
STARTS = [(0, None), (2, "fork"), pytest.param(2, "spawn", marks=pytest.mark.slow)]


@pytest.fixture(scope="module")
def whole(shard_root: Path) -> list[list[str]]:
    """The plain stream. It also leaves this process as a trainer's is: with OpenCV and numba in use."""
    run = open_stream(shard_root)
    return [fingerprints(next(run)) for _ in range(STEPS)]


@pytest.fixture
def shared_memory() -> Iterator[set[str]]:
    """What of shared memory is there before the test; whatever it adds must be gone after it."""
    if not Path("/dev/shm").is_dir():
        pytest.skip("this system does not list its shared memory")
    before = set(os.listdir("/dev/shm"))
    yield before
    gc.collect()
    deadline = time.monotonic() + 60  # other tests may run beside this one, and their segments go in time
    while ours(before) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not ours(before)


def ours(before: set[str]) -> set[str]:
    """New segments of Python and torch; other programs come and go as they like."""
    return {name for name in set(os.listdir("/dev/shm")) - before if name.startswith(("psm_", "torch_"))}


def dataset(root: Any, num_steps: int | None = STEPS, **options: Any) -> Any:
    return torch_dataset(root, MIXTURE, num_steps=num_steps, **(OPTIONS | options))


def loader(of: Any, workers: int, context: str | None, kind: Any = DataLoader, **options: Any) -> Any:
    return kind(of, batch_size=None, num_workers=workers, multiprocessing_context=context, **options)


def prints(batches: Any) -> list[list[str]]:
    return [fingerprints(as_arrays(batch)) for batch in batches]


def as_arrays(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: as_arrays(part) for name, part in value.items()}
    return value.numpy() if isinstance(value, torch.Tensor) else value


def tensors(value: Any) -> Iterator[Any]:
    if isinstance(value, dict):
        for part in value.values():
            yield from tensors(part)
    elif isinstance(value, torch.Tensor):
        yield value


@pytest.mark.parametrize(("workers", "context"), STARTS)
def test_a_loader_gives_the_plain_stream(
    shard_root: Path, whole: list[list[str]], shared_memory: set[str], workers: int, context: str | None
) -> None:
    made = loader(dataset(shard_root), workers, context)
    assert prints(made) == whole
    assert prints(made) == whole, "a second pass begins anew"


@pytest.mark.parametrize(("workers", "context"), [(0, None), (2, "fork")])
def test_fields_are_those_of_the_contract(shard_root: Path, workers: int, context: str | None) -> None:
    batch = next(iter(loader(dataset(shard_root), workers, context)))
    b, t, n, s = 4, 6, 32, 24
    u8, f32, f64, i64, flag = torch.uint8, torch.float32, torch.float64, torch.int64, torch.bool
    expected = {
        "video": ((b, t, 3, s, s), u8),
        "frame_mask": ((b, t), flag),
        "times": ((b, t), f64),
        "aspect_ratio": ((b,), f32),
        "query": {"uv": ((b, n, 2), f32), "patch": ((b, n, 3, 9, 9), u8), "kind": ((b, n), u8)}
        | {name: ((b, n), i64) for name in ("t_src", "t_tgt", "t_cam")},
        "target": {"xyz": ((b, n, 3), f32), "uv": ((b, n, 2), f32), "visible": ((b, n), flag)}
        | {name: ((b, n, 3), f32) for name in ("displacement", "normal")},
        "mask": {name: ((b, n), flag) for name in ("xyz", "uv", "visible", "displacement", "normal")},
        "camera": {
            "intrinsics": ((b, t, 3, 3), f64),
            "world_from_cam": ((b, t, 4, 4), f64),
            "pose_is_known": ((b, t), flag),
        },
    }

    def shapes(value: Any) -> Any:
        if isinstance(value, dict):
            return {name: shapes(part) for name, part in value.items()}
        return tuple(value.shape), value.dtype

    meta = batch.pop("meta")
    assert shapes(batch) == expected
    for name in ("key", "dataset", "scale", "licence", "certificate"):
        assert len(meta[name]) == b and all(isinstance(text, str) for text in meta[name])


@pytest.mark.parametrize("workers", [0, 2])
def test_ranks_share_the_global_batch(shard_root: Path, whole: list[list[str]], workers: int) -> None:
    context = "fork" if workers else None
    found: dict[tuple[int, int], str] = {}
    for rank in range(2):
        for batch in loader(dataset(shard_root, rank=rank, world_size=2), workers, context):
            assert batch["video"].shape[0] == 2
            slots = batch["meta"]["slot"].tolist()
            steps = batch["meta"]["step"].tolist()
            found |= dict(zip(zip(steps, slots, strict=True), prints([batch])[0], strict=True))
    assert found == {(step, slot): one for step, row in enumerate(whole) for slot, one in enumerate(row)}


@pytest.mark.parametrize(("workers", "context"), STARTS)
@pytest.mark.parametrize("every", [1, 2])
def test_a_stateful_loader_resumes_exactly(
    shard_root: Path,
    whole: list[list[str]],
    shared_memory: set[str],
    workers: int,
    context: str | None,
    every: int,
) -> None:
    kind = pytest.importorskip("torchdata.stateful_dataloader").StatefulDataLoader
    for taken in (3,) if workers else (1, 4):
        first = loader(dataset(shard_root), workers, context, kind, snapshot_every_n_steps=every)
        walk = iter(first)
        assert prints(next(walk) for _ in range(taken)) == whole[:taken]
        state = pickle.loads(pickle.dumps(first.state_dict()))  # as in a checkpoint
        del walk, first
        again = loader(dataset(shard_root), workers, context, kind, snapshot_every_n_steps=every)
        again.load_state_dict(state)
        assert prints(again) == whole[taken:]
        assert prints(again) == whole, "the pass after a resumed one begins anew"


def test_the_datasets_own_state_is_one_integer_for_any_workers(
    shard_root: Path, whole: list[list[str]]
) -> None:
    first = dataset(shard_root)
    walk = iter(loader(first, 0, None))
    next(walk), next(walk)
    state = json.loads(json.dumps(first.state_dict()))
    assert state["step"] == 2
    for workers in (0, 1, 2):
        again = dataset(shard_root)
        again.load_state_dict(state)
        assert prints(loader(again, workers, "fork" if workers else None)) == whole[2:]


@pytest.mark.filterwarnings("ignore:.*pin_memory.*")
@pytest.mark.parametrize(("workers", "context"), [(0, None), (2, "fork")])
def test_memory_may_be_pinned(
    shard_root: Path, whole: list[list[str]], workers: int, context: str | None
) -> None:
    batches = list(loader(dataset(shard_root), workers, context, pin_memory=True))
    assert prints(batches) == whole
    if torch.cuda.is_available():
        assert all(tensor.is_pinned() for tensor in tensors(batches[0]))


@pytest.mark.parametrize("workers", [0, 2])
def test_held_batches_stay_as_they_were(shard_root: Path, whole: list[list[str]], workers: int) -> None:
    batches = list(loader(dataset(shard_root), workers, "fork" if workers else None))
    for batch in batches:
        batch["times"] += 0  # and may be written to
    assert prints(batches) == whole


def test_a_batch_travels_in_one_piece(shard_root: Path) -> None:
    batch = next(iter(loader(dataset(shard_root), 1, "fork")))
    spans = sorted((tensor.data_ptr(), tensor.nbytes) for tensor in tensors(batch))
    assert len(spans) > 20 and all(at % 64 == spans[0][0] % 64 for at, _ in spans)
    for (at, size), (following, _) in zip(spans, spans[1:], strict=False):
        assert 0 <= following - (at + size) < 64


def test_tensors_share_memory_with_the_arrays(shard_root: Path) -> None:
    batch = next(open_stream(shard_root))
    assert to_torch(batch)["video"].data_ptr() == batch["video"].ctypes.data


def test_a_corrupt_shard_is_named_through_the_loader(shard_root: Path, tmp_path: Path) -> None:
    broken = Path(shutil.copytree(shard_root, tmp_path / "set"))
    at = open_set(shard_root).member(0, "rgb.pack")
    data = bytearray((broken / at.shard).read_bytes())
    data[at.offset] ^= 1
    (broken / at.shard).write_bytes(data)
    for workers in (0, 2):
        with pytest.raises(ShardError, match=r"(?s)Member is corrupt.*rgb\.pack of alpha-w0"):
            list(loader(dataset(broken), workers, "fork" if workers else None))


def test_forked_workers_read_a_set_that_is_open_over_http(shard_root: Path, whole: list[list[str]]) -> None:
    """Threads and connections of the parent's file system do not survive a fork; the worker makes its own."""
    pytest.importorskip("aiohttp")
    with serve(shard_root) as endpoint:
        opened = open_set(endpoint.url)
        assert opened.read_member(0, "clip.json")
        assert prints(loader(dataset(opened), 2, "fork")) == whole


def test_a_killed_worker_is_a_clear_error(shard_root: Path, shared_memory: set[str]) -> None:
    made = iter(loader(dataset(shard_root, num_steps=None), 2, "fork"))
    next(made)
    os.kill(made._workers[0].pid, signal.SIGKILL)
    with pytest.raises(RuntimeError, match="DataLoader worker.*(killed by signal|exited unexpectedly)"):
        for _ in range(50):
            next(made)
    del made


@pytest.mark.slow
@pytest.mark.parametrize("context", ["fork", "spawn"])
def test_ctrl_c_ends_loader_and_workers(
    shard_root: Path, tmp_path: Path, shared_memory: set[str], context: str
) -> None:
    mark = tmp_path / "running"
    run = subprocess.Popen(
        [sys.executable, "-m", "tests.stream.loader_main", str(shard_root), str(mark), context],
        cwd=ROOT,
        stderr=subprocess.PIPE,
        start_new_session=True,
    )
    while not mark.exists():
        assert run.poll() is None
        time.sleep(0.02)
    os.killpg(run.pid, signal.SIGINT)  # as a terminal does: to the workers too
    _, errors = run.communicate(timeout=120)
    assert run.returncode != 0 and "KeyboardInterrupt" in errors.decode()
    with pytest.raises(ProcessLookupError):  # the whole group is gone
        for _ in range(200):
            os.killpg(run.pid, 0)
            time.sleep(0.05)


def test_dropped_loaders_end_their_workers_quietly(shard_root: Path, shared_memory: set[str]) -> None:
    """Batches that are still on their way when a loader is dropped must not bring a worker down."""
    for _ in range(4):
        made = iter(loader(dataset(shard_root, num_steps=None), 2, "fork", prefetch_factor=4))
        next(made)
        workers = made._workers
        del made
        gc.collect()
        assert [worker.exitcode for worker in workers] == [0, 0]
