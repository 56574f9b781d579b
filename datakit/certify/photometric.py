"""Colours of corresponding points, and the displacement, shift or delay that would bring them together."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from .certificate import NOT_TESTABLE, PASS, CheckResult, Measure, make_check
from .draw import PairSample, join
from .frames import FrameData
from .judge import Context, Residuals, quantile_measure, rival_measure, upper_verdict
from .knobs import (
    HALF_PIXEL_SOME,
    IMAGE_TIME,
    INSTANCE_FAULTS,
    INSTANCE_QUATERNION,
    KNOBS,
    POSE_FAULTS,
    knobs,
    reread_quaternion,
)
from .noise import band_noise
from .pairs import PairData, Points, Prediction, Tweak
from .played import play_out
from .raster import Float, away_from_steps, band_reach, gather, interpolate, stencil_at

#: How much of the spread of contrast a hypothesis must change for a point to have a say.
_TELLING = 0.1
#: Bands that are tried, the finest first: 1.5 to 24 px. Half a pixel is hard to see in coarser ones.
_OCTAVES = 5
#: Median of the size of normal noise of spread 1.
_MEDIAN = 0.6745


class Photometric:
    """Corresponding points must look alike; what is left is explained by a Lucas-Kanade step along each knob.

    Each pair is compared in the finest band of its images that holds more than noise.
    """

    name = "photometric"
    KNOBS = knobs("drift_u", "drift_v", "image_time")

    def __init__(self) -> None:
        self._residuals = Residuals()
        self._contrast: list[Float] = []
        self._differences: list[Float] = []
        self._played: dict[str, list[Float]] = {f: [] for f in {**POSE_FAULTS, **INSTANCE_FAULTS}}
        self._by_reading: list[Float] = []
        self._by_lag: list[Float] = []
        self._is_drowned = False

    def see_pair(self, context: Context, sample: PairSample) -> None:
        """Measure one frame pair that is not too far apart for colours to stay."""
        data = sample.data
        if data.baseline > context.setting("max_photometric_frames"):
            return
        if not {"rgb"} <= set(data.source.view.layers) & set(data.target.view.layers):
            return
        chosen = self._choose_band(context, data, join((sample.static, sample.rigid)), sample.number)
        if chosen is None:
            return
        octave, points, unrelated = chosen
        difference_of = self._difference(data, points, octave)
        base = self._residuals.add(
            difference_of, self.KNOBS, sample.number, context.setting("contrast_tolerance")
        )
        self._by_lag.append(_costs([difference_of(KNOBS["image_time"].turn(a)) for a in (-1, 0, 1)]))
        reread = difference_of(Tweak(move_instances=reread_quaternion))
        self._by_reading.append(_costs([part[points.is_rigid] for part in (base, reread)]))
        self._differences.append(np.abs(base))
        self._contrast.append(np.abs(unrelated))
        tweaks = {fault: Tweak(move_pose=move) for fault, move in POSE_FAULTS.items()}
        tweaks |= {fault: Tweak(move_instances=move) for fault, move in INSTANCE_FAULTS.items()}
        for fault, tweak in tweaks.items():
            self._played[fault].append(np.abs(difference_of(tweak)))

    def _lag(self, context: Context) -> Measure:
        sums = np.array(self._by_lag)
        count = int(sums[:, -1].sum())
        return rival_measure(context, self.name, "image_lag", sums[:, :-1], (-1, 0, 1), count, (IMAGE_TIME,))

    def _reading(self, context: Context) -> Measure:
        """Judge whether instances that turn look better when their quaternions are read in the other order."""
        sums = np.array(self._by_reading)
        count, sees = int(sums[:, -1].sum()), (INSTANCE_QUATERNION,)
        return rival_measure(context, self.name, "instance_reading", sums[:, :-1], (0, 1), count, sees)

    def _uneven(self, context: Context) -> Measure:
        """Judge the displacement of colours in single pairs.

        Where every second image is off, pairs are displaced one way and the other, and their mean says nothing. Two
        pairs may have been unlucky; the third one counts.
        """
        limit, needed = context.limit(self.name, "drift_pairs"), int(context.setting("min_pairs"))
        assert limit.fail is not None
        biases = self._residuals.biases_by_group(
            knobs("drift_u", "drift_v"), context.setting("contrast_floor")
        )
        known = [
            float(np.hypot(u.value, v.value))
            for u, v in biases
            if 3.5 * max(u.standard_error, v.standard_error) <= limit.fail
        ]
        bounds, sees = (limit.warn, limit.fail, len(known)), (HALF_PIXEL_SOME,)
        if len(known) < needed:
            reason = f"{len(known)} pairs whose displacement is known, {needed} needed"
            return Measure("drift_pairs", limit.unit, None, NOT_TESTABLE, *bounds, reason=reason, sees=sees)
        value = sorted(known)[-3]
        verdict = upper_verdict(value, limit)
        reason = "" if verdict == PASS else f"three pairs are off by {value:.3g} {limit.unit} and more"
        return Measure("drift_pairs", limit.unit, value, verdict, *bounds, reason=reason, sees=sees)

    def _choose_band(
        self, context: Context, data: PairData, points: Points, number: int
    ) -> tuple[int, Points, Float] | None:
        """Choose the finest band of both images in which texture stands out of noise, whatever the geometry.

        Returns:
            The octave, the points that can be compared in it and the differences (N,) of unrelated ones; None where
            there is no such band.
        """
        if not len(points.uv_px):
            return None
        seen = self._seen(context, data, points)
        for octave in range(_OCTAVES):
            mine = points.take(seen & self._calm_at(context, data, points, octave))
            if len(mine.uv_px) < (1 if octave == 0 else context.setting("min_samples_instance")):
                return None
            unrelated = self._unrelated(context, data, mine, octave, number)
            size = np.abs(unrelated[np.isfinite(unrelated)])
            if len(size) and _MEDIAN * self._noise(context, data, octave) <= context.setting(
                "noise_share"
            ) * np.median(size):
                return octave, mine, unrelated
            self._is_drowned = True
        return None

    def _noise(self, context: Context, data: PairData, octave: int) -> float:
        """Give the spread of differences that noise alone makes, in units of the images' contrast."""
        source, target = (
            band_noise(f.view, f.index, octave, context.setting("camera_noise")) / f.contrast(octave)[1]
            for f in (data.source, data.target)
        )
        return float(np.hypot(source, target))

    def _seen(self, context: Context, data: PairData, points: Points) -> NDArray[np.bool_]:
        """Tell which points depth does not show to be hidden in the target, (N,)."""
        residual, inside, same = data.depth_residual(points, Tweak(), np.inf, np.inf)
        with np.errstate(invalid="ignore"):
            hidden = residual > context.setting("depth_tolerance")
        return np.asarray(inside & same & ~hidden)

    def _calm_at(self, context: Context, data: PairData, points: Points, octave: int) -> NDArray[np.bool_]:
        """Tell near which points no border of a surface is, whose far side would count as a change of colour, (N,)."""
        prediction = data.predict(points)
        calm = np.ones(len(points.uv_px), dtype=bool)
        for frame, uv, uv_colour in (
            (data.source, points.uv_px, prediction.uv_colour_source),
            (data.target, prediction.uv_depth, prediction.uv_colour),
        ):
            mask = self._calm(context, frame, octave)
            cols, rows = (
                np.clip(np.nan_to_num(uv[:, i]), 0, mask.shape[1 - i] - 1).astype(int) for i in (0, 1)
            )
            calm &= mask[rows, cols]
            if octave:  # a blur mirrors what is beyond the rim of the image
                reach = band_reach(octave)
                with np.errstate(invalid="ignore"):
                    calm &= ((uv_colour >= reach) & (uv_colour <= np.array(frame.view.size) - reach)).all(
                        axis=1
                    )
        return calm

    def _calm(self, context: Context, frame: FrameData, octave: int) -> NDArray[np.bool_]:
        """Tell where on the depth grid no border of a surface is within reach of the band, (H, W)."""
        if frame.is_sparse:
            return np.ones(frame.inverse_depth.shape, dtype=bool)
        to_depth = frame.depth_intrinsics[0, 0] / frame.colour_intrinsics[0, 0]
        reach = max(3, int(np.ceil(band_reach(octave) * to_depth)))
        return away_from_steps(frame.inverse_depth, context.setting("edge_step"), reach)

    def _difference(self, data: PairData, points: Points, octave: int) -> Callable[[Tweak], Float]:
        source, target = (frame.contrast(octave)[0] for frame in (data.source, data.target))
        gain = _gain(data, points, octave)

        def difference_of(tweak: Tweak) -> Float:
            prediction = data.predict(points, tweak)
            return gain * _contrast_at(target, prediction.uv_colour) - _contrast_at(
                source, prediction.uv_colour_source
            )

        return difference_of

    def _unrelated(self, context: Context, data: PairData, points: Points, octave: int, number: int) -> Float:
        """Difference of colours of points that do not correspond: what chance gives."""
        prediction: Prediction = data.predict(points)
        source, target = (frame.contrast(octave)[0] for frame in (data.source, data.target))
        order = context.rng(5, number).permutation(len(points.uv_px))
        return _contrast_at(target, prediction.uv_colour[order]) - _contrast_at(
            source, prediction.uv_colour_source
        )

    def finish(self, context: Context) -> CheckResult:
        """Judge all pairs."""
        if not self._differences:
            none = "the images have no texture that stands out of their noise"
            return make_check(
                self.name, (), none if self._is_drowned else "no colours of corresponding points"
            )
        chance = np.concatenate(self._contrast)
        scale = float(np.nanmedian(chance)) if np.isfinite(chance).any() else 0.0
        if scale < context.setting("least_contrast"):
            return make_check(self.name, (), "the images have no texture")
        judged = {
            fault: [quantile_measure(context, self.name, "mismatch", np.concatenate(differences) / scale)]
            for fault, differences in {"": self._differences, **self._played}.items()
        }
        base, hint = play_out(judged.pop(""), judged, "mismatch")
        biases = self._residuals.biases(context, self.name, self.KNOBS, context.setting("contrast_floor"))
        rest = [self._uneven(context), self._lag(context), self._reading(context)]
        return make_check(self.name, [*base, *biases, *rest], hint=hint)


def _costs(differences: Sequence[Float]) -> Float:
    """Sum the sizes of differences of colours under rival hypotheses, where these matter, and count them.

    A displacement beyond the width of the texture is out of reach for a Lucas-Kanade step, but not for trying it.

    Args:
        differences: (N,) for each hypothesis.

    Returns:
        Their sums, and last the number of points behind them.
    """
    size = np.minimum(np.abs(np.stack(differences)), 1.0)
    with np.errstate(invalid="ignore"):
        told = np.isfinite(size).all(axis=0) & (np.ptp(size, axis=0) > _TELLING)
    return np.append(size[:, told].sum(axis=1), told.sum())


def _gain(data: PairData, points: Points, octave: int) -> float:
    """Give what the target's contrast is to be multiplied by, for both images to have as much at the points.

    An image's own spread counts what the other one does not show, such as an outline that is larger in it: in a sample
    of 54x72 it made a fifth, which passed for a shift in time.
    """
    prediction = data.predict(points)
    values = (
        _contrast_at(data.source.contrast(octave)[0], prediction.uv_colour_source),
        _contrast_at(data.target.contrast(octave)[0], prediction.uv_colour),
    )
    known = np.isfinite(values[0]) & np.isfinite(values[1])
    source, target = (float(np.abs(v[known]).sum()) for v in values)
    return source / target if source > 0 and target > 0 else 1.0


def _contrast_at(image: NDArray[np.float32], uv_px: Float) -> Float:
    stencil = stencil_at(uv_px, image.shape[::-1])
    return interpolate(stencil, gather(stencil, image))
