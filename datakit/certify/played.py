"""Faults that are played through: what would the measures be if a converter had made this mistake?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from .certificate import FAIL, NOT_TESTABLE, PASS, WARN, Measure, limit_ratio, worst_verdict


def fails(measures: Sequence[Measure]) -> bool:
    """Say whether any measure failed."""
    return any(m.verdict == FAIL for m in measures)


def fails_clearly(measures: Sequence[Measure]) -> bool:
    """Say whether any measure is past its limit by a quarter: the real mistake draws other pixels than the played."""
    return any(m.verdict == FAIL and (limit_ratio(m) or 0.0) >= 1.25 for m in measures)


def play_out(
    base: Sequence[Measure], played: Mapping[str, Sequence[Measure]], carrier: str
) -> tuple[list[Measure], str]:
    """Judge the faults that were played through.

    Args:
        base: Measures of the scene as it is.
        played: Fault -> measures of the scene with that fault made once (more).
        carrier: Name of the measure that is to carry the faults that would show.

    Returns:
        `base` and, for faults that would not have shown, one more measure that lists them; and for a failing
        scene the faults that mend it: with involutions such as an inverted pose, what was done twice is undone.
    """
    failing = fails(base)
    shown = tuple(fault for fault, measures in played.items() if failing or fails_clearly(measures))
    blind = tuple(fault for fault in played if fault not in shown)
    out = [replace(m, sees=m.sees + shown) if m.name == carrier else m for m in base]
    if blind:
        out.append(
            Measure(f"unseen_by_{carrier}", "1", None, NOT_TESTABLE, reason="would not show", sees=blind)
        )
    mending = [f for f, ms in played.items() if worst_verdict(m.verdict for m in ms) in (PASS, WARN)]
    return out, f"looks like {' or '.join(mending)}" if failing and mending else ""
