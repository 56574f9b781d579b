"""What is installed is what is here: packages, tables, entry points."""

from __future__ import annotations

import subprocess
import sys
import venv
import zipfile
from importlib.resources import files
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


def test_the_tables_are_importable_as_a_package():
    names = {item.name for item in files("datakit.schema.tables").iterdir()}
    assert {path.name for path in (ROOT / "schemas").glob("*.yaml")} <= names


@pytest.mark.slow
def test_rooms_are_there_without_being_imported_by_name(tmp_path):
    """`datakit.stream(...)` is the function that `datakit.stream.stream` is, in a process that imports nothing else."""
    script = (
        "import sys, datakit\n"
        "assert 'datakit.stream' not in sys.modules\n"
        "assert not [room for room in datakit._ROOMS if room not in dir(datakit)]\n"
        "try:\n    datakit.stream(sys.argv[1], batch_size=1)\n"
        "except datakit.DatakitError as error:\n    assert 'manifest' in str(error), error\n"
        "else:\n    raise SystemExit('no error')\n"
        "assert datakit.queries.sample and not hasattr(datakit, 'nothing')\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, tmp_path], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


def test_a_built_wheel_carries_everything(tmp_path):
    # Built with the setuptools that is installed, for the network may be out of reach.
    source = tmp_path / "source"
    source.mkdir()
    for name in ("datakit", "converters", "schemas", "pyproject.toml", "setup.py", "README.md", "LICENSE"):
        subprocess.run(["cp", "-r", str(ROOT / name), str(source)], check=True)
    command = [
        sys.executable,
        "-m",
        "pip",
        "wheel",
        "--no-deps",
        "--no-build-isolation",
        "-q",
        "-w",
        "w",
        ".",
    ]
    subprocess.run(command, check=True, cwd=source)
    (wheel,) = (source / "w").glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        inside = set(archive.namelist())
    for top in ("datakit", "converters"):
        wanted = {
            path.relative_to(ROOT).as_posix()
            for path in (ROOT / top).rglob("*")
            if path.is_file() and "__pycache__" not in path.parts
        }
        assert wanted <= inside
    for path in (ROOT / "schemas").rglob("*.[yj]*"):
        assert f"datakit/schema/tables/{path.relative_to(ROOT / 'schemas').as_posix()}" in inside
    # Installed for real, away from the source; third-party packages are borrowed from here.
    venv.create(tmp_path / "env", with_pip=False, symlinks=True)
    python = tmp_path / "env" / "bin" / "python"
    target = subprocess.run(
        [python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"],
        check=True,
        capture_output=True,
        text=True,
    ).stdout.strip()
    install = [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--target", target, str(wheel)]
    subprocess.run(install, check=True)
    borrowed = next(path for path in sys.path if path.endswith("site-packages"))
    code = (
        f"import sys; sys.path.append({borrowed!r})\n"
        "import datakit, converters.kubric\n"
        "from datakit.schema import table\n"
        "from datakit.convert import installed\n"
        "assert table('scene').fields and 'kubric' in installed()\n"
        "print(datakit.__file__)"
    )
    shown = subprocess.run(
        [python, "-I", "-c", code], check=True, capture_output=True, text=True, cwd=tmp_path
    )
    assert shown.stdout.startswith(str(tmp_path))
