"""What a certificate is: plain measured numbers, the thresholds they met or broke, and a verdict."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

#: Goes into every certificate; raise it whenever a number could change for the same scene file.
CERTIFY_VERSION = "4"

PASS, WARN, FAIL, NOT_TESTABLE = "pass", "warn", "fail", "not_testable"
#: From harmless to bad. `not_testable` is lowest: it only decides where nothing could be tested.
VERDICTS = (NOT_TESTABLE, PASS, WARN, FAIL)


def worst_verdict(verdicts: Iterable[str]) -> str:
    """Return the worst of some verdicts; "not_testable" where there are none or none could be tested."""
    return max(verdicts, key=VERDICTS.index, default=NOT_TESTABLE)


@dataclass(frozen=True)
class Measure:
    """One measured number and how it was judged.

    Attributes:
        name: Unique within its check.
        unit: "ratio", "px", "deg", "frames", "1" ...
        value: What is judged; None where it could not be measured.
        verdict: "pass", "warn", "fail" or "not_testable".
        warn: Limit past which the verdict is "warn"; None where there is none.
        fail: Limit past which the verdict is "fail"; None where there is none.
        count: Samples behind `value`.
        standard_error: Of `value`, where it is an estimate; None elsewhere.
        quantiles: "q50", "q90", ... of the samples where `value` is one of their quantiles.
        reason: Why this verdict, for people; "" for a plain pass.
        sees: Faults this number shows when it can be tested.
    """

    name: str
    unit: str
    value: float | None
    verdict: str
    warn: float | None = None
    fail: float | None = None
    count: int = 0
    standard_error: float | None = None
    quantiles: Mapping[str, float] = field(default_factory=dict)
    reason: str = ""
    sees: tuple[str, ...] = ()


@dataclass(frozen=True)
class CheckResult:
    """One check of a scene: its measures, its verdict, and the faults it could and could not have shown here."""

    name: str
    verdict: str
    reason: str
    measures: tuple[Measure, ...]
    can_see: tuple[str, ...]
    cannot_see: tuple[str, ...]


@dataclass(frozen=True)
class Certificate:
    """The measured geometric quality of one scene file.

    Attributes:
        scene_id: Scene id.
        dataset: Converter's name.
        scene_sha256: Hex digest of the scene file's bytes.
        thresholds_sha256: Hex digest of the thresholds' canonical JSON.
        certify_version: `CERTIFY_VERSION` of the code that measured.
        seed: Seed of the pixel and frame sampling.
        verdict: Worst verdict of all checks.
        checks: In the order of the table of checks.
    """

    scene_id: str
    dataset: str
    scene_sha256: str
    thresholds_sha256: str
    certify_version: str
    seed: int
    verdict: str
    checks: tuple[CheckResult, ...]

    def check(self, name: str) -> CheckResult:
        """Return the result of the check called `name`; KeyError where there is none."""
        for result in self.checks:
            if result.name == name:
                return result
        raise KeyError(name)

    def can_see(self, fault: str) -> bool:
        """Say whether at least one check could have shown `fault` in this scene."""
        return any(fault in result.can_see for result in self.checks)

    def to_dict(self) -> dict[str, Any]:
        """Return the certificate as JSON-able plain data; floats are rounded to 6 significant digits."""
        return _plain(asdict(self))

    def to_json(self) -> str:
        """Return stable JSON: sorted keys, two-space indent, a newline at the end, no clock time."""
        return json.dumps(self.to_dict(), indent=2, sort_keys=True, allow_nan=False) + "\n"


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(k): _plain(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(v) for v in value]
    if isinstance(value, float):
        # Six digits are far below any threshold, and hide the last bits that differ between CPUs.
        return float(f"{value:.6g}") if math.isfinite(value) else None
    return value


def make_check(name: str, measures: Sequence[Measure], reason: str = "", hint: str = "") -> CheckResult:
    """Sum up the measures of one check.

    Args:
        name: Name of the check.
        measures: What it measured; may be empty.
        reason: Why nothing was measured; used where no measure carries a reason of its own.
        hint: What a failure looks like; comes first.

    Returns:
        The result. A fault can be seen where at least one testable measure sees it.
    """
    verdict = worst_verdict(m.verdict for m in measures)
    # Several measures may share a reason, e.g. that nothing moves; it is said once.
    shared: dict[str, list[str]] = {}
    for m in measures:
        if m.verdict == verdict and m.reason:
            shared.setdefault(m.reason, []).append(m.name)
    reasons = [f"{', '.join(names)}: {why}" for why, names in shared.items()]
    can = sorted({fault for m in measures if m.verdict != NOT_TESTABLE for fault in m.sees})
    cannot = sorted({fault for m in measures for fault in m.sees} - set(can))
    if verdict == PASS and cannot and not can:
        # Agreement is no evidence where disagreement could not have shown.
        verdict, hint = NOT_TESTABLE, "the numbers agree, but no fault looked for would have shown here"
        reasons = []
    return CheckResult(
        name=name,
        verdict=verdict,
        reason="; ".join([hint] * bool(hint) + reasons) or reason,
        measures=tuple(measures),
        can_see=tuple(can),
        cannot_see=tuple(cannot),
    )


def write_certificate(certificate: Certificate, path: str | Path) -> None:
    """Write a certificate as JSON so that a reader sees the old file or the new one, never half of one.

    Args:
        certificate: What to write.
        path: Where; its folder must exist.
    """
    path = Path(path)
    partial = path.with_name(path.name + ".partial")
    with open(partial, "w", encoding="utf-8") as file:
        file.write(certificate.to_json())
        file.flush()
        os.fsync(file.fileno())
    os.replace(partial, path)


def summarise(certificates: Iterable[Certificate], num_worst: int = 10) -> dict[str, Any]:
    """Roll certificates up into one flat-enough dictionary, e.g. for DVC metrics.

    Args:
        certificates: Any number of them.
        num_worst: How many scenes to name.

    Returns:
        {"scenes": n, "verdicts": {verdict: n}, "checks": {check: {"verdicts": {...}, "worst": {measure: value}}},
        "worst_scenes": [{"scene_id", "dataset", "verdict", "excess", "because"}]}. `worst` is the largest value
        relative to its limit, and `excess` the scene's largest ratio of a value to its fail limit.
    """
    certificates = list(certificates)
    checks: dict[str, dict[str, Any]] = {}
    ranking = []
    for certificate in certificates:
        excess, because = 0.0, ""
        for result in certificate.checks:
            entry = checks.setdefault(result.name, {"verdicts": dict.fromkeys(VERDICTS, 0), "worst": {}})
            entry["verdicts"][result.verdict] += 1
            for measure in result.measures:
                ratio = limit_ratio(measure)
                if ratio is None:
                    continue
                if ratio >= entry["worst"].get(measure.name, (-1.0, 0.0))[0]:
                    entry["worst"][measure.name] = (ratio, measure.value)
                if ratio > excess:
                    excess, because = ratio, f"{result.name}.{measure.name}"
        rank = (-VERDICTS.index(certificate.verdict), -excess, certificate.dataset, certificate.scene_id)
        ranking.append((rank, certificate, excess, because))
    for entry in checks.values():
        entry["worst"] = {name: value for name, (_, value) in sorted(entry["worst"].items())}
    ranking.sort(key=lambda row: row[0])
    counts = dict.fromkeys(VERDICTS, 0)
    for certificate in certificates:
        counts[certificate.verdict] += 1
    worst = [
        {
            "scene_id": c.scene_id,
            "dataset": c.dataset,
            "verdict": c.verdict,
            "excess": excess,
            "because": because,
        }
        for _, c, excess, because in ranking[:num_worst]
    ]
    return _plain({"scenes": len(certificates), "verdicts": counts, "checks": checks, "worst_scenes": worst})


def limit_ratio(measure: Measure) -> float | None:
    """Return how much of its fail limit a measure uses up: above 1 is past it; None where it was not tested.

    For a limit from below (`warn` above `fail`) the ratio is fail / value.
    """
    limit = measure.fail if measure.fail is not None else measure.warn
    if measure.verdict == NOT_TESTABLE or measure.value is None or limit is None:
        return None
    if measure.warn is not None and measure.fail is not None and measure.warn > measure.fail:
        return limit / max(measure.value, 1e-12)
    return abs(measure.value) / limit if limit else float(measure.value != 0)
