"""datakit rollup."""

from __future__ import annotations

import csv
import io
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from datakit.errors import LayoutError

from .certificates import CERTIFICATE_SUFFIX, read_certificate, summarised, write_json, write_text
from .common import verb

if TYPE_CHECKING:
    from datakit.certify.certificate import Certificate


@verb("""
datakit rollup data/certificates --metrics metrics.json --plots measures.csv
dvc metrics diff
""")
@click.argument("folder", type=click.Path(path_type=Path))
@click.option("--metrics", required=True, type=click.Path(path_type=Path), help="JSON of numbers to write.")
@click.option("--plots", type=click.Path(path_type=Path), help="CSV to write, one row per scene and measure.")
def command(folder: Path, metrics: Path, plots: Path | None) -> None:
    """Roll all certificates below FOLDER up into one file of numbers per subfolder, as `dvc metrics` reads it."""
    groups: dict[str, list[Certificate]] = {}
    for path in sorted(folder.rglob(f"*{CERTIFICATE_SUFFIX}")):
        groups.setdefault(path.parent.relative_to(folder).as_posix(), []).append(read_certificate(path))
    if not groups:
        raise LayoutError("No certificate here", where=folder, expected=f"files *{CERTIFICATE_SUFFIX}")
    write_json(metrics, {group: _numbers(inside) for group, inside in groups.items()})
    if plots is not None:
        write_text(plots, _table(groups))
    for group, inside in groups.items():
        verdicts = [certificate.verdict for certificate in inside]
        counts = ", ".join(f"{verdicts.count(v)} {v}" for v in dict.fromkeys(sorted(verdicts)))
        click.echo(f"{group}: {counts}")


def _numbers(certificates: list[Certificate]) -> dict[str, Any]:
    summary = summarised(certificates)
    checks = {
        name: {**check["worst"], **{f"scenes_{v}": count for v, count in check["verdicts"].items()}}
        for name, check in summary["checks"].items()
    }
    return {"scenes": summary["scenes"], "verdicts": summary["verdicts"], "worst": checks}


def _table(groups: dict[str, list[Certificate]]) -> str:
    from datakit.certify.certificate import limit_ratio

    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["source", "scene", "check", "measure", "value", "limit_ratio", "verdict"])
    for group, certificates in groups.items():
        for item in certificates:
            for check in item.checks:
                for measure in check.measures:
                    ratio = limit_ratio(measure)
                    if ratio is not None:
                        writer.writerow(
                            [
                                group,
                                item.scene_id,
                                check.name,
                                f"{check.name}.{measure.name}",
                                measure.value,
                                f"{ratio:.6g}",
                                measure.verdict,
                            ]
                        )
    return text.getvalue()
