"""One stream for any number of ranks and workers, and after being killed: in processes as real as a trainer's."""

from __future__ import annotations

import json
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from datakit.stream import Ledger, merge

from .conftest import segments
from .rank_main import MIXTURE

ROOT = Path(__file__).resolve().parents[2]
STEPS = 12


def start(
    shards: Path, out: Path, world_size: int, workers: int, state: str = ""
) -> list[subprocess.Popen[bytes]]:
    return [
        subprocess.Popen(
            [sys.executable, "-m", "tests.stream.rank_main", str(shards), str(out)]
            + [str(n) for n in (rank, world_size, workers, STEPS)]
            + [state],
            cwd=ROOT,
        )
        for rank in range(world_size)
    ]


def finish(ranks: list[subprocess.Popen[bytes]]) -> None:
    assert [rank.wait(timeout=300) for rank in ranks] == [0] * len(ranks)


def samples(out: Path) -> dict[tuple[int, int], str]:
    found: dict[tuple[int, int], str] = {}
    for path in sorted(out.glob("rank*.txt")):
        for line in path.read_text().splitlines():
            step, slot, digest = line.split()
            assert found.setdefault((int(step), int(slot)), digest) == digest
    return found


@pytest.fixture(scope="module")
def reference(shard_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The stream of one process without workers."""
    out = tmp_path_factory.mktemp("reference")
    finish(start(shard_root, out, 1, 0))
    assert len(samples(out)) == STEPS * 4
    yield out


def same_run(out: Path, reference: Path, world_size: int) -> None:
    assert samples(out) == samples(reference)
    hashes = {json.loads((out / f"state{rank}.json").read_text())["order_hash"] for rank in range(world_size)}
    assert hashes == {json.loads((reference / "state0.json").read_text())["order_hash"]}


@pytest.mark.slow
@pytest.mark.parametrize(("world_size", "workers"), [(1, 1), (1, 4), (2, 2), (4, 1)])
def test_ranks_and_workers_do_not_change_the_stream(
    shard_root: Path, tmp_path: Path, reference: Path, world_size: int, workers: int
) -> None:
    ranks = start(shard_root, tmp_path, world_size, workers)
    finish(ranks)
    same_run(tmp_path, reference, world_size)
    alone = Ledger.load(reference / "ledger0.json").to_json()
    merged = merge(Ledger.load(tmp_path / f"ledger{rank}.json") for rank in range(world_size)).to_json()
    for part in ("shares", "content_hash", "repeats", "queries", "clip_counts", "samples"):
        assert merged[part] == alone[part], part
    assert not segments(*(rank.pid for rank in ranks))


@pytest.mark.slow
def test_killed_at_any_step_and_resumed_elsewhere_it_is_the_same_stream(
    shard_root: Path, tmp_path: Path, reference: Path
) -> None:
    kill_at = random.randrange(2, STEPS - 2)
    ranks = start(shard_root, tmp_path / "killed", 2, 2)
    state = tmp_path / "killed" / "state0.json"
    deadline = time.monotonic() + 200
    while not state.exists() or json.loads(state.read_text())["step"] < kill_at:
        assert time.monotonic() < deadline and ranks[0].poll() is None
        time.sleep(0.005)
    for rank in ranks:
        rank.send_signal(signal.SIGKILL)
        rank.wait()
    saved = json.loads(state.read_text())
    assert kill_at <= saved["step"] <= STEPS
    whole = samples(reference)
    assert samples(tmp_path / "killed").items() <= whole.items()

    resumed = start(shard_root, tmp_path / "resumed", 4, 1, str(state))
    finish(resumed)
    assert samples(tmp_path / "resumed") == {at: s for at, s in whole.items() if at[0] >= saved["step"]}
    ends = {json.loads((tmp_path / "resumed" / f"state{r}.json").read_text())["order_hash"] for r in range(4)}
    assert ends == {json.loads((reference / "state0.json").read_text())["order_hash"]}
    pids = [rank.pid for rank in (*ranks, *resumed)]
    while segments(*pids) and time.monotonic() < deadline:
        time.sleep(0.1)  # the killed ranks' trackers clean up after them
    assert not segments(*pids)


def test_the_ledger_says_what_was_asked_for(reference: Path) -> None:
    shares = Ledger.load(reference / "ledger0.json").to_json()["shares"]
    for name, weight in MIXTURE.items():
        assert shares["dataset"][name]["requested"] == pytest.approx(weight)
        assert abs(shares["dataset"][name]["samples"] - weight * STEPS * 4) <= 1
    assert shares["scale"]["metric"]["samples"] == shares["dataset"]["alpha"]["samples"]
    assert shares["scale"]["sfm"]["requested"] == pytest.approx(MIXTURE["beta"])
    assert sum(entry["requested"] for entry in shares["supervision"].values()) == pytest.approx(1)
    assert set(shares["supervision"]) == {"rendered depth, static + rigid motion"}
