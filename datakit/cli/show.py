"""datakit show."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from datakit.errors import FormatError

from .common import verb


@verb("""
datakit show OUT/3.h5 -o report.html
datakit show OUT/3.h5 -o report.html --certificate certificates/3.certificate.json
""")
@click.argument("scene", type=click.Path(path_type=Path))
@click.option("-o", "--out", required=True, type=click.Path(path_type=Path), help="The HTML file to write.")
@click.option(
    "--certificate",
    type=click.Path(path_type=Path),
    help="Certificate to show.  [default: <scene>.certificate.json beside the scene, if there]",
)
def command(scene: Path, out: Path, certificate: Path | None) -> None:
    """Write a report of SCENE as one HTML file that opens offline.

    It shows frames, depth, instances, tracks, the camera path and the certificate.
    """
    from datakit.show import write_report

    beside = scene.with_name(f"{scene.stem}.certificate.json")
    if certificate is None and beside.is_file():
        certificate = beside
    write_report(scene, out, None if certificate is None else _read_json(certificate))
    click.echo(out)


def _read_json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise FormatError(
            "The certificate is not JSON", where=path, found=error, mend="datakit certify SCENE"
        ) from error
    if not isinstance(content, dict):
        raise FormatError("The certificate is not one", where=path, expected="a JSON object")
    return content
