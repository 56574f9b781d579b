"""Read certificate files back, for `certify` (to go on where it stopped) and `rollup`."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from datakit.errors import FormatError

if TYPE_CHECKING:
    from datakit.certify.certificate import Certificate

CERTIFICATE_SUFFIX = ".certificate.json"


def read_certificate(path: Path) -> Certificate:
    """Read what `datakit certify` wrote.

    Raises:
        FormatError: The file is no certificate, or one of another version.
    """
    from datakit.certify.certificate import Certificate, CheckResult, Measure

    try:
        raw = json.loads(path.read_text(encoding="utf-8"))
        raw["checks"] = tuple(
            CheckResult(**{**check, "measures": tuple(Measure(**item) for item in check["measures"])})
            for check in raw["checks"]
        )
        return Certificate(**raw)
    except (ValueError, TypeError, KeyError) as error:
        raise FormatError(
            "The certificate cannot be read",
            where=path,
            expected="a file written by this version of `datakit certify`",
            found=error,
            mend="certify the scene again",
        ) from error


def write_json(path: Path, content: Any) -> None:
    """Write JSON so that a reader sees the old file or the new one; a linked, read-only file is replaced."""
    write_text(path, json.dumps(content, indent=2, sort_keys=True) + "\n")


def write_text(path: Path, text: str) -> None:
    """Write text like `write_json`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(path.name + ".partial")
    partial.write_text(text, encoding="utf-8")
    partial.replace(path)


def summarised(certificates: Iterable[Certificate]) -> dict[str, Any]:
    """Roll certificates up, in an order that does not depend on how they came."""
    from datakit.certify.certificate import summarise

    return summarise(sorted(certificates, key=lambda item: (item.dataset, item.scene_id)))
