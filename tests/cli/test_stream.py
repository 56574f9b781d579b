"""`datakit stream stats` and the report of `datakit verify`."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest

from datakit.shards import PackParams, open_set, pack
from datakit.stream import Ledger
from tests.stream.conftest import make_world, write_world


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("stats")
    for seed, dataset, frames, scale in ((0, "alpha", 12, "metric"), (1, "beta", 5, "sfm")):
        write_world(make_world(seed, frames), root / f"{dataset}.h5", dataset=dataset, scale=scale)
    pack(sorted(root.glob("*.h5")), root / "set", params=PackParams(min_level="none"), progress=False)
    return root / "set"


SMALL = ("--steps", 6, "--batch-size", 4, "--clip-frames", 6, "--size", 24, "--num-queries", 64)


def table(path: Path) -> dict[str, list[float]]:
    head, *rows = csv.reader(path.read_text().splitlines())
    return {name: [float(row[at]) for row in rows] for at, name in enumerate(head)}


def test_stats_say_what_was_delivered(cli, shards: Path, tmp_path: Path) -> None:
    done = cli(
        "stream", "stats", shards, "--out", tmp_path, *SMALL, "--mixture", "alpha=3", "--mixture", "beta=1"
    )
    assert done.code == 0 and "24 clips delivered, 0 failed" in done.out
    metrics = json.loads((tmp_path / "metrics.json").read_text())
    assert metrics["samples"] == {"delivered": 24, "failed": 0} and metrics["failures"] == {}
    assert metrics["clips_per_s"] > 0
    shares = metrics["shares"]["dataset"]
    assert shares["alpha"]["requested"] == 0.75 and abs(shares["alpha"]["delivered"] - 0.75) <= 1 / 24
    assert metrics["shares"]["scale"]["sfm"] == shares["beta"]
    assert sum(int(times) * clips for times, clips in metrics["clips_by_times_shown"].items()) == 24
    for entry in metrics["queries"].values():
        assert entry["near_a_boundary"] == pytest.approx(round(0.3 * 64) / 64, abs=1e-3)
        assert entry["near_depth_boundary"] > 0 and entry["near_motion_boundary"] > 0
        assert 0.4 < entry["t_tgt_is_t_cam"] < 0.65  # 0.4, and by chance for one in six of the rest
        assert set(entry["known"]) == {"xyz", "uv", "visible", "displacement", "normal"}
        assert 0.9 < entry["known"]["xyz"] <= 1
    assert 0 < metrics["known_targets_at_rest"] < 1
    assert Ledger.load(tmp_path / "ledger.json").num_delivered == 24


def test_histograms_add_up_and_stay_in_their_limits(cli, shards: Path, tmp_path: Path) -> None:
    assert cli("stream", "stats", shards, "--out", tmp_path, *SMALL).code == 0
    stride = table(tmp_path / "stride.csv")
    # 12 frames leave strides 1 and 2 for 6; 5 frames only 1.
    assert (
        stride["stride"] == [1, 2] and sum(stride["share"]) == pytest.approx(1) and min(stride["share"]) > 0
    )
    area = table(tmp_path / "crop_area.csv")
    assert sum(area["share"]) == pytest.approx(1, abs=1e-4) and len(area["area"]) == 10
    assert sum(s for a, s in zip(area["area"], area["share"], strict=True) if a > 0.3) > 0.8
    times = table(tmp_path / "query_times.csv")
    assert times["frame"] == list(range(6))
    for name in ("t_src", "t_tgt", "t_cam"):
        assert sum(times[name]) == pytest.approx(1, abs=1e-4) and min(times[name]) > 0.03
    motion = table(tmp_path / "motion.csv")
    assert sum(motion["share"]) == pytest.approx(1, abs=1e-4)
    depth = table(tmp_path / "depth.csv")
    assert not any(depth["unknown"])
    for scale in ("metric", "sfm"):
        assert sum(depth[scale]) == pytest.approx(1, abs=1e-4)
    likeliest = depth["log2_depth"][depth["metric"].index(max(depth["metric"]))]
    assert 2 < likeliest < 5  # worlds are some ten metres deep


def test_all_but_the_rate_is_the_same_again(cli, shards: Path, tmp_path: Path) -> None:
    for name, workers in (("a", 0), ("b", 0)):
        assert (
            cli("stream", "stats", shards, "--out", tmp_path / name, *SMALL, "--workers", workers).code == 0
        )
    for path in (tmp_path / "a").iterdir():
        one, two = path.read_text(), (tmp_path / "b" / path.name).read_text()
        if path.name == "metrics.json":
            one, two = ({**json.loads(text), "clips_per_s": 0} for text in (one, two))
        assert one == two, path.name


def test_failures_are_counted_or_stop_it(cli, shards: Path, tmp_path: Path) -> None:
    import shutil

    broken = Path(shutil.copytree(shards, tmp_path / "set"))
    at = open_set(shards).member(0, "rgb.pack")
    data = bytearray((broken / at.shard).read_bytes())
    data[at.offset + 9] ^= 1
    (broken / at.shard).write_bytes(data)
    stopped = cli("stream", "stats", broken, "--out", tmp_path / "out", *SMALL)
    assert stopped.code == 1 and "Member is corrupt" in stopped.err and not (tmp_path / "out").exists()
    within = cli("stream", "stats", broken, "--out", tmp_path / "out", *SMALL, "--failure-budget", 24)
    assert within.code == 0
    metrics = json.loads((tmp_path / "out" / "metrics.json").read_text())
    assert metrics["failures"] == {"ShardError: Member is corrupt": metrics["samples"]["failed"]}
    assert 0 < metrics["samples"]["failed"] < 24


@pytest.mark.parametrize("option", [("--mixture", "alpha"), ("--mixture", "alpha=much"), ("--mixture", "gamma=1"),
                                    ("--steps", 0), ("--sampler", "papper")])  # fmt: skip
def test_options_that_do_not_fit(cli, shards: Path, tmp_path: Path, option: tuple[str, object]) -> None:
    result = cli("stream", "stats", shards, "--out", tmp_path / "out", *option)
    assert result.code == 2 and "Traceback" not in result.err and not (tmp_path / "out").exists()


def test_verify_reports(cli, shards: Path, tmp_path: Path) -> None:
    import shutil

    broken = Path(shutil.copytree(shards, tmp_path / "broken"))
    (broken / "stray.tar").write_bytes(b"")
    result = cli("verify", shards, broken, "--report", tmp_path / "report.json")
    assert result.code == 1
    report = json.loads((tmp_path / "report.json").read_text())
    sound, bad = report[str(shards)], report[str(broken)]
    assert sound["num_problems"] == 0 and (sound["clips"], sound["frames"], sound["shards"]) == (2, 17, 1)
    assert bad["num_problems"] == 1 and "stray.tar" in bad["problems"][0]["where"]
    (broken / "manifest.json").write_text("{}")
    assert cli("verify", broken, "--quick", "--report", tmp_path / "report.json").code == 1
    report = json.loads((tmp_path / "report.json").read_text())[str(broken)]
    assert report["num_problems"] == 1 and report["is_quick"] and "clips" not in report
