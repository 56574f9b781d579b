"""What several verbs share."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from functools import wraps
from pathlib import Path
from typing import Any

import click

from datakit.errors import LayoutError, UsageError

SCENE_SUFFIX = ".h5"
EXIT_ERROR, EXIT_USAGE, EXIT_INTERRUPTED = 1, 2, 130


def verb(
    examples: str, cls: type[click.Command] | None = None, resumes: bool = False
) -> Callable[[Callable[..., Any]], click.Command]:
    """Make a function a command of `datakit`: with examples under its help, and `--debug`.

    Args:
        examples: Lines to show as they are.
        cls: Kind of command; `click.Group` for a verb with verbs of its own.
        resumes: Whether a run that was interrupted has kept what it finished.
    """

    def wrap(function: Callable[..., Any]) -> click.Command:
        if resumes:
            function = _telling_how_to_go_on(function)
        debug = click.option(
            "--debug", is_flag=True, expose_value=False, help="Show the Python traceback of an error."
        )
        lines = "\n".join(f"  {line}".rstrip() for line in examples.strip().splitlines())
        made: click.Command = click.command(cls=cls, epilog=f"\b\nExamples:\n{lines}")(debug(function))
        made.context_settings = {"help_option_names": ["-h", "--help"], "max_content_width": 100}
        return made

    return wrap


def _telling_how_to_go_on(function: Callable[..., int]) -> Callable[..., int]:
    @wraps(function)
    def run(*args: Any, **options: Any) -> int:
        try:
            return function(*args, **options)
        except KeyboardInterrupt:
            click.echo("interrupted; the same command goes on where it stopped", err=True)
            return EXIT_INTERRUPTED

    return run


def usable_cpus() -> int:
    """Return how many CPUs this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def parse_pairs(pairs: Iterable[str], option: str) -> dict[str, str]:
    """Split `key=value` texts.

    Raises:
        UsageError: One has no "=", or a key comes twice.
    """
    out: dict[str, str] = {}
    for pair in pairs:
        key, sign, value = pair.partition("=")
        if not sign or not key or key in out:
            raise UsageError(
                "A parameter cannot be read", where=option, expected="key=value, each key once", found=pair
            )
        out[key] = value
    return out


def find_scenes(paths: Iterable[str | Path]) -> list[Path]:
    """Return the scene files among the given files and directly inside the given folders, in order.

    Raises:
        LayoutError: A path does not exist, or a folder holds no scene.
    """
    found: list[Path] = []
    for path in map(Path, paths):
        if path.is_dir():
            inside = sorted(path.glob(f"*{SCENE_SUFFIX}"))
            if not inside:
                raise LayoutError(
                    "No scene in this folder", where=path, expected=f"files named <scene>{SCENE_SUFFIX}"
                )
            found += inside
        elif path.is_file():
            found.append(path)
        else:
            raise LayoutError("No such file or folder", where=path, expected="a scene, or a folder of scenes")
    return list(dict.fromkeys(found))
