"""From samples to measures: quantiles and biases against their limits."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from .bias import estimate_bias
from .certificate import FAIL, NOT_TESTABLE, PASS, WARN, Measure
from .frames import FrameStore
from .knobs import Knob
from .pairs import Tweak
from .raster import Float
from .thresholds import Limit, Thresholds


@dataclass(frozen=True)
class Context:
    """What every check gets: the frames, the limits, and the kind of depth that chooses among them."""

    frames: FrameStore
    thresholds: Thresholds
    depth_kind: str
    seed: int

    def limit(self, check: str, measure: str) -> Limit:
        """Return the limit of a measure for this scene's kind of depth."""
        return self.thresholds.limit(check, measure, self.depth_kind)

    def setting(self, name: str) -> float:
        """Return a setting for this scene's kind of depth."""
        return self.thresholds.setting(name, self.depth_kind)

    def rng(self, *key: int) -> np.random.Generator:
        """Return a generator that depends on the seed and a key only, not on what was drawn before."""
        return np.random.default_rng([self.seed, *key])


@dataclass
class Residuals:
    """Residuals and their slopes, gathered over frame pairs."""

    values: list[Float] = field(default_factory=list)
    slopes: dict[str, list[Float]] = field(default_factory=dict)
    groups: list[NDArray[np.int64]] = field(default_factory=list)

    def add(
        self, residual_of: Callable[[Tweak], Float], chosen: Sequence[Knob], group: int, tolerance: float = np.inf
    ) -> Float:
        """Measure residuals under no tweak and their central differences along knobs.

        Args:
            residual_of: Tweak -> (N,) or (N, C) residuals; NaN where nothing can be compared.
            chosen: Knobs to turn.
            group: Number of the frame pair.
            tolerance: Larger residuals belong to other surfaces and say nothing of biases.

        Returns:
            The residuals under no tweak, as `residual_of` gives them.
        """
        raw = residual_of(Tweak())
        base = raw.ravel()
        with np.errstate(invalid="ignore"):
            self.values.append(np.where(np.abs(base) <= tolerance, base, np.nan).astype(np.float32))
        self.groups.append(np.full(len(base), group))
        for knob in chosen:
            up = residual_of(knob.turn(knob.step)).ravel()
            down = residual_of(knob.turn(-knob.step)).ravel()
            # At the rim of a raster or surface one side may be missing.
            slope = np.where(
                np.isfinite(up),
                np.where(np.isfinite(down), (up - down) / 2, up - base),
                base - down,
            )
            self.slopes.setdefault(knob.name, []).append((slope / knob.step).astype(np.float32))
        return raw

    def biases(self, context: Context, check: str, chosen: Sequence[Knob], floor: float) -> list[Measure]:
        """Judge the bias of each knob."""
        if not self.values:
            return []
        values = np.concatenate(self.values).astype(np.float64)
        groups = np.concatenate(self.groups)
        measures = []
        for knob in chosen:
            slope = np.concatenate(self.slopes[knob.name]).astype(np.float64)
            bias = estimate_bias(values, slope, groups, floor)
            limit = context.limit(check, knob.name)
            name, error = knob.name, bias.standard_error
            assert limit.fail is not None
            if not 3 * error <= limit.fail:
                told = "nothing" if not np.isfinite(error) else f"it only to {error:.2g} {knob.unit}"
                reason = f"the data tell {told}; a fault of {limit.fail:g} {knob.unit} would not show"
                measures.append(
                    Measure(
                        name, knob.unit, None, NOT_TESTABLE, limit.warn, limit.fail, bias.count,
                        error if np.isfinite(error) else None, {}, reason, knob.sees,
                    )
                )
                continue
            verdict = upper_verdict(abs(bias.value), limit)
            reason = "" if verdict == PASS else f"off by {bias.value:+.3g} {knob.unit}"
            measures.append(
                Measure(
                    name, knob.unit, bias.value, verdict, limit.warn, limit.fail, bias.count, error, {}, reason,
                    knob.sees,
                )
            )
        return measures


def upper_verdict(value: float, limit: Limit) -> str:
    """Judge a value that should be small; NaN fails."""
    if limit.fail is not None and not value <= limit.fail:
        return FAIL
    return WARN if limit.warn is not None and not value <= limit.warn else PASS


def lower_verdict(value: float, limit: Limit) -> str:
    """Judge a value that should be large; NaN fails."""
    if limit.fail is not None and not value >= limit.fail:
        return FAIL
    return WARN if limit.warn is not None and not value >= limit.warn else PASS


def quantile_measure(
    context: Context, check: str, name: str, values: Float, at: float = 0.5, sees: Sequence[str] = ()
) -> Measure:
    """Judge one quantile of magnitudes that should be small; too few of them are not testable."""
    limit = context.limit(check, name)
    values = np.abs(values[np.isfinite(values)])
    needed = int(context.setting("min_samples"))
    if len(values) < needed:
        return Measure(
            name, limit.unit, None, NOT_TESTABLE, limit.warn, limit.fail, len(values), None, {},
            f"{len(values)} samples, {needed} needed", tuple(sees),
        )
    quantiles = {f"q{int(100 * q)}": float(np.quantile(values, q)) for q in (0.5, 0.9, 0.99)}
    value = float(np.quantile(values, at))
    verdict = upper_verdict(value, limit)
    reason = "" if verdict == PASS else f"q{int(100 * at)} is {value:.3g} {limit.unit}"
    return Measure(
        name, limit.unit, value, verdict, limit.warn, limit.fail, len(values), None, quantiles, reason, tuple(sees)
    )


def share_measure(
    context: Context, check: str, name: str, part: int, whole: int, sees: Sequence[str] = (), needed: int | None = None
) -> Measure:
    """Judge a share against limits from above, or from below where `warn` is above `fail`."""
    limit = context.limit(check, name)
    needed = int(context.setting("min_samples")) if needed is None else needed
    if whole < needed:
        return Measure(
            name, limit.unit, None, NOT_TESTABLE, limit.warn, limit.fail, whole, None, {},
            f"{whole} samples, {needed} needed", tuple(sees),
        )
    value = part / whole
    from_below = limit.warn is not None and limit.fail is not None and limit.warn > limit.fail
    verdict = lower_verdict(value, limit) if from_below else upper_verdict(value, limit)
    reason = "" if verdict == PASS else f"is {value:.3g}"
    return Measure(
        name, limit.unit, value, verdict, limit.warn, limit.fail, whole, None, {}, reason, tuple(sees)
    )
