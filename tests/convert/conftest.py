from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

HERE = Path(__file__).parent
ROOT = HERE.parents[1]


def install(folder: Path, name: str, target: str, group: str = "datakit.converters") -> Path:
    """Make `folder` look like site-packages with a package that has one entry point."""
    info = folder / f"{name}-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(f"[{group}]\n{name} = {target}\n")
    return folder


@pytest.fixture
def plugin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Folder with the installed fake converter, on the path of this process and of those it starts."""
    folder = install(tmp_path / "plugin", "fakeset", "fakeset")
    shutil.copy(HERE / "fakeset.py", folder)
    monkeypatch.syspath_prepend(folder)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(folder), str(ROOT)]))
    yield folder
    sys.modules.pop("fakeset", None)


@pytest.fixture
def native(tmp_path: Path) -> Callable[..., Path]:
    """Make a native tree: `native(a="ok", b="bug")`."""

    def make(**modes: str) -> Path:
        root = tmp_path / "raw"
        root.mkdir(exist_ok=True)
        for name, mode in modes.items():
            (root / f"{name}.txt").write_text(mode)
        return root

    return make


def start_cli(*args: object) -> subprocess.Popen[str]:
    """Start `datakit` as a process group of its own, like a terminal does."""
    return subprocess.Popen(
        [sys.executable, "-c", "import sys; from datakit.cli import main; sys.exit(main())", *map(str, args)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def wait_until(condition: Callable[[], object], process: subprocess.Popen[str] | None = None) -> None:
    """Wait for something another process does; a minute is far more than it needs."""
    deadline = time.monotonic() + 60
    while not condition():
        if process is not None and process.poll() is not None:
            pytest.fail(f"ended early with {process.returncode}: {process.communicate()}")
        assert time.monotonic() < deadline, "it never happened"
        time.sleep(0.005)
