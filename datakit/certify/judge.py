"""From samples to measures: quantiles and biases against their limits."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from .bias import Bias, estimate_biases
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
        self,
        residual_of: Callable[[Tweak], Float],
        chosen: Sequence[Knob],
        group: int,
        tolerance: float = np.inf,
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
        for together in _families(chosen):
            slopes = [np.concatenate(self.slopes[knob.name]).astype(np.float64) for knob in together]
            biases = estimate_biases(values, np.stack(slopes, axis=1), groups, floor)
            measures += [
                bias_measure(context, check, knob, bias) for knob, bias in zip(together, biases, strict=True)
            ]
        return measures

    def biases_by_group(self, chosen: Sequence[Knob], floor: float) -> list[list[Bias]]:
        """Estimate the knobs' biases together for each frame pair alone."""
        return [
            estimate_biases(
                values.astype(np.float64),
                np.stack([self.slopes[knob.name][k] for knob in chosen], axis=1).astype(np.float64),
                self.groups[k],
                floor,
            )
            for k, values in enumerate(self.values)
        ]


def _families(chosen: Sequence[Knob]) -> list[list[Knob]]:
    """Group knobs that are estimated together: u and v of one shift; all others alone.

    One at a time is the better question to ask, for a converter makes one mistake: estimated together, focal
    length and depth scale would hide in each other. A shift is one mistake with two numbers.
    """
    families: dict[str, list[Knob]] = {}
    for knob in chosen:
        families.setdefault(knob.name.removesuffix("_u").removesuffix("_v"), []).append(knob)
    return list(families.values())


def bias_measure(context: Context, check: str, knob: Knob, bias: Bias) -> Measure:
    """Judge an estimated bias.

    It is testable where a bias at the fail limit would stand out of the noise by 3.5 standard errors. Where noise
    is somewhat larger, a bias far beyond both limit and noise is still no accident. A warning must stand out of the
    noise as well: rounding the depth of a short clip to half floats moves its pose_time by 2.8 standard errors, past
    the limit, and of the dozens of biases in a certificate such ones are to be expected.
    """
    limit, error = context.limit(check, knob.name), bias.standard_error
    assert limit.fail is not None
    far_off = abs(bias.value) >= max(1.5 * limit.fail, 4.5 * error)
    if 3.5 * error <= limit.fail or far_off:
        verdict = upper_verdict(abs(bias.value), limit)
        if verdict == WARN and abs(bias.value) < 3.5 * error:
            verdict = PASS
        reason = "" if verdict == PASS else f"off by {bias.value:+.3g} {knob.unit}"
        return Measure(
            knob.name,
            knob.unit,
            bias.value,
            verdict,
            limit.warn,
            limit.fail,
            bias.count,
            error,
            {},
            reason,
            knob.sees,
        )
    told = error < 100 * limit.fail
    reason = (
        f"known only to {error:.2g} {knob.unit}, and {limit.fail:g} would be a fault"
        if told
        else "no change of it would show"
    )
    return Measure(
        knob.name,
        knob.unit,
        None,
        NOT_TESTABLE,
        limit.warn,
        limit.fail,
        bias.count,
        error if told else None,
        {},
        reason,
        knob.sees,
    )


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
            name,
            limit.unit,
            None,
            NOT_TESTABLE,
            limit.warn,
            limit.fail,
            len(values),
            None,
            {},
            f"{len(values)} samples, {needed} needed",
            tuple(sees),
        )
    quantiles = {f"q{int(100 * q)}": float(np.quantile(values, q)) for q in (0.5, 0.9, 0.99)}
    value = float(np.quantile(values, at))
    verdict = upper_verdict(value, limit)
    reason = "" if verdict == PASS else f"q{int(100 * at)} is {value:.3g} {limit.unit}"
    return Measure(
        name,
        limit.unit,
        value,
        verdict,
        limit.warn,
        limit.fail,
        len(values),
        None,
        quantiles,
        reason,
        tuple(sees),
    )


def share_measure(
    context: Context,
    check: str,
    name: str,
    part: int,
    whole: int,
    sees: Sequence[str] = (),
    needed: int | None = None,
) -> Measure:
    """Judge a share against limits from above, or from below where `warn` is above `fail`."""
    limit = context.limit(check, name)
    needed = int(context.setting("min_samples")) if needed is None else needed
    if whole < needed:
        return Measure(
            name,
            limit.unit,
            None,
            NOT_TESTABLE,
            limit.warn,
            limit.fail,
            whole,
            None,
            {},
            f"{whole} samples, {needed} needed",
            tuple(sees),
        )
    value = part / whole
    from_below = limit.warn is not None and limit.fail is not None and limit.warn > limit.fail
    verdict = lower_verdict(value, limit) if from_below else upper_verdict(value, limit)
    reason = "" if verdict == PASS else f"is {value:.3g}"
    return Measure(
        name, limit.unit, value, verdict, limit.warn, limit.fail, whole, None, {}, reason, tuple(sees)
    )


def worst_instance_measure(
    context: Context, check: str, by_row: Mapping[int, Float], names: Sequence[str]
) -> Measure:
    """Judge the instance with the largest median magnitude, so that one wrong instance is not outvoted.

    Args:
        context: Limits.
        check: Name of the check.
        by_row: Row of the motion record -> magnitudes.
        names: Names of the rows.
    """
    needed = int(context.setting("min_samples_instance"))
    medians = {row: float(np.median(v)) for row, v in by_row.items() if len(v) >= needed}
    limit = context.limit(check, "worst_instance")
    if not medians:
        why = f"no instance with {needed} samples"
        return Measure("worst_instance", limit.unit, None, NOT_TESTABLE, limit.warn, limit.fail, reason=why)
    row = max(medians, key=lambda r: medians[r])
    verdict = upper_verdict(medians[row], limit)
    reason = "" if verdict == PASS else f"{names[row]} is {medians[row]:.3g} off"
    return Measure(
        "worst_instance",
        limit.unit,
        medians[row],
        verdict,
        limit.warn,
        limit.fail,
        len(by_row[row]),
        reason=reason,
    )


def rival_measure(
    context: Context,
    check: str,
    name: str,
    costs: Float,
    hypotheses: Sequence[int],
    count: int,
    sees: tuple[str, ...],
) -> Measure:
    """Judge which of some hypotheses fits best; 0 is what is stored.

    Args:
        context: Limits.
        check: Name of the check.
        name: Name of the measure.
        costs: (G, H) summed misfit under each hypothesis, of each frame or frame pair.
        hypotheses: H numbers, 0 among them; the best one becomes the value.
        count: Samples behind the costs.
        sees: Faults this shows.

    Returns:
        The measure; testable where the best hypothesis leads clearly and by more than chance.
    """
    limit = context.limit(check, name)
    bounds = (limit.warn, limit.fail, count)
    costs = costs[[row.any() for row in costs]] if len(costs) else costs
    if count < context.setting("min_samples_instance") or len(costs) < 2:
        reason = f"{count} samples that tell them apart"
        return Measure(name, limit.unit, None, NOT_TESTABLE, *bounds, reason=reason, sees=sees)
    total, stored = costs.sum(axis=0), hypotheses.index(0)
    best, second = np.argsort(total)[:2]
    # To acquit, nothing else may be near; to find guilty, it is enough that something else beats what is stored.
    rival, sigmas, least = (
        (second, 3.5, "least_lead") if best == stored else (stored, 2.5, "least_lead_guilty")
    )

    def lead(of: Float) -> float:
        return float(np.log(of[rival] / of[best]))

    left_out = np.array([lead(total - row) for row in costs])
    error = np.sqrt((len(costs) - 1) / len(costs) * ((left_out - left_out.mean()) ** 2).sum())
    # A spread that a few frames give is itself known badly: Student's factor for the same chance.
    chances = float(stats.t.ppf(stats.norm.cdf(sigmas), len(costs) - 1))
    if not lead(total) >= max(chances * error, np.log(context.setting(least))):
        reason = (
            f"nothing fits clearly best: by {np.exp(lead(total)):.2f} times, chance makes {np.exp(error):.2f}"
        )
        return Measure(name, limit.unit, None, NOT_TESTABLE, *bounds, reason=reason, sees=sees)
    value = float(hypotheses[best])
    verdict = upper_verdict(abs(value), limit)
    reason = (
        ""
        if verdict == PASS
        else f"{value:+.0f} fits {np.exp(lead(total)):.1f} times better than what is stored"
    )
    return Measure(name, limit.unit, value, verdict, *bounds, reason=reason, sees=sees)
