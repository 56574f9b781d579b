"""datakit stream."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import click

from datakit.errors import UsageError

from .common import parse_pairs, verb


@verb(
    """
datakit stream stats --help
""",
    cls=click.Group,
)
def command() -> None:
    """Try what a trainer would be given.

    `datakit stream VERB --help` has examples.
    """


@verb("""
datakit stream stats SHARDS --out STATS --steps 100 --workers 4
datakit stream stats KUBRIC WAYMO --out STATS --mixture kubric=3 --mixture waymo=1
datakit stream stats s3://bucket/shards --out STATS --clip-frames 24 --size 128
""")
@click.argument("sets", nargs=-1, required=True)
@click.option(
    "--out", required=True, type=click.Path(path_type=Path), help="Folder for metrics, histograms and ledger."
)
@click.option("--steps", default=50, show_default=True, type=click.IntRange(1), help="Batches to stream.")
@click.option("--batch-size", default=8, show_default=True, help="Clips of a batch.")
@click.option("--clip-frames", default=48, show_default=True, help="Frames of a clip.")
@click.option("--size", default=256, show_default=True, help="Side of the network's frames, px.")
@click.option("--num-queries", default=2048, show_default=True, help="Queries of a clip.")
@click.option("--sampler", default="paper", show_default=True, help="Which queries are drawn.")
@click.option(
    "--mixture", multiple=True, metavar="NAME=WEIGHT", help="Weight of a dataset [by number of clips]."
)
@click.option("--seed", default=0, show_default=True, help="Of the order.")
@click.option("--workers", default=0, show_default=True, help="Processes that decode.")
@click.option("--failure-budget", default=0, show_default=True, help="Clips that may be unreadable.")
def stats(sets: tuple[str, ...], out: Path, mixture: tuple[str, ...], **options: Any) -> None:
    """Stream shard SETS (folders or URLs) for some batches and write down what came.

    Writes OUT/metrics.json, and histograms as OUT/*.csv, for `dvc metrics` and `dvc plots`, and OUT/ledger.json for
    `datakit ledger`. All but the rate is the same each time.
    """
    from .statistics import measure, write

    weights = {name: _weight(name, text) for name, text in parse_pairs(mixture, "--mixture").items()}
    found = measure(list(sets), weights or None, **options)
    write(found, out)
    metrics = found.metrics()
    samples = metrics["samples"]
    click.echo(
        f"{samples['delivered']} clips delivered, {samples['failed']} failed; {metrics['clips_per_s']:.1f} clips/s"
    )


def _weight(name: str, text: str) -> float:
    try:
        return float(text)
    except ValueError as error:
        raise UsageError("A weight is a number", where=f"--mixture {name}", found=text) from error


cast("click.Group", command).add_command(stats, "stats")
