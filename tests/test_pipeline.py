"""The DVC pipeline, for real, on a copy of the project's stages with little data."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterable
from pathlib import Path

import pytest
import yaml

from datakit.cli.convert import command as convert
from datakit.convert.registry import installed
from datakit.d4rt import count_parameters
from datakit.shards import PackParams, pack
from datakit.train import load_config

ROOT = Path(__file__).parents[1]
BIN = Path(sys.executable).parent
SOURCES = ("kubric-train", "kubric-held-out")

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not (BIN / "dvc").exists(), reason="the extra [dvc] is not installed"),
]


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A workspace with our stages, and with everything they depend on."""
    project = tmp_path / "project"
    skip = shutil.ignore_patterns("__pycache__")
    rooms = ("certify", "d4rt", "evaluate", "queries", "scene", "shards", "stream", "train", "worlds")
    for folder in ("schemas", "converters", *(f"datakit/{room}" for room in rooms)):
        shutil.copytree(ROOT / folder, project / folder, ignore=skip)
    for file in ("dvc.yaml", ".dvcignore"):
        shutil.copy(ROOT / file, project / file)
    params = embedded()
    # Two sources show how stages hang together; that each converter's worlds go through them, its own tests show.
    for group in ("sources", "native"):
        params[group] = {name: params[group][name] for name in SOURCES}
    for tree in params["native"].values():
        tree["options"] |= {"num-scenes": 1, "frames": 6, "size": "64x48"}
    # Learning is `tests/train`'s affair; here it is whether the stage runs, and when.
    params["train"]["model"] = {"image_size": 32, "num_frames": 4, "encoder_depth": 2, "decoder_depth": 1}
    params["train"]["optim"] = {"steps": 4, "warmup_steps": 1}
    params["train"]["data"] |= {"batch_size": 1, "queries": 16, "workers": 0}
    params["train"]["validation"] |= {"every": 2, "queries": 16}
    params["stream"] |= {"steps": 3, "clip-frames": 3, "size": 32, "num-queries": 64}
    write_params(project, params)
    subprocess.run(["git", "init", "-q", str(project)], check=True)
    (project / ".dvc").mkdir()
    shutil.copy(ROOT / ".dvc" / "config", project / ".dvc" / "config")
    return project


def environment() -> dict[str, str]:
    """Ours first, for the `datakit` of the stages too."""
    path = os.pathsep.join([str(BIN), os.environ["PATH"]])
    return {**os.environ, "PATH": path, "PYTHONPATH": str(ROOT)}


def dvc(project: Path, *args: str) -> str:
    done = subprocess.run(
        [BIN / "dvc", *args], cwd=project, capture_output=True, text=True, env=environment()
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def write_params(project: Path, params: dict) -> None:
    (project / "params.yaml").write_text(yaml.safe_dump(params))


def embedded() -> dict:
    return yaml.safe_load((ROOT / "params.yaml").read_text())


def read_params(project: Path) -> dict:
    return yaml.safe_load((project / "params.yaml").read_text())


def repro(project: Path, *targets: str) -> set[str]:
    """Run it, or what some stages need; return the stages that ran."""
    lines = dvc(project, "repro", *targets).splitlines()
    return {line.split("'")[1] for line in lines if line.startswith("Running stage")}


#: What runs again when scenes or certificates of a source changed, for it and for all.
AFTER = ("certify", "pack", "verify")
AT_THE_END = ("rollup", "stream", "train")


def stages(verbs: Iterable[str], sources: Iterable[str] = SOURCES, *single: str) -> set[str]:
    return {f"{verb}@{source}" for verb in verbs for source in sources} | set(single)


def test_the_pipeline_runs_what_changed_and_nothing_else(project, tmp_path):
    everything = stages(("native", "convert", *AFTER), SOURCES, *AT_THE_END)
    assert repro(project) == everything
    check_metrics_and_plots(project)

    assert repro(project) == set(), "a second time does nothing"

    params = read_params(project)
    params["certify"]["seed"] = 1
    write_params(project, params)
    assert repro(project) == stages(AFTER, SOURCES, *AT_THE_END)

    # A parameter of one converter: that source alone. Of packing: all sets are replaced.
    params["sources"]["kubric-held-out"]["options"] = {"param": "frame_rate=24"}
    params["pack"]["clip-frames"] = 4
    write_params(project, params)
    changed = stages(("convert", "certify"), SOURCES[1:], *AT_THE_END)
    assert repro(project) == changed | stages(("pack", "verify"))

    # Of the stream, which nothing depends on.
    params["stream"]["seed"] = 7
    write_params(project, params)
    assert repro(project) == {"stream"}

    # Of the training: the run in the folder is replaced.
    params["train"]["optim"]["lr"] = 3e-4
    write_params(project, params)
    assert repro(project) == {"train"}
    assert trained(project)["optim"]["lr"] == 3e-4

    # Code of the converter that gives the same scenes: they are found to be there, and nothing after them runs.
    (project / "converters" / "kubric" / "note.txt").write_text("changed")
    assert repro(project) == {name for name in everything if name.startswith(("native", "convert"))}

    # A release of the user's own, elsewhere on this machine, by changing params.yaml alone.
    own = tmp_path / "release"
    shutil.copytree(project / "data" / "native" / "kubric-train", own)
    params["sources"]["kubric-train"] |= {"root": str(own), "watch": str(own)}
    del params["native"]["kubric-train"]
    write_params(project, params)
    convert = "convert@kubric-train"
    assert repro(project, convert) == {convert}
    assert repro(project, convert) == set()
    victim = next(own.rglob("events.json"))
    victim.write_text(victim.read_text() + " ")
    assert repro(project, convert) == {convert}


def trained(project: Path) -> dict:
    """Configuration of the run that is there."""
    return yaml.safe_load((project / "data" / "runs" / "train" / "config.yaml").read_text())


def check_metrics_and_plots(project: Path) -> None:
    folder = project / "data" / "metrics"
    metrics = json.loads((folder / "certificates.json").read_text())
    assert set(metrics) == set(SOURCES)
    assert all(item["scenes"] == 1 and item["verdicts"]["fail"] == 0 for item in metrics.values())
    for source in SOURCES:
        report = folder / "verified" / f"{source}.json"
        assert report.stat().st_size < 10_000
        ((name, found),) = json.loads(report.read_text()).items()
        assert name == f"data/shards/{source}" and found["num_problems"] == 0 and found["clips"] == 1
    streamed = json.loads((folder / "stream" / "metrics.json").read_text())
    assert streamed["samples"] == {"delivered": 12, "failed": 0} and streamed["clips_per_s"] > 0

    held_out = json.loads((folder / "train" / "metrics.json").read_text())
    assert held_out["step"] == 4 and {"model", "constant_depth", "margin"} <= set(held_out)
    assert len((folder / "train" / "loss.csv").read_text().splitlines()) == 1 + 4

    shown = json.loads(dvc(project, "metrics", "show", "--json"))[""]["data"]
    metrics_files = ("certificates.json", "stream/metrics.json", "train/metrics.json")
    assert set(shown) == {f"data/metrics/{name}" for name in metrics_files}
    of_stream = shown["data/metrics/stream/metrics.json"]["data"]
    assert of_stream.items() <= streamed.items() and {"shares", "queries", "clips_per_s"} <= set(of_stream)
    drawn = json.loads(dvc(project, "plots", "show", "--json"))
    assert not drawn.get("errors")
    titles = {"frame strides", "crops", "query times", "motion", "depth", "data/metrics/measures.csv"}
    titles |= {"loss", "held-out APD3D", "held-out AbsRel"}
    assert set(drawn["data"]) == titles
    assert all(plot["content"]["data"]["values"] for plots in drawn["data"].values() for plot in plots)


def test_a_killed_pipeline_keeps_the_scenes_it_had(project):
    dvc(project, "repro", "convert@kubric-train")
    scenes = project / "data" / "scenes" / "kubric-train"
    (scene,) = scenes.glob("*.h5")
    inode_bytes = scene.read_bytes()
    # As after a kill: a finished scene in the workspace that DVC has not recorded.
    (project / "dvc.lock").unlink()
    done = dvc(project, "repro", "convert@kubric-train")
    assert "already there       1" in done
    assert scene.read_bytes() == inode_bytes


def test_killed_while_it_packs_it_goes_on(project, tmp_path):
    assert "certify@kubric-train" in repro(project, "certify@kubric-train")
    run = subprocess.Popen(
        [BIN / "dvc", "repro", "verify@kubric-train"],
        cwd=project,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env=environment(),
        start_new_session=True,
    )
    shards = project / "data" / "shards" / "kubric-train"
    while not shards.exists():
        assert run.poll() is None
        time.sleep(0.01)
    os.killpg(run.pid, signal.SIGKILL)
    run.wait()
    assert not (shards / "manifest.json").exists()
    assert repro(project, "verify@kubric-train") == stages(("pack", "verify"), SOURCES[:1])
    assert not (shards / ".pack-work").exists()
    straight = tmp_path / "straight"
    data = project / "data"
    pack(
        data.glob("scenes/kubric-train/*.h5"),
        straight,
        certificates=data / "certificates" / "kubric-train",
        params=PackParams(min_level="not_testable"),
        progress=False,
    )
    for path in straight.iterdir():
        assert path.read_bytes() == (shards / path.name).read_bytes()


def test_a_killed_training_goes_on(project):
    params = read_params(project)
    params["train"]["optim"]["steps"] = 200
    params["train"]["checkpoint"] = {"every": 5}
    write_params(project, params)
    repro(project, *stages(("pack", "verify")))
    run = subprocess.Popen(
        [BIN / "dvc", "repro", "--single-item", "train"],
        cwd=project,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env=environment(),
        start_new_session=True,
    )
    checkpoints = project / "data" / "runs" / "train" / "checkpoints"
    while not list(checkpoints.glob("step-*")):
        assert run.poll() is None
        time.sleep(0.05)
    os.killpg(run.pid, signal.SIGKILL)
    run.wait()
    assert not (project / "data" / "metrics" / "train").exists()
    said = dvc(project, "repro", "--single-item", "train")
    starts = json.loads((project / "data" / "runs" / "train" / "run.json").read_text())["starts"]
    assert len(starts) == 2 and "Running stage 'train'" in said
    steps = (project / "data" / "metrics" / "train" / "loss.csv").read_text().splitlines()
    assert len(steps) == 1 + 200


def test_the_profile_for_real_releases_resolves(project):
    """Every stage of it has a command that `datakit` understands; the data are not here."""
    shutil.copy(ROOT / "params.full.yaml", project / "params.yaml")
    params = read_params(project)
    assert set(installed()) == {item["dataset"] for item in embedded()["sources"].values()}
    listed = dvc(project, "stage", "list", "--all", "--name-only").split()
    assert {f"convert@{source}" for source in params["sources"]} <= set(listed)
    assert not any(name.startswith("native@") for name in listed)
    assert {item["dataset"] for item in params["sources"].values()} <= set(installed())
    config = load_config(project / "params.yaml", section="train")
    assert count_parameters(config.model)["total"] > 1e9
    packed = {f"data/shards/{source}" for source in params["sources"]}
    assert set(config.data.shards) | set(config.validation.shards) == packed
    datasets = {params["sources"][Path(path).name]["dataset"] for path in config.data.shards}
    assert set(config.data.mixture) == datasets
    for item in params["sources"].values():
        given = [str(part) for name, value in item["options"].items() for part in (f"--{name}", value)]
        assert convert.make_context("convert", [item["dataset"], "RAW", "OUT", *given])
