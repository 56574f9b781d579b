"""The DVC pipeline, for real, on a copy of the project's stages with little data."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[1]
BIN = Path(sys.executable).parent

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not (BIN / "dvc").exists(), reason="the extra [dvc] is not installed"),
]


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A workspace with our stages, and with everything they depend on."""
    project = tmp_path / "project"
    skip = shutil.ignore_patterns("__pycache__")
    for folder in ("schemas", "converters", "datakit/worlds", "datakit/certify", "datakit/scene"):
        shutil.copytree(ROOT / folder, project / folder, ignore=skip)
    for file in ("dvc.yaml", ".dvcignore"):
        shutil.copy(ROOT / file, project / file)
    params = yaml.safe_load((ROOT / "params.yaml").read_text())
    for tree in params["native"].values():
        tree["options"] |= {"num-scenes": 1, "frames": 6, "size": "64x48"}
    write_params(project, params)
    subprocess.run(["git", "init", "-q", str(project)], check=True)
    (project / ".dvc").mkdir()
    shutil.copy(ROOT / ".dvc" / "config", project / ".dvc" / "config")
    return project


def dvc(project: Path, *args: str) -> str:
    path = os.pathsep.join([str(BIN), os.environ["PATH"]])
    done = subprocess.run(
        [BIN / "dvc", *args], cwd=project, capture_output=True, text=True, env={**os.environ, "PATH": path}
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def write_params(project: Path, params: dict) -> None:
    (project / "params.yaml").write_text(yaml.safe_dump(params))


def read_params(project: Path) -> dict:
    return yaml.safe_load((project / "params.yaml").read_text())


def repro(project: Path) -> set[str]:
    """Run it; return the stages that ran."""
    lines = dvc(project, "repro").splitlines()
    return {line.split("'")[1] for line in lines if line.startswith("Running stage")}


def test_the_pipeline_runs_what_changed_and_nothing_else(project, tmp_path):
    everything = {
        *(
            f"{verb}@kubric-{form}"
            for verb in ("native", "convert", "certify")
            for form in ("worker", "tfds")
        ),
        "rollup",
    }
    assert repro(project) == everything
    metrics = json.loads((project / "data" / "metrics" / "certificates.json").read_text())
    assert set(metrics) == {"kubric-worker", "kubric-tfds"}
    assert all(item["scenes"] == 1 and item["verdicts"]["fail"] == 0 for item in metrics.values())
    shown = json.loads(dvc(project, "metrics", "show", "--json"))
    assert "kubric-tfds" in json.dumps(shown)

    assert repro(project) == set(), "a second time does nothing"

    params = read_params(project)
    params["certify"]["seed"] = 1
    write_params(project, params)
    assert repro(project) == {"certify@kubric-worker", "certify@kubric-tfds", "rollup"}

    # A parameter of one converter: that source alone.
    params["sources"]["kubric-tfds"]["options"] = {"param": "frame_rate=24"}
    write_params(project, params)
    assert repro(project) == {"convert@kubric-tfds", "certify@kubric-tfds", "rollup"}

    # Code of the converter that gives the same scenes: they are found to be there, and nothing after them runs.
    (project / "converters" / "kubric" / "note.txt").write_text("changed")
    assert repro(project) == {name for name in everything if name.startswith(("native", "convert"))}

    # A release of the user's own, elsewhere on this machine, by changing params.yaml alone.
    own = tmp_path / "release"
    shutil.copytree(project / "data" / "native" / "kubric-worker", own)
    params["sources"]["kubric-worker"] |= {"root": str(own), "watch": str(own)}
    del params["native"]["kubric-worker"]
    write_params(project, params)
    assert "convert@kubric-worker" in repro(project)
    assert repro(project) == set()
    victim = next(own.rglob("events.json"))
    victim.write_text(victim.read_text() + " ")
    assert "convert@kubric-worker" in repro(project)


def test_a_killed_pipeline_keeps_the_scenes_it_had(project):
    repro(project)
    scenes = project / "data" / "scenes" / "kubric-worker"
    (scene,) = scenes.glob("*.h5")
    inode_bytes = scene.read_bytes()
    # As after a kill: a finished scene in the workspace that DVC has not recorded.
    (project / "dvc.lock").unlink()
    done = dvc(project, "repro", "convert@kubric-worker")
    assert "already there       1" in done
    assert scene.read_bytes() == inode_bytes
