"""datakit convert."""

from __future__ import annotations

import time
from pathlib import Path

import click

from .common import parse_pairs, usable_cpus, verb


@verb("""
datakit convert kubric RAW OUT
datakit convert kubric RAW OUT --workers 8 --split train
datakit convert kubric RAW OUT --scenes 'movi_e-*' --limit 10 --dry-run
datakit convert kubric RAW OUT --param frame_rate=24 --max-failures 5
datakit convert kubric RAW OUT --ray auto --workers 64
""")
@click.argument("dataset")
@click.argument("raw", type=click.Path(path_type=Path))
@click.argument("out", type=click.Path(path_type=Path))
@click.option("--scenes", default="*", metavar="GLOB", help="Only scenes whose id matches this pattern.")
@click.option("--split", metavar="NAME", help="Only this official split.")
@click.option("--limit", type=int, metavar="N", help="Only the first N scenes.")
@click.option("--workers", type=int, metavar="N", help="Scenes at a time.  [default: one per CPU]")
@click.option("--param", "params", multiple=True, metavar="KEY=VALUE", help="Parameter of the converter.")
@click.option(
    "--max-failures", default=0, show_default=True, metavar="N", help="Scenes that may fail before it stops."
)
@click.option("--ray", metavar="ADDRESS", help="Run on this Ray cluster ('local' starts one here).")
@click.option("--force", is_flag=True, help="Convert also what is already there.")
@click.option("--prune", is_flag=True, help="Delete scenes in OUT that the native tree does not have.")
@click.option("--dry-run", is_flag=True, help="Only list what would be done.")
def command(
    dataset: str,
    raw: Path,
    out: Path,
    scenes: str,
    split: str | None,
    limit: int | None,
    workers: int | None,
    params: tuple[str, ...],
    max_failures: int,
    ray: str | None,
    force: bool,
    prune: bool,
    dry_run: bool,
) -> int:
    """Convert native files under RAW into scenes OUT/<id>.h5.

    A scene appears when it is whole, and what is there already is not made again: stop it in any way and
    run the same command to go on. OUT/report.json says what is there, what failed, and why.
    """
    from datakit.convert import run

    start = time.monotonic()
    report = run(
        dataset,
        raw,
        out,
        scenes=scenes,
        split=split,
        limit=limit,
        workers=usable_cpus() if workers is None else workers,
        isolated=True,
        params=parse_pairs(params, "--param"),
        max_failures=max_failures,
        ray=ray,
        force=force,
        prune=prune,
        dry_run=dry_run,
    )
    if dry_run:
        for ref in report.plan.refs:
            state = "convert" if ref.id in report.plan.todo else "already there"
            frames = "" if ref.num_frames is None else f"{ref.num_frames} frames"
            click.echo(f"{state:<14}{ref.id:<32}{ref.split:<12}{frames:<12}{ref.num_bytes / 1e6:10.1f} MB")
        return 0
    click.echo(str(report))
    click.echo(f"in {time.monotonic() - start:.1f} s")
    return report.exit_code
