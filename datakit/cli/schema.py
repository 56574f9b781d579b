"""datakit schema."""

from __future__ import annotations

from pathlib import Path

import click

from .common import verb


@verb("""
datakit schema
datakit schema --root elsewhere
""")
@click.option(
    "--root",
    default=".",
    show_default=True,
    type=click.Path(path_type=Path, file_okay=False),
    help="Where `schemas/json` and `docs/contract.md` are written.",
)
def command(root: Path) -> None:
    """Make the JSON Schema files and the docs page from the tables of the contract."""
    from datakit.schema import write_docs

    for path in write_docs(root):
        click.echo(path)
