"""datakit verify."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from .certificates import write_json
from .common import verb

if TYPE_CHECKING:
    from datakit.errors import ShardError

#: Problems that a report spells out; it counts all of them.
_MOST = 100


@verb("""
datakit verify SHARDS
datakit verify SHARDS --quick
datakit verify s3://bucket/shards
datakit verify SHARDS --report verified.json
""")
@click.argument("sets", nargs=-1, required=True)
@click.option("--quick", is_flag=True, help="Only the manifest, the index and the sizes of the shards.")
@click.option(
    "--report", type=click.Path(path_type=Path), help="JSON of what was checked and found to write."
)
def command(sets: tuple[str, ...], quick: bool, report: Path | None) -> int:
    """Check every byte of shard SETS (folders or URLs) and name each member that is not as it was packed.

    Exits with 1 if there is any problem.
    """
    from datakit.shards import verify

    num_bad, found = 0, {}
    for root in sets:
        problems = verify(root, quick, progress=sys.stderr.isatty())
        found[root] = _entry(root, quick, problems)
        num_bad += bool(problems)
        how = "ok (sizes, index and manifest only)" if quick else "ok"
        click.echo(f"{root}: {f'{len(problems)} problem(s)' if problems else how}")
        for problem in problems:
            click.echo(f"  {type(problem).__name__}: " + str(problem).replace("\n", "\n  "))
    if report is not None:
        write_json(report, found)
    return int(num_bad > 0)


def _entry(root: str, quick: bool, problems: list[ShardError]) -> dict[str, Any]:
    """Say what was checked and what was found, for a report."""
    from datakit.errors import ShardError
    from datakit.shards import open_set

    entry: dict[str, Any] = {"num_problems": len(problems), "is_quick": quick}
    try:
        manifest = open_set(root).manifest
    except ShardError:
        pass  # it is among the problems
    else:
        entry |= {"manifest_sha256": manifest["manifest_sha256"], **manifest["totals"]}
        entry["shards"] = len(manifest["shards"])
    if problems:
        names = ("what", "where", "expected", "found")
        entry["problems"] = [{name: getattr(each, name) for name in names} for each in problems[:_MOST]]
    return entry
