"""The stream from web servers and S3 that fail in every way: the same batches, or a typed error; never wrong bytes."""

from __future__ import annotations

import json
import random
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from datakit.errors import ShardError, UsageError
from datakit.shards import Reader, ShardSet, access, open_set, verify
from tests.endpoints import FAULTS, Behaviour, serve

from .conftest import segments
from .rank_main import fingerprints, open_stream

STEPS = 4
#: What a server says for good.
FINAL = ("403", "404")
PASSING = tuple(fault for fault in FAULTS if fault not in FINAL)
STALLS = ("stall", "stall in the body")


@dataclass
class Remote:
    """A shard set behind a server.

    Attributes:
        url: Of the set.
        behaviour: Of the server.
        options: For the file system.
    """

    url: str
    behaviour: Behaviour
    options: dict[str, Any]

    def line(self, **changes: Any) -> dict[str, Any]:
        """Short waits; a timeout that a good answer never meets, unless a test is about it."""
        return {"storage_options": self.options, "retries": 2, "timeout": 30, "first_wait": 0.01} | changes

    def open(self, **changes: Any) -> ShardSet:
        opened = open_set(self.url, **self.line(**changes))
        self.behaviour.log.clear()
        return opened


@pytest.fixture(params=["http", "s3"])
def remote(request: pytest.FixtureRequest, shard_root: Path) -> Iterator[Remote]:
    pytest.importorskip("aiohttp" if request.param == "http" else "s3fs")
    with serve(shard_root, is_s3=request.param == "s3") as endpoint:
        if request.param == "http":
            yield Remote(endpoint.url, endpoint.behaviour, {})
            return
        options = {
            "key": "any",
            "secret": "any",
            "endpoint_url": endpoint.url.rpartition("/")[0],
            "client_kwargs": {"region_name": "us-east-1"},
        }
        yield Remote("s3://bucket/set", endpoint.behaviour, options)


@pytest.fixture(scope="module")
def reference(shard_root: Path) -> list[list[str]]:
    run = open_stream(shard_root)
    return [fingerprints(next(run)) for _ in range(STEPS)]


def timeout_for(fault: str) -> float:
    return 1.5 if fault in STALLS else 30


def test_an_endpoint_gives_the_same_stream(remote: Remote, reference: list[list[str]]) -> None:
    opened = remote.open()
    run = open_stream(opened)
    assert [fingerprints(next(run)) for _ in range(STEPS)] == reference
    tars = [line for line in remote.behaviour.log if ".tar" in line]
    assert len(tars) == STEPS * 4 and all("GET" in line and "bytes=" in line for line in tars)
    longest = max(int(b) - int(a) for a, b in (re.findall(r"\d+", line.split()[2]) for line in tars))
    assert longest < opened.manifest["shards"][0]["size"] / 3
    assert verify(remote.url, **remote.line()) == []
    assert verify(remote.url, quick=True, **remote.line()) == []


def test_a_local_state_goes_on_remotely(remote: Remote, shard_root: Path, reference: list[list[str]]) -> None:
    run = open_stream(shard_root)
    next(run)
    state = json.loads(json.dumps(run.state_dict()))
    other = open_stream(remote.open())
    other.load_state_dict(state)
    assert fingerprints(next(other)) == reference[1]


@pytest.mark.parametrize("fault", PASSING)
def test_a_passing_fault_is_asked_again(remote: Remote, reference: list[list[str]], fault: str) -> None:
    run = open_stream(remote.open(timeout=timeout_for(fault), retries=4))
    remote.behaviour.reset(None, "good", fault)
    assert fingerprints(next(run)) == reference[0]
    assert run.ledger.num_failed == 0
    asked = remote.behaviour.matching()
    assert [line.split(" ", 3)[3] for line in asked[:2]] == ["good", fault]
    assert asked[2].split()[2] == asked[1].split()[2]
    assert len(asked) == 5 or (fault in STALLS and len(asked) > 5)


@pytest.mark.parametrize("fault", FAULTS)
def test_a_lasting_fault_is_a_typed_error(remote: Remote, fault: str) -> None:
    opened = remote.open(timeout=timeout_for(fault), retries=1)
    run = open_stream(opened, batch_size=1)
    remote.behaviour.reset(fault)
    with pytest.raises(ShardError) as caught:
        next(run)
    error = caught.value
    assert f"{remote.url}/shard-000000.tar" in str(error.where)
    assert f"member {'rgb.pack' if fault == 'wrong bytes' else 'clip.json, arrays'}" in str(error.where)
    assert any(opened.key(i) in str(error.where) for i in range(opened.num_clips))
    assert error.expected and error.found and error.expected != error.found
    assert "over the budget of 0" in error.what
    # aiohttp itself tries a connection that was reset once more.
    most = {"403": 1, "404": 1, "reset": 4}.get(fault, 2)
    assert len(remote.behaviour.matching()) <= most


@pytest.mark.parametrize("fault", ["500", "wrong bytes", "short body", "404"])
def test_a_clip_that_cannot_be_read_is_counted_and_the_others_are_whole(
    remote: Remote, reference: list[list[str]], fault: str
) -> None:
    opened = remote.open()
    key = next(open_stream(opened))["meta"]["key"][0]
    first = opened.member(opened.find(key), "clip.json").offset
    remote.behaviour.match = rf"^GET .*\.tar bytes={first}-"
    remote.behaviour.reset(fault)
    run = open_stream(opened, failure_budget=100)
    num_failed = compare_with(reference, run, lambda found: found == key)
    assert num_failed == run.ledger.num_failed > 0
    ((reason, entry),) = run.ledger.failures.items()
    assert reason.startswith("ShardError: ") and entry["count"] == num_failed


def compare_with(reference: list[list[str]], run: Any, may_fail: Callable[[str], bool]) -> int:
    """Compare the steps of a run with what is right; each sample is that, or empty and said to be so."""
    num_failed = 0
    for expected in reference:
        batch = next(run)
        found = fingerprints(batch)
        for b, key in enumerate(batch["meta"]["key"]):
            if batch["meta"]["valid"][b]:
                assert found[b] == expected[b]
                continue
            num_failed += 1
            assert may_fail(key)
            assert not batch["video"][b].any() and not batch["frame_mask"][b].any()
            assert not any(mask[b].any() for mask in batch["mask"].values())
            assert np.isnan(batch["target"]["xyz"][b]).all()
    return num_failed


def test_in_a_storm_of_faults_nothing_wrong_is_delivered(remote: Remote, reference: list[list[str]]) -> None:
    chance = random.Random(remote.url[:2])
    faults = [fault for fault in FAULTS if fault not in STALLS]
    run = open_stream(remote.open(retries=2), failure_budget=1000)
    remote.behaviour.reset(None, *(chance.choice([*faults, "good"]) for _ in range(400)))
    num_failed = compare_with(reference, run, lambda key: True)
    assert 0 < num_failed < STEPS * 4
    assert num_failed == run.ledger.num_failed


@pytest.mark.parametrize("table", ["manifest.json", "index.safetensors"])
@pytest.mark.parametrize("fault", ["500", "503", "reset", "stall", "short body", "wrong bytes", "403", "404"])
def test_tables_that_cannot_be_read(remote: Remote, table: str, fault: str) -> None:
    line = remote.line(timeout=timeout_for(fault), retries=1)
    remote.behaviour.match = rf"^GET .*{table} "
    if fault not in FINAL:
        remote.behaviour.reset(None, fault)
        assert open_set(remote.url, **(line | {"retries": 4})).num_clips == 7
    remote.behaviour.reset(fault)
    with pytest.raises(ShardError) as caught:
        open_set(remote.url, **line)
    assert remote.url in str(caught.value.where) and table in str(caught.value)
    assert caught.value.expected and caught.value.found
    is_missing = table == "manifest.json" and fault == "404"
    assert (caught.value.what == "No complete shard set") == is_missing


def test_waits_grow_and_end(remote: Remote, monkeypatch: pytest.MonkeyPatch) -> None:
    waits: list[float] = []
    monkeypatch.setattr(access, "time", SimpleNamespace(sleep=waits.append))
    opened = remote.open(retries=9, first_wait=0.5)
    remote.behaviour.reset("503")
    with pytest.raises(ShardError, match="10 tries of 30 s"):
        opened.read_member(0, "clip.json")
    assert len(remote.behaviour.log) == 10, "no other loop tries within ours"
    longest = [min(0.5 * 2**k, 20) for k in range(9)]
    assert all(most / 2 <= wait <= most for wait, most in zip(waits, longest, strict=True))
    assert len({wait / most for wait, most in zip(waits, longest, strict=True)}) > 1  # not all at once


def test_long_ranges_come_in_pieces(
    remote: Remote, shard_root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(access, "_PIECE", 10_000)
    opened = remote.open()
    expected = open_set(shard_root).read_member(0, "rgb.pack")
    remote.behaviour.reset(None, "good", "good", "short body")
    assert opened.read_member(0, "rgb.pack") == expected
    spans = [line.split()[2] for line in remote.behaviour.log]
    assert len(spans) == -(-len(expected) // 10_000) + 1
    assert spans[2] == spans[3] and len(set(spans)) == len(spans) - 1


@pytest.mark.parametrize("fault", ["500", "reset", "body breaks off", "short body", "wrong bytes"])
def test_verify_tells_a_bad_line_from_a_bad_shard(remote: Remote, fault: str) -> None:
    remote.behaviour.reset(None, fault)
    assert verify(remote.url, **remote.line()) == []
    remote.behaviour.reset(fault)
    problems = verify(remote.url, **remote.line())
    assert problems and all("shard-000000.tar" in str(problem.where) for problem in problems)
    assert not any("missing" in problem.what for problem in problems)
    assert any("corrupt" in problem.what for problem in problems) == (fault == "wrong bytes")


@pytest.mark.parametrize(
    ("fault", "what"), [("500", "cannot be read"), ("404", "missing"), ("403", "may not")]
)
def test_verify_does_not_call_an_unwilling_server_a_missing_shard(
    remote: Remote, fault: str, what: str
) -> None:
    remote.behaviour.match = r"\.tar "
    remote.behaviour.reset(fault)
    (problem,) = verify(remote.url, quick=True, **remote.line())
    assert what in problem.what


def test_verify_finds_remote_damage(remote: Remote, shard_root: Path, tmp_path: Path) -> None:
    """The shard itself is damaged, and one longer than it was."""
    import shutil

    broken = Path(shutil.copytree(shard_root, tmp_path / "set"))
    at = open_set(shard_root).member(2, "z_depth.pack")
    with open(broken / at.shard, "r+b") as file:
        file.seek(at.offset)
        file.write(b"\0\0")
        file.seek(0, 2)
        file.write(b"more")
    with serve(broken, is_s3=remote.behaviour.is_s3) as endpoint:
        options = remote.options | (
            {"endpoint_url": endpoint.url.rpartition("/")[0]} if remote.options else {}
        )
        url = remote.url if remote.options else endpoint.url
        long, member = verify(url, **remote.line(storage_options=options))
    assert long.what == "Shard is too long"
    assert member.what == "Member is corrupt" and "z_depth.pack" in str(member.where)


@pytest.mark.parametrize("wrong", [{"retries": -1}, {"timeout": 0}, {"first_wait": -1}])
def test_settings_out_of_range_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(UsageError):
        Reader("http://127.0.0.1/set", **wrong)


@pytest.mark.parametrize("remote", ["s3"], indirect=True)  # the file system of HTTP takes any option
def test_options_that_no_file_system_knows_are_refused(remote: Remote) -> None:
    with pytest.raises(UsageError, match="No file system"):
        open_set(remote.url, storage_options=remote.options | {"max_concurrency": 0})


@pytest.mark.slow
def test_workers_read_through_faults_too(remote: Remote, reference: list[list[str]]) -> None:
    before = segments()
    remote.behaviour.reset(None, "503", "good", "reset", "stall", "short body", "good", "wrong bytes")
    with open_stream(remote.open(timeout=5), workers=2, read_ahead=1) as run:
        assert [fingerprints(next(run)) for _ in range(STEPS)] == reference
        remote.behaviour.reset("500")
        with pytest.raises(ShardError, match=r"shard-000000.tar"):
            for _ in range(3):
                next(run)
    assert segments() <= before
