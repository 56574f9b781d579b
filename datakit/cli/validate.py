"""datakit validate."""

from __future__ import annotations

from pathlib import Path

import click

from .common import find_scenes, verb


@verb("""
datakit validate OUT
datakit validate OUT/3.h5 OUT/4.h5
""")
@click.argument("scenes", nargs=-1, required=True, type=click.Path(path_type=Path))
def command(scenes: tuple[Path, ...]) -> int:
    """Check SCENES (files, or folders of scenes): header, checksums, every frame, every value.

    Reads everything, one frame at a time. Exits with 1 if there is any problem.
    """
    from datakit.scene import validate_scene

    paths = find_scenes(scenes)
    num_bad = 0
    for path in paths:
        problems = validate_scene(path)
        num_bad += bool(problems)
        click.echo(f"{path}: {'ok' if not problems else f'{len(problems)} problem(s)'}")
        for problem in problems:
            click.echo(f"  {type(problem).__name__}: " + str(problem).replace("\n", "\n  "))
    click.echo(f"{len(paths) - num_bad} of {len(paths)} scene(s) are sound")
    return int(num_bad > 0)
