"""How fast it goes, and how fast it could: clips a second, waiting, and the share of the machine's arithmetic."""

from __future__ import annotations

import time
from collections import deque
from dataclasses import dataclass

import torch

#: Side of the matrices that are multiplied, and for how long at least.
_SIDE = {"cpu": 768, "cuda": 8192}
_SECONDS = {"cpu": 0.1, "cuda": 0.5}
#: Products that are timed together.
_AT_ONCE = 4


def matmul_rate(device: torch.device, dtype: torch.dtype) -> float:
    """Measure the rate of a large matrix product: the fastest of several tries, since others may be at work too.

    Args:
        device: Where.
        dtype: Of the matrices.

    Returns:
        Floating-point operations a second (a multiply-add is two): what MFU is a share of.
    """
    side = _SIDE[device.type]
    # A generator of its own: training's random numbers stay what they are. Zeros would flatter a GPU's clock.
    generator = torch.Generator(device).manual_seed(0)
    a = torch.randn((side, side), generator=generator, device=device).to(dtype)
    for _ in range(3):
        b = a @ a
    _wait(device)
    fastest, end = float("inf"), time.perf_counter() + _SECONDS[device.type]
    while time.perf_counter() < end:
        before = time.perf_counter()
        for _ in range(_AT_ONCE):
            torch.mm(a, a, out=b)
        _wait(device)
        fastest = min(fastest, time.perf_counter() - before)
    return 2.0 * side**3 * _AT_ONCE / fastest


@dataclass(frozen=True)
class Pace:
    """Speed over the last steps.

    Attributes:
        step_seconds: Wall time of a step.
        clips_per_second: Over all ranks.
        stall_share: Share of the time in which this rank waited for the stream.
        mfu: Model FLOPs (no recomputation) as a share of the measured matmul rate of all ranks.
        eta_seconds: Until the last step, at this pace.
    """

    step_seconds: float
    clips_per_second: float
    stall_share: float
    mfu: float
    eta_seconds: float

    def __str__(self) -> str:
        hours, rest = divmod(round(self.eta_seconds), 3600)
        return (
            f"{self.clips_per_second:.1f} clips/s, stall {self.stall_share:.0%}, MFU {self.mfu:.1%}, "
            f"ETA {hours}:{rest // 60:02d}:{rest % 60:02d}"
        )


class Meter:
    """Measure the pace over a window of steps.

    Args:
        clips: Of a step, over all ranks.
        flops: Of a step, over all ranks.
        peak: FLOPs a second of all ranks together.
        window: Steps to look back on.
    """

    def __init__(self, clips: int, flops: float, peak: float, window: int = 50) -> None:
        self._clips, self._flops, self._peak = clips, flops, peak
        self._marks: deque[tuple[float, float]] = deque(maxlen=window + 1)

    def restart(self, waited: float) -> None:
        """Begin anew: at the start, and after something that is no step (validation, a checkpoint)."""
        self._marks.clear()
        self.mark(waited)

    def mark(self, waited: float) -> None:
        """Note the end of a step, and how long was waited for the stream so far."""
        self._marks.append((time.perf_counter(), waited))

    def pace(self, steps_left: int) -> Pace | None:
        """Return the pace; None before a step was measured."""
        if len(self._marks) < 2:
            return None
        (start, waited_before), (end, waited) = self._marks[0], self._marks[-1]
        seconds = max(end - start, 1e-9)
        each = seconds / (len(self._marks) - 1)
        return Pace(
            each, self._clips / each, (waited - waited_before) / seconds,
            self._flops / each / self._peak, steps_left * each,
        )  # fmt: skip


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
