"""The folder of a run: what it is, what it has logged, and whether a second start belongs to it."""

from __future__ import annotations

import csv
import io
import json
import platform
import shutil
import subprocess
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Literal

import yaml

from datakit.convert.lock import LOCK_NAME
from datakit.errors import FormatError, UsageError

from .checkpoint import write_atomically
from .config import TrainConfig

RUN_VERSION = 1
#: What happens to a run that is in the folder already: it goes on if it is the same, else that is an error; it goes
#: on if it is the same and not finished, else it is deleted; it is deleted.
Existing = Literal["resume", "overwrite", "fresh"]
#: Packages whose versions are kept.
_PACKAGES = ("datakit", "torch", "numpy", "opencv-python-headless", "simplejpeg", "safetensors")
_LOGS = ("steps.jsonl", "validation.jsonl")
#: What a run leaves in its folder; `fresh` deletes these and nothing else.
_OURS = ("run.json", "config.yaml", *_LOGS, "loss.csv", "metrics.json")
_OUR_FOLDERS = ("checkpoints", "tensorboard")
#: Written when a run is finished, and only then.
_FINISHED = "loss.csv"


class RunFolder:
    """The folder of a run.

    Args:
        root: Where it is; made if it is not there.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self.checkpoints = root / "checkpoints"

    def begin(self, config: TrainConfig, order: Mapping[str, Any], existing: Existing) -> None:
        """Claim the folder for a run, or find that it is this run's already.

        Args:
            config: The configuration.
            order: Identity of the stream's order, which names the manifests.
            existing: What to do with a run that is here.

        Raises:
            UsageError: Another run, or something else, is here; the message says how it differs.
        """
        self.root.mkdir(parents=True, exist_ok=True)
        path = self.root / "run.json"
        about = {"version": RUN_VERSION, "config": config.identity(), "manifests": order["manifests"]}
        if existing == "fresh" or (
            existing == "overwrite" and path.exists() and not self._is_unfinished(about)
        ):
            self._clear()
        if path.exists():
            self._compare(_read_json(path), about)
        elif any((self.root / name).exists() for name in _OUR_FOLDERS + _LOGS):
            raise UsageError(
                "This folder holds files of a run, but no run.json",
                where=self.root,
                mend="--fresh deletes them; or choose another folder",
            )
        self.checkpoints.mkdir(exist_ok=True)
        starts = _read_json(path)["starts"] if path.exists() else []
        write_atomically(path, _as_json(about | {"starts": [*starts, _circumstances(config)]}))
        text = yaml.safe_dump(config.to_dict(), sort_keys=False)
        write_atomically(self.root / "config.yaml", text.encode())

    def beside(self) -> dict[str, bytes]:
        """Return the files that are copied into every checkpoint."""
        return {name: (self.root / name).read_bytes() for name in ("config.yaml", "run.json")}

    def rewind(self, step: int) -> None:
        """Forget what was logged after a step, which will be logged again; also a line cut short by a kill."""
        for name in _LOGS:
            kept = [line for line in _lines(self.root / name) if line["step"] <= step]
            data = "".join(json.dumps(line) + "\n" for line in kept)
            write_atomically(self.root / name, data.encode())

    def append(self, name: str, line: Mapping[str, Any]) -> None:
        """Add a line to a log; it has a `step`."""
        with (self.root / name).open("a") as file:
            file.write(json.dumps(line) + "\n")

    def lines(self, name: str) -> list[dict[str, Any]]:
        """Return the lines of a log."""
        return _lines(self.root / name)

    def write_curve(self) -> None:
        """Write `loss.csv`: a row a step, and the held-out measures where there are some; for plots."""
        held_out = {line["step"]: line for line in self.lines("validation.jsonl")}
        steps = self.lines("steps.jsonl")
        terms = sorted({name for line in steps for name in line["terms"]})
        measures = sorted({name for line in held_out.values() for name in line["model"]})
        out = io.StringIO()
        writer = csv.writer(out, lineterminator="\n")
        writer.writerow(["step", "loss", *terms, "lr", "grad_norm", *(f"held_out_{m}" for m in measures)])
        for line in steps:
            found = held_out.get(line["step"], {}).get("model", {})
            writer.writerow(
                [line["step"], line["loss"], *(line["terms"].get(name) for name in terms)]
                + [line["lr"], line["grad_norm"], *(found.get(name) for name in measures)]
            )
        write_atomically(self.root / "loss.csv", out.getvalue().encode())

    def write_metrics(self, metrics: Mapping[str, Any]) -> None:
        """Write `metrics.json`, which DVC reads."""
        write_atomically(self.root / "metrics.json", _as_json(metrics))

    def _clear(self) -> None:
        held = [path.name for path in self.root.iterdir() if path.name != LOCK_NAME]
        if held and "run.json" not in held:
            raise UsageError(
                "--fresh deletes a run, and this folder holds something else",
                where=self.root,
                expected="a folder with run.json, or an empty one",
                found=", ".join(sorted(held)[:5]),
            )
        for name in _OUR_FOLDERS:
            shutil.rmtree(self.root / name, ignore_errors=True)
        # run.json goes last: a kill before leaves a folder that can still be cleared.
        for name in (*_OURS[1:], _OURS[0]):
            (self.root / name).unlink(missing_ok=True)

    def _is_unfinished(self, about: Mapping[str, Any]) -> bool:
        """Whether the run that is here is this one, and was stopped before its end."""
        return not (self.root / _FINISHED).exists() and not _differences(
            _read_json(self.root / "run.json"), about
        )

    def _compare(self, theirs: Mapping[str, Any], ours: Mapping[str, Any]) -> None:
        differing = _differences(theirs, ours)
        if differing:
            flat_a, flat_b = dict(_flat(theirs)), dict(_flat(ours))
            raise UsageError(
                "Another run is in this folder",
                where=f"{self.root}: {', '.join(differing)}",
                expected={name: flat_a.get(name) for name in differing},
                found={name: flat_b.get(name) for name in differing},
                mend="choose another folder, go on with the same configuration and shards, or delete the run "
                "with --fresh",
            )


def _differences(theirs: Mapping[str, Any], ours: Mapping[str, Any]) -> list[str]:
    """Name the fields in which two descriptions of runs differ."""
    flat_a, flat_b = ({k: v for k, v in _flat(side) if k != "starts"} for side in (theirs, ours))
    return [name for name in sorted({*flat_a, *flat_b}) if flat_a.get(name) != flat_b.get(name)]


def _circumstances(config: TrainConfig) -> dict[str, Any]:
    """How this start came about: code, versions, machine."""
    return {
        "git": _git(),
        "python": platform.python_version(),
        "versions": {name: _version(name) for name in _PACKAGES},
        "config": config.to_dict(),
    }


def _git() -> dict[str, Any] | None:
    """Commit of the code, and whether files differ from it; None where the code is not in a repository."""
    here = Path(__file__).parent

    def ask(*arguments: str) -> str:
        return subprocess.run(
            ["git", "-C", str(here), *arguments], capture_output=True, text=True, check=True, timeout=30
        ).stdout.strip()

    try:
        # An installed package may lie in somebody else's repository.
        if not ask("ls-files", Path(__file__).name):
            return None
        return {"commit": ask("rev-parse", "HEAD"), "is_clean": not ask("status", "--porcelain")}
    except (OSError, subprocess.SubprocessError):
        return None


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _lines(path: Path) -> list[dict[str, Any]]:
    """Read a log; what follows the last whole line, after a kill, is not there."""
    if not path.exists():
        return []
    out = []
    for text in path.read_text().splitlines():
        try:
            out.append(json.loads(text))
        except ValueError:
            break
    return out


def _read_json(path: Path) -> dict[str, Any]:
    try:
        data = json.loads(path.read_text())
        if data["version"] != RUN_VERSION:
            raise FormatError(
                "Run of another version", where=path, expected=RUN_VERSION, found=data["version"]
            )
    except (ValueError, KeyError, TypeError) as error:
        raise FormatError("Not the description of a run", where=path, found=error) from error
    return dict(data)


def _flat(value: Any, name: str = "") -> list[tuple[str, Any]]:
    if isinstance(value, Mapping) and value:
        return [
            pair
            for key, inner in value.items()
            for pair in _flat(inner, f"{name}.{key}" if name else str(key))
        ]
    return [(name, json.loads(json.dumps(value)))]


def _as_json(value: Any) -> bytes:
    return (json.dumps(value, indent=1) + "\n").encode()
