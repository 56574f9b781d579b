"""Was depth decoded with its bytes in the other order? Then its codes, turned round, make smoother surfaces."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from .certificate import NOT_TESTABLE, PASS, CheckResult, make_check
from .frames import FrameData
from .judge import Context, rival_measure
from .knobs import BYTE_ORDER
from .raster import Float

#: Metres, or whatever the unit is, per code of 16-bit depth: those in use, the largest first, for what is a multiple
#: of a large one is one of a small one too. 1 mm ScanNet, NYU; 1/256 KITTI; 1/4000 Replica, 1/5000 TUM.
_UNITS = (1e-2, 1 / 256, 1e-3, 1 / 4000, 1 / 5000, 1e-4)
#: Encodings that are tried, by the number they have as hypotheses; 0 is what is stored.
ENCODINGS = {1: "16-bit integers", 2: "half floats", 3: "32-bit floats"}
#: Pixels of a frame that are compared with the one beside them, at most.
_MOST_PIXELS = 100_000
#: No step between neighbours counts for more than this ratio, so that outliers do not decide.
_LARGEST_STEP = float(np.log(2.0))
#: Misfit of a step of 0, so that a wall straight ahead is not infinitely better than anything.
_FLOOR = 1e-6


class DepthCodes:
    """Depth must be smoother as it is stored than with the bytes of its codes in the other order."""

    name = "depth_codes"

    def __init__(self) -> None:
        self._costs: list[Float] = []

    def see_frame(self, context: Context, frame: FrameData, number: int) -> None:
        """Measure one frame."""
        costs = roughness(frame.z_depth)
        if costs is not None:
            self._costs.append(costs)

    def finish(self, context: Context) -> CheckResult:
        """Judge all frames."""
        if not self._costs:
            return make_check(self.name, (), "no pixels with depth side by side")
        costs, count = np.array(self._costs)[:, :-1], int(np.array(self._costs)[:, -1].sum())
        order = rival_measure(context, self.name, "byte_order", costs, (0, *ENCODINGS), count, (BYTE_ORDER,))
        hint = ""
        if order.verdict not in (PASS, NOT_TESTABLE) and order.value:
            hint = f"looks like {ENCODINGS[int(order.value)]} with their bytes in the other order"
        return make_check(self.name, [order], hint=hint)


def roughness(z_depth: NDArray[np.float32]) -> Float | None:
    """Sum the steps between pixels side by side under each hypothesis on the byte order.

    Args:
        z_depth: (H, W), NaN unknown.

    Returns:
        Steps of log z as stored and under each of `ENCODINGS`, and last the number of pixels compared; None where no
        two known pixels are side by side. An encoding that did not make these values gets the largest misfit.
    """
    rows = max(1, z_depth.size // _MOST_PIXELS)
    z = np.ascontiguousarray(z_depth[::rows], np.float32)
    with np.errstate(invalid="ignore"):
        known = np.isfinite(z) & (z > 0)
    beside = known[:, 1:] & known[:, :-1]
    if not beside.any():
        return None
    costs = [_steps(z, beside)]
    for codes in (_integers(z, known), _halves(z, known), z):
        worst = (_LARGEST_STEP + _FLOOR) * beside.sum()
        costs.append(worst if codes is None else _steps(codes.byteswap(), beside))
    return np.array([*costs, beside.sum()], np.float64)


def _steps(values: NDArray[np.generic], beside: NDArray[np.bool_]) -> float:
    """Sum |log ratio| of neighbours; what is no depth at all is as far off as can be."""
    with np.errstate(all="ignore"):
        steps = np.abs(np.diff(np.log(values.astype(np.float64)), axis=1))[beside]
    return float(
        (np.where(np.isfinite(steps), np.minimum(steps, _LARGEST_STEP), _LARGEST_STEP) + _FLOOR).sum()
    )


def _integers(z: NDArray[np.float32], known: NDArray[np.bool_]) -> NDArray[np.uint16] | None:
    """Find the 16-bit codes that these depths are multiples of a unit by."""
    values = z[known].astype(np.float64)
    for unit in _UNITS:
        codes = np.round(values / unit)
        # float32 keeps a code to 0.004.
        if codes.max() < 65536 and np.abs(values / unit - codes).max() < 0.01:
            out = np.zeros(z.shape, np.uint16)
            out[known] = codes.astype(np.uint16)
            return out
    return None


def _halves(z: NDArray[np.float32], known: NDArray[np.bool_]) -> NDArray[np.float16] | None:
    """Return the half floats that these depths are, if they all are."""
    with np.errstate(over="ignore", invalid="ignore"):
        half = z.astype(np.float16)
    return half if np.array_equal(half[known].astype(np.float32), z[known]) else None
