"""Reads `thresholds.yaml`: every limit of every check, with the reason for it."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

import yaml

from datakit.errors import FormatError

DEPTH_KINDS = ("rendered", "sensor", "mvs", "lidar", "pseudo")


@dataclass(frozen=True)
class Limit:
    """Where a measure warns and where it fails; a `warn` above its `fail` bounds the value from below."""

    warn: float | None
    fail: float | None
    unit: str


@dataclass(frozen=True)
class Thresholds:
    """All limits and all sizes of the sampling, as read from one file."""

    raw: dict[str, Any]
    where: str

    @property
    def sha256(self) -> str:
        """Hex digest of the canonical JSON of the file's content; comments and order do not count."""
        text = json.dumps(self.raw, sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()

    def limit(self, check: str, measure: str, depth_kind: str) -> Limit:
        """Return the limit of one measure for depth of one kind ("any" in the file serves all kinds)."""
        entry = self._at("checks", check, measure)
        bounds = entry.get(depth_kind, entry.get("any"))
        if bounds is None:
            raise FormatError(
                f"no limit for depth kind {depth_kind!r}",
                where=f"{self.where}: checks.{check}.{measure}",
                expected="a key of that kind, or 'any'",
                found=sorted(entry),
                mend="add the limit, with the reason for it",
            )
        return Limit(bounds.get("warn"), bounds.get("fail"), entry.get("unit", "1"))

    def setting(self, name: str, depth_kind: str = "any") -> Any:
        """Return a number from the `settings` part; by depth kind where the file says so."""
        value = self._at("settings", name)["value"]
        if isinstance(value, dict):
            return value[depth_kind] if depth_kind in value else value["any"]
        return value

    def _at(self, *keys: str) -> Any:
        node: Any = self.raw
        for key in keys:
            if not isinstance(node, dict) or key not in node:
                raise FormatError(
                    f"the thresholds lack {'.'.join(keys)}",
                    where=self.where,
                    expected=f"key {key!r}",
                    found=sorted(node) if isinstance(node, dict) else node,
                    mend="start from a copy of the thresholds that come with datakit",
                )
            node = node[key]
        return node


def load_thresholds(path: str | Path | None = None) -> Thresholds:
    """Read limits from a YAML file.

    Args:
        path: The file; None for the one that comes with datakit.

    Returns:
        The thresholds.

    Raises:
        FormatError: Not YAML, a measure without a reason, or a limit that is not a number.
    """
    if path is None:
        where = "datakit/certify/thresholds.yaml"
        text = resources.files("datakit.certify").joinpath("thresholds.yaml").read_text(encoding="utf-8")
    else:
        where, text = str(path), Path(path).read_text(encoding="utf-8")
    try:
        raw = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise FormatError(
            "the thresholds are not YAML", where=where, found=error, mend="mend the syntax"
        ) from error
    if not isinstance(raw, dict) or not {"settings", "checks"} <= set(raw):
        raise FormatError(
            "the thresholds have another layout",
            where=where,
            expected="keys 'settings' and 'checks'",
            found=raw,
        )
    _validate(raw, where)
    return Thresholds(raw, where)


def _validate(raw: dict[str, Any], where: str) -> None:
    for name, setting in raw["settings"].items():
        if not isinstance(setting, dict) or not setting.get("reason") or "value" not in setting:
            raise FormatError(
                "a setting needs a value and a reason", where=f"{where}: settings.{name}", found=setting
            )
    for check, measures in raw["checks"].items():
        for measure, entry in measures.items():
            place = f"{where}: checks.{check}.{measure}"
            if not isinstance(entry, dict) or not entry.get("reason"):
                raise FormatError("a limit needs its reason", where=place, found=entry)
            kinds = set(entry) - {"reason", "unit"}
            if not kinds or not kinds <= {*DEPTH_KINDS, "any"}:
                raise FormatError(
                    "a limit is for depth of some kind",
                    where=place,
                    expected=(*DEPTH_KINDS, "any"),
                    found=kinds,
                )
            for kind in kinds:
                bounds = entry[kind]
                numbers = bounds.values() if isinstance(bounds, dict) else [bounds]
                good = all(isinstance(v, (int, float)) and not isinstance(v, bool) for v in numbers)
                if not good or not isinstance(bounds, dict) or not set(bounds) <= {"warn", "fail"}:
                    raise FormatError(
                        "a limit is a mapping of warn and fail to numbers",
                        where=f"{place}.{kind}",
                        found=bounds,
                    )
