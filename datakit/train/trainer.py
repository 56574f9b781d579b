"""The loop: stream, forward, backward, step; log, validate, keep; stop and go on exactly there."""

from __future__ import annotations

import math
import signal
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, nullcontext
from pathlib import Path
from types import FrameType
from typing import Any

import torch
from torch import Tensor

from datakit.convert.lock import locked_folder
from datakit.d4rt import D4RT, composite_loss, count_targets, forward_flops, load_videomae
from datakit.evaluate.leaks import require_no_leaks
from datakit.stream import Ledger, Stream, merge, stream

from . import checkpoint
from .checkpoint import Progress, check_checkpoint, load_weights
from .config import TrainConfig
from .failures import NonFiniteError
from .feed import Fed, Feed, micro_batches
from .optim import Average, learning_rate, make_optimizer
from .parallel import Ranks, ranks_of, spread, synchronising
from .report import Reporter
from .rundir import Existing, RunFolder
from .speed import Meter, matmul_rate
from .validate import validate

_HALF = {"fp32": None, "bf16": torch.bfloat16}
#: Share of a training step that the forward pass is (its backward costs twice as much).
_STEP_PER_FORWARD = 3


class Trainer:
    """One run in one folder.

    Args:
        config: The configuration.
        out: Folder of the run. If it holds a checkpoint of this very run, the run goes on from there.
        existing: What to do with a run in `out`: `resume` it if it is the same, else raise; `overwrite` it unless it
            is the same and unfinished; or begin `fresh` in any case.
        say: Takes progress lines; None for silence.

    Attributes:
        is_done: Whether the last step was reached.

    Example:
        >>> Trainer(load_config("tiny"), Path("run")).run()  # doctest: +SKIP
    """

    def __init__(
        self,
        config: TrainConfig,
        out: str | Path,
        *,
        existing: Existing = "resume",
        say: Callable[[str], None] | None = None,
    ) -> None:
        self.config, self.is_done = config, False
        self._folder, self._existing, self._say = RunFolder(Path(out)), existing, say
        self._wants_stop = False

    def run(self) -> bool:
        """Train to the end, or until SIGINT or SIGTERM asks for a stop; a second signal interrupts at once.

        Returns:
            Whether the end was reached; if not, a checkpoint of where it stopped is there.

        Raises:
            UsageError: The folder belongs to another run.
            NonFiniteError: A loss or gradient is NaN or infinite.
            QualityError: The shards touch a scene of `leaks.against`.
            ShardError: A sample cannot be read.
        """
        with self._stopping_on_signals():
            for _ in self.steps():
                pass
        return self.is_done

    def steps(self) -> Iterator[dict[str, Any]]:
        """Train, handing out the log's line of every step; leaving the loop abandons the run where it is.

        Raises:
            As `run`.
        """
        config = self.config
        with ExitStack() as stack:
            ranks = stack.enter_context(ranks_of(config.execution))
            config.check_ranks(ranks.world_size)
            stack.enter_context(_torch_settings(config))
            self._refuse_leaks(ranks)
            clips = stack.enter_context(_open_stream(config, ranks))
            self._claim(stack, ranks, clips.state_dict()["order"])
            run = _Run(config, ranks, clips, self._folder, self._say)
            stack.callback(run.close)
            yield from self._loop(run)
            self.is_done = run.progress.step >= config.optim.steps

    def stop(self) -> None:
        """Ask for a checkpoint and the end of the run after one more step."""
        self._wants_stop = True

    def _loop(self, run: _Run) -> Iterator[dict[str, Any]]:
        is_last = run.progress.step >= self.config.optim.steps
        while not is_last:
            done = run.progress.step + 1
            # All ranks learned of the wish in the sum of the step before, and so stop together.
            is_last = done == self.config.optim.steps or run.is_stop_agreed
            line = run.step(self._wants_stop, looks_ahead=not is_last and not run.is_due(done))
            run.after(line, is_last)
            yield line

    def _refuse_leaks(self, ranks: Ranks) -> None:
        """Compare the mixture with what is measured on, on the first rank; its errors are every rank's."""
        asked, error = self.config.leaks, None
        if ranks.is_first and asked.against:
            try:
                scenes = require_no_leaks(
                    self.config.data.shards, asked.against, pictures=asked.pictures, allow=asked.allow
                )
                if scenes and self._say is not None:
                    self._say(
                        f"leaks.allow: trains on {len(scenes)} scene(s) of the evaluation: {', '.join(scenes)}"
                    )
            except Exception as caught:
                error = caught
        error = ranks.from_first(error)
        if error is not None:
            raise error

    def _claim(self, stack: ExitStack, ranks: Ranks, order: Mapping[str, Any]) -> None:
        """Take the folder, on the first rank; its errors are every rank's."""
        error: Exception | None = None
        if ranks.is_first:
            try:
                self._folder.root.mkdir(parents=True, exist_ok=True)
                stack.enter_context(locked_folder(self._folder.root))
                self._folder.begin(self.config, order, self._existing)
            except Exception as caught:
                error = caught
        error = ranks.from_first(error)
        if error is not None:
            raise error

    @contextmanager
    def _stopping_on_signals(self) -> Iterator[None]:
        def handle(signum: int, frame: FrameType | None) -> None:
            if self._wants_stop:
                raise KeyboardInterrupt
            self._wants_stop = True

        before: dict[signal.Signals, Any] = {}
        try:
            for number in (signal.SIGINT, signal.SIGTERM):
                before[number] = signal.signal(number, handle)
        except ValueError:  # not the main thread: whoever owns that may call `stop`
            pass
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)


class _Run:
    """What a run holds while it runs."""

    def __init__(
        self,
        config: TrainConfig,
        ranks: Ranks,
        clips: Stream,
        folder: RunFolder,
        say: Callable[[str], None] | None,
    ) -> None:
        self.config, self.ranks, self.folder = config, ranks, folder
        self.is_stop_agreed = False
        place = ranks.from_first(checkpoint.newest(folder.checkpoints) if ranks.is_first else None)
        self.model = _make_model(config, ranks, is_new=place is None)
        self.module = spread(self.model, ranks, config.execution)
        self.optimizer = make_optimizer(self.model, config.optim)
        decay = config.optim.ema_decay
        self.average = Average(self.model, decay) if decay else None
        self.progress = Progress(stream=clips.state_dict())
        self._seen_before: dict[str, Any] | None = None
        if place is not None:
            self._resume(place, clips)
        self._clips, self._feed = clips, Feed(clips, ranks.device)
        if ranks.is_first:
            folder.rewind(self.progress.step)
        self.reporter = Reporter(
            folder.root,
            config.log.tensorboard and ranks.is_first,
            self.progress.step + 1,
            say if ranks.is_first else None,
        )
        self._meter = self._make_meter()
        self._meter.restart(self._feed.waited)
        if place is not None:
            self.reporter.say(f"going on from step {self.progress.step}")

    def close(self) -> None:
        """Let go of what must not outlive the process group."""
        self.reporter.close()
        # Whoever drops the group last waits for its threads. DDP's C++ would do so holding the interpreter's lock,
        # which a thread that has just finished a sum may want: both wait for ever. `destroy_process_group` gives the
        # lock away.
        del self.module

    def is_due(self, done: int) -> bool:
        """Whether a checkpoint or a validation follows a step."""
        return done % self.config.checkpoint.every == 0 or self._validates_after(done)

    def step(self, wants_stop: bool, looks_ahead: bool) -> dict[str, Any]:
        """Do one step; see `Trainer.steps` for what it returns."""
        config, number = self.config, self.progress.step
        rate = learning_rate(number, config.optim)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        fed = self._feed.take()
        parts = micro_batches(fed.batch, config.execution.accumulate)
        terms = self._backward(parts)
        if looks_ahead:
            self._feed.look_ahead()
        limit = config.optim.grad_clip or math.inf
        norm = torch.nn.utils.clip_grad_norm_(self.model.parameters(), limit)
        norm = norm.full_tensor() if hasattr(norm, "full_tensor") else norm
        names = list(terms)
        summed = torch.stack([terms[name] / self.ranks.world_size for name in names])
        wish = torch.tensor([float(wants_stop)], device=summed.device)
        *values, stops = self.ranks.sum(torch.cat([summed.float(), wish])).tolist()
        self.is_stop_agreed = stops > 0
        loss, gradient = math.fsum(values), norm.item()
        if not (math.isfinite(loss) and math.isfinite(gradient)):
            raise self._not_finite(fed, parts, loss, gradient)
        self.optimizer.step()
        self.optimizer.zero_grad()
        if self.average is not None:
            self.average.update(number)
        self.progress.step, self.progress.stream = number + 1, fed.stream_state
        self._meter.mark(self._feed.waited)
        return {
            "step": number + 1,
            "loss": loss,
            "terms": dict(zip(names, values, strict=True)),
            "lr": rate,
            "grad_norm": gradient,
            "order_hash": fed.stream_state["order_hash"],
        }

    def after(self, line: Mapping[str, Any], is_last: bool) -> None:
        """Log a step, and validate and keep where it is time."""
        done, config = line["step"], self.config
        if self.ranks.is_first:
            self.folder.append("steps.jsonl", line)
        if done % config.log.every == 0 or is_last:
            self.reporter.step(line, self._meter.pace(config.optim.steps - done), config.optim.steps)
        is_best = self._validates_after(done) and self._validate()
        if is_best or is_last or done % config.checkpoint.every == 0:
            self._save()
        if self.is_due(done):
            self._meter.restart(self._feed.waited)
        if done == config.optim.steps and self.ranks.is_first:
            self._finish()

    def _backward(self, parts: list[dict[str, Any]]) -> dict[str, Tensor]:
        """Run forward and backward over a step's micro-batches; return the sums of the loss's terms."""
        config = self.config
        sums: dict[str, Tensor] = {}
        denominators = self._denominators(parts)
        half = _HALF[config.execution.precision]
        for at, part in enumerate(parts):
            with synchronising(self.module, at == len(parts) - 1):
                with torch.autocast(self.ranks.device.type, half, enabled=half is not None):
                    answer = self.module(
                        part["video"], part["frame_mask"], part["aspect_ratio"], part["query"]
                    )
                total, terms, _ = composite_loss(
                    answer, part, config.loss, self.progress.step, denominators=denominators
                )
                total.backward()
            for name, value in terms.items():
                sums[name] = sums[name] + value if name in sums else value
        return sums

    def _denominators(self, parts: list[dict[str, Any]]) -> dict[str, Tensor | float]:
        """What each target's sum is divided by so that the mean over ranks is the loss of the global batch."""
        if self.config.loss.reduction == "queries":
            size = float(sum(part["mask"]["xyz"].numel() for part in parts))
            return dict.fromkeys(parts[0]["mask"], size)
        counts = [count_targets(part) for part in parts]
        names = list(counts[0])
        summed = torch.stack([sum((c[name] for c in counts[1:]), counts[0][name]) for name in names])
        known = self.ranks.sum(summed).clamp(min=1) / self.ranks.world_size
        return dict(zip(names, known.unbind(), strict=True))

    def _validates_after(self, done: int) -> bool:
        asked = self.config.validation
        return bool(asked.shards) and (done % asked.every == 0 or done == self.config.optim.steps)

    def _validate(self) -> bool:
        """Measure the averaged weights on held-out clips; return whether they are the best so far."""
        with self.average.in_place() if self.average is not None else nullcontext():
            found = validate(self.model, self.config, self.ranks)
        line = {"step": self.progress.step} | found
        self.progress.measures = line
        if self.ranks.is_first:
            self.folder.append("validation.jsonl", line)
            self.reporter.validation(self.progress.step, found)
        measure = self.config.checkpoint.best
        value = found["model"].get(measure) if measure else None
        if value is None:
            return False
        best = self.progress.best
        is_best = best is None or (value > best if measure == "apd3d" else value < best)
        if is_best:
            self.progress.best, self.progress.best_step = value, self.progress.step
        return is_best

    def _save(self) -> None:
        ledgers = self.ranks.gather(self._clips.ledger.to_json())
        parts = [Ledger.of_json(data) for data in [*filter(None, [self._seen_before]), *ledgers]]
        checkpoint.save(
            self.folder.checkpoints,
            self.model,
            self.optimizer,
            self.average,
            self.progress,
            self.ranks,
            merge(parts).to_json(),
            self.folder.beside() if self.ranks.is_first else {},
        )
        if self.ranks.is_first:
            checkpoint.prune(self.folder.checkpoints, self.config.checkpoint, self.progress.best_step)
        self.ranks.wait()

    def _resume(self, place: Path, clips: Stream) -> None:
        self.progress, self._seen_before = checkpoint.load(
            place, self.model, self.optimizer, self.average, self.ranks
        )
        clips.load_state_dict(self.progress.stream)

    def _finish(self) -> None:
        """Write the curve and the metrics of a finished run."""
        self.folder.write_curve()
        if self.progress.measures:
            self.folder.write_metrics(self.progress.measures)

    def _make_meter(self) -> Meter:
        config, ranks = self.config, self.ranks
        flops = forward_flops(config.model, config.data.batch_size, config.clip_frames, config.data.queries)[
            "total"
        ]
        # Nobody looks, nobody measures.
        kind = _HALF[config.execution.precision] or torch.float32
        rate = matmul_rate(ranks.device, kind) if self.reporter.is_heard else math.inf
        return Meter(config.data.batch_size, _STEP_PER_FORWARD * flops, rate * ranks.world_size)

    def _not_finite(
        self, fed: Fed, parts: list[dict[str, Any]], loss: float, gradient: float
    ) -> NonFiniteError:
        """Name the clips of a step that gave no number, and those among them that alone give none."""
        bad = [key for part in parts for key in self._bad_clips(part)]
        keys = [key for rank in self.ranks.gather(list(fed.batch["meta"]["key"])) for key in rank]
        bad = [key for rank in self.ranks.gather(bad) for key in rank]
        kept = checkpoint.newest(self.folder.checkpoints)
        return NonFiniteError(
            "Training met a number that is none",
            where=f"step {self.progress.step + 1}, clips {', '.join(keys)}",
            expected="a finite loss and gradient",
            found=f"loss {loss}, gradient norm {gradient}"
            + (f"; alone not finite: {', '.join(bad)}" if bad else "; each clip's own loss is finite"),
            mend="`datakit trace` leads to the source of a clip; a lower learning rate or fp32 helps where no clip "
            f"is to blame. The weights before this step: {kept or 'no checkpoint yet'}",
        )

    @torch.no_grad()
    def _bad_clips(self, part: dict[str, Any]) -> list[str]:
        answer = self.model(part["video"], part["frame_mask"], part["aspect_ratio"], part["query"])
        out = []
        for row, (alone, key) in enumerate(
            zip(micro_batches(part, len(part["video"])), part["meta"]["key"], strict=True)
        ):
            guess = {name: value[row : row + 1] for name, value in answer.items()}
            total, _, _ = composite_loss(guess, alone, self.config.loss, self.progress.step)
            if not math.isfinite(total.item()):
                out.append(key)
        return out


def _open_stream(config: TrainConfig, ranks: Ranks) -> Stream:
    data, clip = config.data, config.clip_params()
    return stream(
        data.shards,
        data.mixture,
        batch_size=data.batch_size,
        clip_frames=clip.clip_frames,
        size=clip.size,
        num_queries=clip.num_queries,
        sampler=clip.sampler,
        seed=data.seed,
        augment=clip.augment,
        rank=ranks.rank,
        world_size=ranks.world_size,
        workers=data.workers,
        read_ahead=data.read_ahead,
        failure_budget=data.failure_budget,
    )


def _make_model(config: TrainConfig, ranks: Ranks, is_new: bool) -> D4RT:
    """Build the model with the weights a new run starts from; the same on every rank, drawn on the CPU."""
    torch.manual_seed(config.init.seed)
    model = D4RT(config.model)
    if is_new and config.init.videomae:
        load_videomae(model, config.init.videomae)
    if is_new and config.init.checkpoint:
        load_weights(check_checkpoint(Path(config.init.checkpoint)), model)
    return model.to(ranks.device)


@contextmanager
def _torch_settings(config: TrainConfig) -> Iterator[None]:
    """Set what is torch's and global, and put it back."""
    execution = config.execution
    threads, deterministic = torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()
    if execution.threads is not None:
        torch.set_num_threads(execution.threads)
    torch.use_deterministic_algorithms(execution.deterministic)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
        torch.use_deterministic_algorithms(deterministic)
