"""Stop real processes in the middle of real work, in the ways people and machines do."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from datakit.cli import main
from datakit.convert import run

from .conftest import start_cli, wait_until


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def children(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def is_running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


@pytest.mark.slow
@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize("kind", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_run_stops_clean_and_goes_on(plugin, native, tmp_path, workers, kind):
    raw, out = native(a="ok", b="slow", c="slow"), tmp_path / "out"
    process = start_cli("convert", "fakeset", raw, out, "--workers", workers)
    wait_until(lambda: (out / "a.h5").exists() and (out / "b.h5.partial").exists(), process)
    if kind == signal.SIGINT:
        os.killpg(process.pid, kind)  # a terminal sends it to every process of the group
    else:
        process.send_signal(kind)
    stdout, stderr = process.communicate(timeout=60)
    assert process.returncode == 130, (stdout, stderr)
    assert "the same command goes on" in stdout
    assert "Traceback" not in stdout + stderr
    assert sorted(contents(out)) == ["a.h5", "report.json"]
    (raw / "go").touch()
    report = run("fakeset", raw, out)
    assert report.already_there == ("a",) and report.converted == ("b", "c")


@pytest.mark.slow
def test_kill_9_and_the_same_command_give_the_same_bytes(tmp_path):
    raw, out = tmp_path / "raw", tmp_path / "out"
    options = ["--num-scenes", "5", "--frames", "12", "--size", "96x64", "--seed", "3"]
    assert main(["world", "kubric", str(raw), "--form", "worker", *options]) == 0
    run("kubric", raw, tmp_path / "whole")
    process = start_cli("convert", "kubric", raw, out, "--workers", 2)
    wait_until(lambda: list(out.glob("*.h5")) and list(out.glob("*.partial")), process)
    workers = children(process.pid)
    process.kill()
    process.wait()
    try:
        wait_until(lambda: not any(map(is_running, workers)))  # nobody goes on without the one in charge
    finally:
        for pid in filter(is_running, workers):
            os.kill(pid, signal.SIGKILL)
    whole = contents(tmp_path / "whole")
    finished = [path.name for path in out.glob("*.h5")]
    assert 0 < len(finished) < 5
    assert all((out / name).read_bytes() == whole[name] for name in finished)
    assert not (out / "report.json").exists()
    assert main(["convert", "kubric", str(raw), str(out), "--workers", "2"]) == 0
    assert contents(out) == whole
