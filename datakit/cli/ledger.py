"""datakit ledger."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, cast

import click

from .common import verb

_FILE = click.Path(path_type=Path, exists=True, dir_okay=False)


@verb(
    """
datakit ledger show run/ledger.rank*.json
datakit ledger diff before.json after.json
""",
    cls=click.Group,
)
def command() -> None:
    """Look at what a model really saw: the mixture ledgers written beside checkpoints.

    `datakit ledger VERB --help` has examples.
    """


@verb("""
datakit ledger show run/ledger.rank*.json
""")
@click.argument("ledgers", nargs=-1, required=True, type=_FILE)
@click.option("--json", "as_json", is_flag=True, help="Print all of it as JSON.")
def show(ledgers: tuple[Path, ...], as_json: bool) -> None:
    """Show LEDGERS, the ranks of one run added up."""
    merged = _merged(ledgers).to_json()
    click.echo(json.dumps(merged, indent=2) if as_json else "\n".join(_lines(merged)))


@verb("""
datakit ledger merge run/ledger.rank*.json --out run/ledger.json
""")
@click.argument("ledgers", nargs=-1, required=True, type=_FILE)
@click.option("--out", required=True, type=click.Path(path_type=Path), help="Where to write the sum.")
def merge(ledgers: tuple[Path, ...], out: Path) -> None:
    """Add up LEDGERS of the ranks, or of the parts, of one run."""
    _merged(ledgers).save(out)


@verb("""
datakit ledger diff before.json after.json
datakit ledger diff before.json after.json --json | jq .shares
""")
@click.argument("a", type=_FILE)
@click.argument("b", type=_FILE)
@click.option("--json", "as_json", is_flag=True, help="Print the differences as JSON.")
def diff(a: Path, b: Path, as_json: bool) -> int:
    """Say how ledgers A and B differ; exit code 1 if they do."""
    from datakit.stream import Ledger, compare

    found = compare(Ledger.load(a), Ledger.load(b))
    click.echo(json.dumps(found, indent=2) if as_json else "\n".join(_differences(found)) or "no difference")
    return 1 if found else 0


cast("click.Group", command).add_command(show, "show")
cast("click.Group", command).add_command(merge, "merge")
cast("click.Group", command).add_command(diff, "diff")


def _merged(paths: tuple[Path, ...]) -> Any:
    from datakit.stream import Ledger, merge

    return merge(Ledger.load(path) for path in paths)


def _lines(ledger: dict[str, Any]) -> list[str]:
    samples = ledger["samples"]
    lines = [f"{samples['delivered']} samples delivered, {samples['failed']} failed"]
    for kind, shares in ledger["shares"].items():
        lines.append(f"{kind:<42}  requested  delivered  samples")
        for name, entry in shares.items():
            asked = "" if entry["requested"] is None else f"{entry['requested']:.3%}"
            lines.append(
                f"  {name or '(none)':<40}  {asked:>9}  {entry['delivered']:>9.3%}  {entry['samples']:>7}"
            )
    times = ", ".join(f"{clips} clips {times}x" for times, clips in ledger["repeats"].items())
    lines.append(f"shown: {times}")
    lines += [f"failed {entry['count']}x: {reason}" for reason, entry in ledger["failures"].items()]
    return [*lines, f"content hash {ledger['content_hash']}"]


def _differences(found: dict[str, Any]) -> list[str]:
    lines = []
    for name in ("order", "samples", "repeats", "failures", "content"):
        if name in found:
            lines.append(f"{name}: {json.dumps(found[name])}")
    for kind, names in found.get("shares", {}).items():
        lines += [f"{kind} {name}: {was:.3%} -> {now:.3%}" for name, (was, now) in names.items()]
    return lines
