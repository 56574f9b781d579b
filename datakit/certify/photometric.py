"""Colours of corresponding points, and the displacement, shift or delay that would bring them together."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from .certificate import CheckResult, make_check
from .draw import PairSample, join
from .judge import Context, Residuals, quantile_measure
from .knobs import INSTANCE_FAULTS, POSE_FAULTS, knobs
from .pairs import PairData, Points, Prediction, Tweak
from .raster import Float, gather, interpolate, stencil_at
from .reprojection import play_out


class Photometric:
    """Corresponding points must look alike; what is left is explained by a Lucas-Kanade step along each knob."""

    name = "photometric"
    KNOBS = knobs(
        "drift_u", "drift_v", "scale", "pose_time", "motion_time", "depth_time", "image_time"
    )

    def __init__(self) -> None:
        self._residuals = Residuals()
        self._contrast: list[Float] = []
        self._played: dict[str, list[Float]] = {f: [] for f in {**POSE_FAULTS, **INSTANCE_FAULTS}}
        self._ratios: list[Float] = []

    def see_pair(self, context: Context, sample: PairSample) -> None:
        """Measure one frame pair that is not too far apart for colours to stay."""
        data = sample.data
        if data.baseline > context.setting("max_photometric_frames"):
            return
        if not {"rgb"} <= set(data.source.view.layers) & set(data.target.view.layers):
            return
        points = self._seen(context, data, join((sample.static, sample.rigid)))
        if not len(points.uv_px):
            return
        difference_of = self._difference(data, points)
        base = self._residuals.add(difference_of, self.KNOBS, sample.number, context.setting("contrast_tolerance"))
        unrelated = self._unrelated(context, data, points, sample.number)
        self._ratios.append(np.abs(base))
        self._contrast.append(np.abs(unrelated))
        tweaks = {fault: Tweak(move_pose=move) for fault, move in POSE_FAULTS.items()}
        tweaks |= {fault: Tweak(move_instances=move) for fault, move in INSTANCE_FAULTS.items()}
        for fault, tweak in tweaks.items():
            self._played[fault].append(np.abs(difference_of(tweak)))

    def _seen(self, context: Context, data: PairData, points: Points) -> Points:
        """Keep points that depth does not show to be hidden in the target."""
        residual, inside, same = data.depth_residual(points, Tweak(), np.inf, np.inf)
        with np.errstate(invalid="ignore"):
            hidden = residual > context.setting("depth_tolerance")
        return points.take(inside & same & ~hidden)

    def _difference(self, data: PairData, points: Points) -> Callable[[Tweak], Float]:
        def difference_of(tweak: Tweak) -> Float:
            prediction = data.predict(points, tweak)
            return _contrast_at(data.target.contrast, prediction.uv_colour) - _contrast_at(
                data.source.contrast, prediction.uv_colour_source
            )

        return difference_of

    def _unrelated(self, context: Context, data: PairData, points: Points, number: int) -> Float:
        """Difference of colours of points that do not correspond: what chance gives."""
        prediction: Prediction = data.predict(points)
        order = context.rng(5, number).permutation(len(points.uv_px))
        return _contrast_at(data.target.contrast, prediction.uv_colour[order]) - _contrast_at(
            data.source.contrast, prediction.uv_colour_source
        )

    def finish(self, context: Context) -> CheckResult:
        """Judge all pairs."""
        if not self._ratios:
            return make_check(self.name, (), "no colours of corresponding points")
        chance = np.concatenate(self._contrast)
        scale = float(np.nanmedian(chance)) if np.isfinite(chance).any() else 0.0
        if scale < context.setting("least_contrast"):
            return make_check(self.name, (), "the images have no texture")
        judged = {
            fault: [quantile_measure(context, self.name, "mismatch", np.concatenate(r) / scale)]
            for fault, r in {"": self._ratios, **self._played}.items()
        }
        base, hint = play_out(judged.pop(""), judged, "mismatch")
        biases = self._residuals.biases(context, self.name, self.KNOBS, context.setting("contrast_floor"))
        return make_check(self.name, base + biases, hint=hint)


def _contrast_at(image: Float, uv_px: Float) -> Float:
    stencil = stencil_at(uv_px, image.shape[::-1])
    return interpolate(stencil, gather(stencil, image))


