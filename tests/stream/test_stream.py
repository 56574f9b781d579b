from __future__ import annotations

import gc
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from datakit.errors import FormatError, ShardError, UsageError
from datakit.shards import open_set
from datakit.stream import AugmentParams, Ledger, WorkerError, compare, merge, stream

from .conftest import DATASETS, segments
from .rank_main import fingerprints, open_stream

ROOT = Path(__file__).resolve().parents[2]


def take(run: Any, count: int) -> list[list[str]]:
    return [fingerprints(next(run)) for _ in range(count)]


def test_a_batch_has_the_arrays_of_the_contract(shard_root: Path) -> None:
    batch = next(open_stream(shard_root))
    b, t, n, s = 4, 6, 32, 24
    expected = {
        "video": ((b, t, 3, s, s), "uint8"),
        "frame_mask": ((b, t), "bool"),
        "times": ((b, t), "float64"),
        "aspect_ratio": ((b,), "float32"),
        "query": {"uv": ((b, n, 2), "float32"), "t_src": ((b, n), "int64"), "t_tgt": ((b, n), "int64"),
                  "t_cam": ((b, n), "int64"), "patch": ((b, n, 3, 9, 9), "uint8"), "kind": ((b, n), "uint8")},
        "target": {"xyz": ((b, n, 3), "float32"), "uv": ((b, n, 2), "float32"), "visible": ((b, n), "bool"),
                   "displacement": ((b, n, 3), "float32"), "normal": ((b, n, 3), "float32")},
        "mask": {name: ((b, n), "bool") for name in ("xyz", "uv", "visible", "displacement", "normal")},
        "camera": {"intrinsics": ((b, t, 3, 3), "float64"), "world_from_cam": ((b, t, 4, 4), "float64"),
                   "pose_is_known": ((b, t), "bool")},
    }  # fmt: skip

    def shapes(value: Any) -> Any:
        return (
            {k: shapes(v) for k, v in value.items()}
            if isinstance(value, dict)
            else (value.shape, str(value.dtype))
        )

    meta = batch.pop("meta")
    assert shapes(batch) == expected
    assert set(meta) >= {"key", "dataset", "scale", "licence", "certificate"}
    assert all(len(meta[name]) == b for name in meta)


def test_a_batch_agrees_with_itself(shard_root: Path) -> None:
    """Every target uv is the projection of its xyz by the batch's own intrinsics, and uv lies in [0, 1]."""
    for batch, _ in zip(open_stream(shard_root), range(4), strict=False):
        assert batch["query"]["uv"].min() >= 0 and batch["query"]["uv"].max() <= 1
        for b in range(4):
            known = batch["mask"]["uv"][b] & batch["mask"]["xyz"][b]
            assert known.any()
            xyz = batch["target"]["xyz"][b][known].astype(float)
            K = batch["camera"]["intrinsics"][b][batch["query"]["t_cam"][b][known]]
            uvw = np.einsum("nij,nj->ni", K, xyz)
            uv = uvw[:, :2] / uvw[:, 2:] / 24
            assert np.abs(uv - batch["target"]["uv"][b][known]).max() * 24 < 0.01
            for name in ("xyz", "displacement", "normal"):
                finite = np.isfinite(batch["target"][name][b]).all(axis=-1)
                assert (finite == batch["mask"][name][b]).all()


def test_patches_have_the_colours_of_the_video(shard_root: Path) -> None:
    """With the whole image at its own size the patch's middle is the very pixel under the query."""
    plain = AugmentParams.none()
    dull = AugmentParams(1, (1, 1), 0, (1, 1), (0.8, 0.8), (1.2, 1.2), (1.3, 1.3), (0.04, 0.04), 0, 0)
    for augment in (plain, dull):
        batch = next(open_stream(shard_root, augment=augment, size=36))
        uv = batch["query"]["uv"] * [48, 36]
        rows, t = np.arange(4)[:, None], batch["query"]["t_src"]
        shown = batch["video"][rows, t, :, np.clip(uv[..., 1], 0, 35).astype(int),
                               np.clip(batch["query"]["uv"][..., 0] * 36, 0, 35).astype(int)]  # fmt: skip
        centre = batch["query"]["patch"][:, :, :, 4, 4]
        # Rows are not resized, columns are, from 48 to 36: most middles differ by little.
        assert np.median(np.abs(shown.astype(int) - centre)) <= 12


def test_short_sources_are_padded_and_never_repeat_a_frame(shard_root: Path) -> None:
    lengths = set()
    for batch, _ in zip(open_stream(shard_root, clip_frames=8), range(12), strict=False):
        for b, dataset in enumerate(batch["meta"]["dataset"]):
            mask, frames = batch["frame_mask"][b], batch["meta"]["frame_indices"][b]
            count = min(DATASETS[dataset][2], 8)
            lengths.add(count)
            assert mask.tolist() == [True] * count + [False] * (8 - count)
            assert len(set(frames[:count].tolist())) == count and (frames[count:] == -1).all()
            assert (np.diff(frames[:count]) > 0).all() and (np.diff(batch["times"][b, :count]) > 0).all()
            assert not batch["video"][b, count:].any() and batch["video"][b, :count].any(axis=(1, 2, 3)).all()
            for name in ("t_src", "t_tgt", "t_cam"):
                assert batch["query"][name][b].max() < count
    assert lengths == {5, 8}


def test_scale_goes_along(shard_root: Path) -> None:
    batch = next(open_stream(shard_root))
    assert batch["meta"]["scale"] == [DATASETS[dataset][4] for dataset in batch["meta"]["dataset"]]


def test_a_state_resumes_exactly_with_other_workers(shard_root: Path) -> None:
    with open_stream(shard_root) as run:
        whole = take(run, 6)
    with open_stream(shard_root) as run:
        take(run, 2)
        state = json.loads(json.dumps(run.state_dict()))
    assert state["step"] == 2
    with open_stream(shard_root, workers=1) as run:
        run.load_state_dict(state)
        assert take(run, 2) == whole[2:4]
        middle = run.state_dict()
        run.load_state_dict(state)  # back again, with work in flight
        assert take(run, 1) == whole[2:3]
        run.load_state_dict(middle)
        assert take(run, 2) == whole[4:]
        end = run.state_dict()
    with open_stream(shard_root) as run:
        run.skip(6)
        assert run.state_dict() == end


@pytest.mark.parametrize(
    ("change", "named"),
    [({"seed": 6}, "seed"), ({"mixture": {"alpha": 1}}, "mixture"), ({"batch_size": 8}, "batch_size"),
     ({"num_queries": 31}, "clip")],
)  # fmt: skip
def test_a_state_of_another_stream_is_refused(shard_root: Path, change: dict[str, Any], named: str) -> None:
    state = open_stream(shard_root).state_dict()
    with pytest.raises(UsageError, match=f"where: {named}"):
        open_stream(shard_root, **change).load_state_dict(state)


def test_a_state_of_other_shards_is_refused(shard_root: Path) -> None:
    state = open_stream(shard_root).state_dict()
    state["order"]["manifests"] = ["0" * 64]
    with pytest.raises(UsageError, match="where: manifests"):
        open_stream(shard_root).load_state_dict(state)


def test_several_sets_are_one_stream(shard_root: Path) -> None:
    one = open_stream([shard_root, shard_root])
    keys = [key for _ in range(8) for key in next(one)["meta"]["key"]]
    assert len(set(keys)) == 7
    assert (
        one.ledger.num_delivered == 32
        and len(one.ledger.shown) == 2
        and all(s.any() for s in one.ledger.shown)
    )


@pytest.mark.parametrize(
    "wrong",
    [{"rank": 1}, {"world_size": 3}, {"batch_size": 0}, {"workers": -1}, {"read_ahead": 0}, {"size": 0},
     {"mixture": {"delta": 1.0}}],
)  # fmt: skip
def test_arguments_that_do_not_fit_are_refused(shard_root: Path, wrong: dict[str, Any]) -> None:
    with pytest.raises(UsageError):
        open_stream(shard_root, **wrong)


def test_an_unknown_sampler_is_not_counted_as_bad_data(shard_root: Path) -> None:
    with pytest.raises(UsageError, match="sampler"):
        next(open_stream(shard_root, sampler="papper", failure_budget=100))
    with pytest.raises(UsageError, match="sampler"):
        next(open_stream(shard_root, sampler="papper", failure_budget=100, workers=1))


@pytest.fixture
def damaged(shard_root: Path, tmp_path: Path) -> tuple[Path, str]:
    """A set with one flipped byte in the colours of one clip, and that clip's key."""
    root = tmp_path / "damaged"
    shutil.copytree(shard_root, root)
    shards = open_set(root)
    index = next(i for i in range(shards.num_clips) if shards.scene(i).startswith("beta"))
    at = shards.member(index, "rgb.pack")
    with (root / at.shard).open("r+b") as file:
        file.seek(at.offset + at.length // 2)
        byte = file.read(1)
        file.seek(-1, 1)
        file.write(bytes([byte[0] ^ 1]))
    return root, shards.key(index)


@pytest.mark.parametrize("workers", [0, 1])
def test_a_corrupt_sample_stops_the_run(damaged: tuple[Path, str], workers: int) -> None:
    root, key = damaged
    with pytest.raises(ShardError, match="budget of 0") as caught, open_stream(root, workers=workers) as run:
        take(run, 12)
    assert key in str(caught.value) and "rgb.pack" in str(caught.value)


def test_within_the_budget_a_corrupt_sample_is_counted_and_never_replaced(
    shard_root: Path, damaged: tuple[Path, str]
) -> None:
    root, key = damaged
    with open_stream(root, failure_budget=50) as run, open_stream(shard_root) as whole:
        for _ in range(8):
            batch, sound = next(run), next(whole)
            assert batch["meta"]["key"] == sound["meta"]["key"]
            found, expected = fingerprints(batch), fingerprints(sound)
            for b, name in enumerate(batch["meta"]["key"]):
                assert batch["meta"]["valid"][b] == (name != key)
                if name != key:
                    assert found[b] == expected[b]
                    continue
                assert not batch["frame_mask"][b].any() and not batch["video"][b].any()
                assert not any(mask[b].any() for mask in batch["mask"].values())
        ledger = run.ledger.to_json()
    failed = sum(entry["count"] for entry in ledger["failures"].values())
    assert failed > 0 and ledger["samples"] == {"delivered": 32 - failed, "failed": failed}
    ((reason, entry),) = ledger["failures"].items()
    assert reason.startswith("ShardError: ") and {sample["key"] for sample in entry["samples"]} == {key}
    assert run.order_hash == whole.order_hash


def test_a_missing_shard_is_a_typed_error(shard_root: Path, tmp_path: Path) -> None:
    root = tmp_path / "set"
    shutil.copytree(shard_root, root)
    run = open_stream(root)
    next(root.glob("*.tar")).unlink()
    with pytest.raises(ShardError, match="missing"):
        next(run)


def test_held_batches_are_never_written_over(shard_root: Path) -> None:
    with open_stream(shard_root, workers=1) as run:
        held = [next(run) for _ in range(9)]
        now = [fingerprints(batch) for batch in held]
    with open_stream(shard_root) as run:
        assert now == take(run, 9)
    assert [fingerprints(batch) for batch in held] == now  # also after the stream is closed


def test_shared_memory_is_gone_after_a_close_an_error_and_a_loss(shard_root: Path) -> None:
    before = segments()
    run = open_stream(shard_root, workers=1)
    next(run)
    assert len(segments() - before) == 1
    run.close()
    assert segments() <= before

    run = open_stream(shard_root, workers=1)
    next(run)
    del run
    gc.collect()
    assert segments() <= before

    run = open_stream(shard_root, workers=2)
    next(run)
    assert run._pool is not None
    os.kill(run._pool._processes[0].pid, signal.SIGKILL)
    with pytest.raises(WorkerError, match="SIGKILL"):
        take(run, 50)
    assert segments() <= before


def test_a_script_without_a_guard_is_told_of_it(shard_root: Path, tmp_path: Path) -> None:
    script = tmp_path / "loop.py"
    script.write_text(f"import datakit\nnext(datakit.stream({str(shard_root)!r}, batch_size=1, workers=1))\n")
    run = subprocess.run(
        [sys.executable, str(script)], cwd=ROOT, capture_output=True, text=True, timeout=120, check=False
    )
    assert run.returncode and '`if __name__ == "__main__":`' in run.stderr.splitlines()[-1]


def test_ctrl_c_leaves_nothing_behind(shard_root: Path, tmp_path: Path) -> None:
    run = subprocess.Popen(
        [
            sys.executable,
            "-m",
            "tests.stream.rank_main",
            str(shard_root),
            str(tmp_path),
            "0",
            "1",
            "2",
            "100000",
            "",
        ],
        cwd=ROOT,
        stderr=subprocess.PIPE,
        start_new_session=True,
    )
    while not (tmp_path / "state0.json").exists():
        assert run.poll() is None
        time.sleep(0.02)
    os.killpg(run.pid, signal.SIGINT)  # as a terminal does: to the workers too
    _, errors = run.communicate(timeout=60)
    assert run.returncode != 0
    assert errors.decode().count("Traceback") == 1 and "KeyboardInterrupt" in errors.decode()
    assert not segments(run.pid)


@pytest.mark.slow
def test_memory_stays_flat(shard_root: Path) -> None:
    import psutil

    process = psutil.Process()
    with stream(shard_root, batch_size=8, clip_frames=2, size=16, num_queries=8) as run:
        for _ in range(30):
            next(run)
        before = process.memory_info().rss
        for _ in range(130):
            next(run)
        grown = process.memory_info().rss - before
    assert grown < 8 << 20


def test_a_ledger_reads_back_and_adds_up(shard_root: Path, tmp_path: Path) -> None:
    ledgers = []
    for rank in (0, 1):
        run = open_stream(shard_root, rank=rank, world_size=2)
        take(run, 3)
        run.ledger.save(tmp_path / f"{rank}.json")
        ledgers.append(Ledger.load(tmp_path / f"{rank}.json"))
        assert ledgers[-1].to_json() == run.ledger.to_json()
    alone = open_stream(shard_root)
    take(alone, 3)
    merged = merge(ledgers)
    assert not compare(merged, alone.ledger)
    assert sum(times.sum() for times in merged.shown) == 12
    take(alone, 1)
    found = compare(merged, alone.ledger)
    assert set(found) >= {"samples", "content"} and "order" not in found
    other = open_stream(shard_root, seed=9)
    assert compare(merged, other.ledger)["order"] == {"seed": [5, 9]}
    with pytest.raises(UsageError, match="different orders"):
        merge([merged, other.ledger])
    (tmp_path / "bad.json").write_text("{}")
    with pytest.raises(FormatError):
        Ledger.load(tmp_path / "bad.json")


def test_ledger_command(shard_root: Path, tmp_path: Path) -> None:
    from click.testing import CliRunner

    from datakit.cli.ledger import command

    paths = []
    for name, steps in (("a", 2), ("b", 3)):
        run = open_stream(shard_root)
        take(run, steps)
        paths.append(str(tmp_path / f"{name}.json"))
        run.ledger.save(paths[-1])
    cli = CliRunner()
    same = cli.invoke(command, ["diff", paths[0], paths[0]], standalone_mode=False)
    assert same.return_value == 0 and "no difference" in same.output
    differing = cli.invoke(command, ["diff", *paths, "--json"], standalone_mode=False)
    assert differing.return_value == 1
    assert json.loads(differing.output)["samples"][1] == {"delivered": 12, "failed": 0}
    shown = cli.invoke(command, ["show", paths[0]])
    assert "8 samples delivered" in shown.output and "alpha" in shown.output
    added = cli.invoke(command, ["merge", *paths, "--out", str(tmp_path / "sum.json")])
    assert added.exit_code == 0 and Ledger.load(tmp_path / "sum.json").num_delivered == 20
