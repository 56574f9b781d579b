"""datakit verify."""

from __future__ import annotations

import sys

import click

from .common import verb


@verb("""
datakit verify SHARDS
datakit verify SHARDS --quick
datakit verify s3://bucket/shards
""")
@click.argument("sets", nargs=-1, required=True)
@click.option("--quick", is_flag=True, help="Only the manifest, the index and the sizes of the shards.")
def command(sets: tuple[str, ...], quick: bool) -> int:
    """Check every byte of shard SETS (folders or URLs) and name each member that is not as it was packed.

    Exits with 1 if there is any problem.
    """
    from datakit.shards import verify

    num_bad = 0
    for root in sets:
        problems = verify(root, quick, progress=sys.stderr.isatty())
        num_bad += bool(problems)
        how = "ok (sizes, index and manifest only)" if quick else "ok"
        click.echo(f"{root}: {f'{len(problems)} problem(s)' if problems else how}")
        for problem in problems:
            click.echo(f"  {type(problem).__name__}: " + str(problem).replace("\n", "\n  "))
    return int(num_bad > 0)
