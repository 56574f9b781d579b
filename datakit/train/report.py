"""What a person sees while it runs: a line now and then, and TensorBoard."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from datakit.errors import UsageError

from .speed import Pace


class Reporter:
    """Say how it goes; on the first rank only.

    Args:
        root: Folder of the run.
        tensorboard: Whether to write TensorBoard files.
        first_step: Entries from here on replace those of an interrupted part of the run.
        say: Takes a line; None for silence.

    Raises:
        UsageError: TensorBoard is asked for and not installed.
    """

    def __init__(
        self, root: Path, tensorboard: bool, first_step: int, say: Callable[[str], None] | None
    ) -> None:
        self._say = say
        self._writer: Any = None
        if tensorboard:
            try:
                from torch.utils.tensorboard import SummaryWriter
            except ImportError as error:
                raise UsageError(
                    "TensorBoard is not installed",
                    where="log.tensorboard",
                    mend="pip install 'datakit[train]', or -o log.tensorboard=false",
                ) from error
            self._writer = SummaryWriter(str(root / "tensorboard"), purge_step=first_step)

    @property
    def is_heard(self) -> bool:
        """Whether anything comes of reporting."""
        return self._say is not None or self._writer is not None

    def step(self, line: Mapping[str, Any], pace: Pace | None, steps: int) -> None:
        """Report a step: its line of the log and the pace."""
        number = line["step"]
        self.say(
            f"step {number}/{steps}  loss {line['loss']:.4f}  grad {line['grad_norm']:.2f}"
            + ("" if pace is None else f"  {pace}")
        )
        if self._writer is None:
            return
        self._writer.add_scalar("train/loss", line["loss"], number)
        for name in ("lr", "grad_norm"):
            self._writer.add_scalar(f"train/{name}", line[name], number)
        for name, value in line["terms"].items():
            self._writer.add_scalar(f"terms/{name}", value, number)
        if pace is not None:
            for name in ("clips_per_second", "stall_share", "mfu"):
                self._writer.add_scalar(f"speed/{name}", getattr(pace, name), number)

    def validation(self, step: int, found: Mapping[str, Any]) -> None:
        """Report held-out measures."""
        best = {
            name: f"{value:.4f}"
            for name, value in found["model"].items()
            if value is not None and not name.startswith("loss_")
        }
        margins = ", ".join(
            f"{name} {value:+.4f}" for name, value in found["margin"].items() if value is not None
        )
        self.say(
            f"held out at {step}: "
            + ", ".join(f"{name} {value}" for name, value in best.items())
            + f"; over the best trivial predictor: {margins}"
        )
        if self._writer is not None:
            for name, value in found["model"].items():
                if value is not None:
                    self._writer.add_scalar(f"held_out/{name}", value, step)

    def say(self, text: str) -> None:
        """Print a line."""
        if self._say is not None:
            self._say(text)

    def close(self) -> None:
        """Write out what TensorBoard still holds."""
        if self._writer is not None:
            self._writer.close()
