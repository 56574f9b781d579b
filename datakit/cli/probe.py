"""datakit probe."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import click

from .common import verb


@verb("""
datakit probe kubric RAW
datakit probe kubric RAW --json
""")
@click.argument("dataset")
@click.argument("raw", type=click.Path(path_type=Path))
@click.option("--json", "as_json", is_flag=True, help="Print the report as JSON.")
def command(dataset: str, raw: Path, as_json: bool) -> int:
    """Examine the native tree at RAW without converting it.

    Says which variant of the release it is, what is missing or truncated, and which supervision its scenes
    will give. Exits with 1 if something would keep a scene from being converted.
    """
    from datakit.convert import load_converter

    found = load_converter(dataset).probe(raw)
    errors = [problem for problem in found.problems if problem.severity == "error"]
    if as_json:
        click.echo(json.dumps(asdict(found), indent=2))
        return int(bool(errors))
    click.echo(f"{found.dataset}: {found.variant}")
    click.echo(f"  size         {found.num_bytes / 1e6:.1f} MB")
    for split, count in found.num_scenes.items():
        click.echo(f"  {split:<12} {count} scene(s)")
    click.echo(f"  will give    {', '.join(found.supervision) or 'nothing'}")
    for problem in found.problems:
        click.echo(f"\n{problem.severity}: {problem.what}\n  where: {problem.where}")
        if problem.mend:
            click.echo(f"  to mend: {problem.mend}")
    if not found.problems:
        click.echo("no problem found")
    return int(bool(errors))
