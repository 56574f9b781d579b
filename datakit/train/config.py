"""The configuration of a run: strict, complete, and saved as it was understood."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, fields
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    TypeAdapter,
    ValidationError,
    field_validator,
    model_validator,
)

from datakit.d4rt import LossConfig, ModelConfig, find_config
from datakit.errors import LayoutError, UsageError
from datakit.stream import AugmentParams, ClipParams

#: Configurations that come with the package: `datakit train tiny`.
BUNDLED = Path(__file__).parent / "configs"
#: Sections that change how a run is carried out but not what it computes; they may differ when it is resumed.
#: Of `data` these fields belong to them; where shards lie may change too, but not the hash of their manifests.
EXECUTION = ("execution", "checkpoint", "log", "validation", "leaks")
EXECUTION_DATA = ("workers", "read_ahead", "failure_budget", "shards")

_AUGMENT = TypeAdapter(AugmentParams)
Share = Annotated[float, Field(ge=0, lt=1)]


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, protected_namespaces=())


class DataConfig(_Section):
    """What is streamed. See docs/stream.md.

    Attributes:
        shards: Shard sets, paths or URLs.
        mixture: Dataset -> weight; None shows every clip equally often.
        batch_size: Clips of one optimiser step, over all ranks and micro-batches.
        clip_frames: Frames of a clip; None for the model's `num_frames`.
        queries: Queries of a clip.
        sampler: Of `datakit.queries`.
        seed: Of the order.
        augment: Changes to `AugmentParams()`, the paper's recipe; or `none` for clips as they are.
        workers: Decoding processes of each rank.
        read_ahead: Batches that they make ahead.
        failure_budget: Samples of each rank that may fail.
    """

    shards: list[str] = Field(min_length=1)
    mixture: dict[str, PositiveFloat] | None = None
    batch_size: PositiveInt = 64
    clip_frames: PositiveInt | None = None
    queries: PositiveInt = 2048
    sampler: str = "paper"
    seed: NonNegativeInt = 0
    augment: Literal["none"] | dict[str, Any] = Field(default_factory=dict)
    workers: NonNegativeInt = 2
    read_ahead: PositiveInt = 2
    failure_budget: NonNegativeInt = 0

    @field_validator("augment")
    @classmethod
    def _check_augment(cls, value: Any) -> Any:
        _augment_params(value)
        return value

    def augment_params(self) -> AugmentParams:
        """Return how clips are varied."""
        return _augment_params(self.augment)


class InitConfig(_Section):
    """Where weights come from when a run begins.

    Attributes:
        seed: Of the random weights.
        videomae: VideoMAE V2 weights for the encoder: a file, or the id of a repository.
        checkpoint: Checkpoint of another run of the same model; its averaged weights are the start of this one.
    """

    seed: NonNegativeInt = 0
    videomae: str | None = None
    checkpoint: str | None = None


class OptimConfig(_Section):
    """Optimiser and schedule; the defaults are those of arXiv 2512.08924, the betas and the average ours.

    Attributes:
        steps: Optimiser steps of the run.
        warmup_steps: Steps over which the learning rate rises linearly to `lr`.
        lr: Highest learning rate.
        final_lr: Where the cosine ends.
        weight_decay: Of matrices; biases, norms and the time tables have none.
        betas: Of AdamW.
        eps: Of AdamW.
        grad_clip: Largest global L2 norm of the gradient; 0 for no limit.
        ema_decay: Of the average of weights that validation uses; 0 for no average.
    """

    steps: PositiveInt = 500_000
    warmup_steps: NonNegativeInt = 2500
    lr: PositiveFloat = 1e-4
    final_lr: NonNegativeFloat = 1e-6
    weight_decay: NonNegativeFloat = 0.03
    betas: tuple[Share, Share] = (0.9, 0.999)
    eps: PositiveFloat = 1e-8
    grad_clip: NonNegativeFloat = 10.0
    ema_decay: Share = 0.9995


class ExecutionConfig(_Section):
    """How the machine is used.

    Attributes:
        device: `auto` takes a GPU if there is one.
        strategy: Over several ranks: `ddp` keeps all on every rank, `fsdp` shards weights and optimiser (torch's
            `fully_shard`). `auto` is `ddp` under torchrun, else `none`.
        precision: Of the matrix products; weights and losses are float32.
        compile: `off`, `blocks` (each layer, fast to compile) or `model`.
        accumulate: Micro-batches of a rank's share of a batch.
        threads: Of torch on the CPU; None leaves it alone.
        deterministic: Ask torch for deterministic kernels (on GPUs; the CPU's are).
    """

    device: Literal["auto", "cpu", "cuda"] = "auto"
    strategy: Literal["auto", "none", "ddp", "fsdp"] = "auto"
    precision: Literal["fp32", "bf16"] = "bf16"
    compile: Literal["off", "blocks", "model"] = "off"
    accumulate: PositiveInt = 1
    threads: PositiveInt | None = None
    deterministic: bool = False


class CheckpointConfig(_Section):
    """What is kept.

    Attributes:
        every: Steps from one checkpoint to the next.
        keep_last: So many newest are kept.
        keep_every: Those at multiples of this many steps are kept; 0 for none.
        best: Held-out measure whose best checkpoint is kept: `apd3d`, `abs_rel` or `loss`; None for none.
    """

    every: PositiveInt = 1000
    keep_last: PositiveInt = 2
    keep_every: NonNegativeInt = 0
    best: Literal["apd3d", "abs_rel", "loss"] | None = "apd3d"


class ValidationConfig(_Section):
    """Held-out clips, whole images of consecutive frames, and two kinds of questions: tracks and depth.

    Attributes:
        shards: Shard sets; none: no validation.
        every: Steps from one to the next; the last step is always validated.
        clips: How many, in the order of `seed`; None for each once.
        batch_size: Clips at a time over all ranks; None for that of training.
        queries: Of each kind and clip.
        seed: Of clips and queries.
    """

    shards: list[str] = Field(default_factory=list)
    every: PositiveInt = 1000
    clips: PositiveInt | None = None
    batch_size: PositiveInt | None = None
    queries: PositiveInt = 2048
    seed: NonNegativeInt = 0


class LeaksConfig(_Section):
    """What the model will be measured on, and must not be trained on. See `datakit leaks`.

    Attributes:
        against: Lists, benchmarks' data, scenes or shard sets that `data.shards` must not touch; none: not checked.
        pictures: Compare frames by perceptual hash too, not only names of scenes; reads both sides (extra `evaluate`).
        allow: Train all the same, and say so.
    """

    against: list[str] = Field(default_factory=list)
    pictures: bool = False
    allow: bool = False


class LogConfig(_Section):
    """What is written while it runs.

    Attributes:
        every: Steps from one progress line, and one TensorBoard entry, to the next.
        tensorboard: Write TensorBoard files (extra `train`).
    """

    every: PositiveInt = 10
    tensorboard: bool = False


class TrainConfig(_Section):
    """All of a run; docs/train.md explains each field.

    Attributes:
        model: Sizes: fields of `ModelConfig`. In a file `name` (paper, large, base, small, tiny) gives the fields
            that are not named.
        data: What is streamed.
        loss: Weights and options of the loss.
        optim: Optimiser and schedule.
        init: Where weights come from.
        execution: How the machine is used.
        checkpoint: What is kept.
        validation: Held-out clips.
        log: What is written.
        leaks: What must not be trained on.
    """

    model: ModelConfig
    data: DataConfig
    loss: LossConfig = LossConfig()
    optim: OptimConfig = OptimConfig()
    init: InitConfig = InitConfig()
    execution: ExecutionConfig = ExecutionConfig()
    checkpoint: CheckpointConfig = CheckpointConfig()
    validation: ValidationConfig = ValidationConfig()
    log: LogConfig = LogConfig()
    leaks: LeaksConfig = LeaksConfig()

    @model_validator(mode="after")
    def _fits(self) -> TrainConfig:
        if self.clip_frames > self.model.num_frames:
            raise UsageError(
                "Clips are longer than the model's time tables",
                where="data.clip_frames",
                expected=f"at most model.num_frames = {self.model.num_frames}",
                found=self.clip_frames,
            )
        if self.optim.warmup_steps >= self.optim.steps:
            raise UsageError(
                "The warm-up is as long as the run",
                where="optim.warmup_steps",
                expected=f"below optim.steps = {self.optim.steps}",
                found=self.optim.warmup_steps,
            )
        return self

    def check_ranks(self, world_size: int) -> None:
        """Check that the global batch divides among ranks and micro-batches.

        Raises:
            UsageError: It does not.
        """
        parts = world_size * self.execution.accumulate
        if self.data.batch_size % parts:
            raise UsageError(
                "The batch does not divide among ranks and micro-batches",
                where="data.batch_size",
                expected=f"a multiple of {world_size} rank(s) x execution.accumulate = {self.execution.accumulate}",
                found=self.data.batch_size,
            )

    @property
    def clip_frames(self) -> int:
        """Frames of a clip."""
        return self.data.clip_frames or self.model.num_frames

    def clip_params(self) -> ClipParams:
        """Return what a training sample is made of."""
        data = self.data
        return ClipParams(
            self.clip_frames, self.model.image_size, data.queries, data.sampler, data.augment_params()
        )

    def to_dict(self) -> dict[str, Any]:
        """Return every field as YAML-able data; `parse_config` reads it back."""
        out: dict[str, Any] = self.model_dump(mode="json")
        out["model"], out["loss"] = asdict(self.model), asdict(self.loss)
        return out

    def identity(self) -> dict[str, Any]:
        """Return the part that decides what is computed; a run is only resumed with the same."""
        out = {name: section for name, section in self.to_dict().items() if name not in EXECUTION}
        out["data"] = {name: value for name, value in out["data"].items() if name not in EXECUTION_DATA}
        # The precision changes every number.
        return out | {"execution": {"precision": self.execution.precision}}


def load_config(source: str | Path, overrides: Iterable[str] = (), section: str | None = None) -> TrainConfig:
    """Read a configuration file.

    Args:
        source: A YAML file, or the name of one that comes with the package. Paths inside are relative to the
            working folder. A key `base` names another configuration, whose fields hold where this one has none.
        overrides: `section.field=value`, the value as in YAML.
        section: Key of the file under which the configuration is; None: it is the file.

    Raises:
        LayoutError: There is no such file.
        UsageError: It is no YAML, has an unknown key (the nearest one is named) or a value that does not fit.
    """
    raw = _read(source, section)
    for text in overrides:
        _override(raw, text)
    return parse_config(raw, str(_find(source)))


def _read(source: str | Path, section: str | None = None, above: tuple[Path, ...] = ()) -> dict[str, Any]:
    """Read a file, merged into the one that its `base` names."""
    path = _find(source)
    if path in above:
        raise UsageError("A configuration is its own base", where=" -> ".join(map(str, (*above, path))))
    try:
        raw = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UsageError("The configuration is no YAML", where=path, found=error) from error
    if isinstance(raw, dict) and section is not None:
        if section not in raw:
            raise UsageError("No such key", where=path, expected=section, found=", ".join(map(str, raw)))
        raw = raw[section]
    if not isinstance(raw, dict):
        raise UsageError("The configuration is no mapping", where=path, found=type(raw).__name__)
    base = raw.pop("base", None)
    return raw if base is None else _merged(_read(str(base), None, (*above, path)), raw)


def _merged(base: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """Lay mappings over each other, field by field; a model given by its name is a mapping too."""
    out = dict(base)
    for name, value in changes.items():
        below = out.get(name)
        if name == "model" and isinstance(below, str) and isinstance(value, Mapping):
            below = {"name": below}
        if isinstance(below, Mapping) and isinstance(value, Mapping):
            value = _merged(below, value)
        out[name] = value
    return out


def parse_config(raw: Mapping[str, Any], where: str = "configuration") -> TrainConfig:
    """Check a configuration given as nested mappings.

    Raises:
        UsageError: As `load_config`.
    """
    data = dict(raw)
    if isinstance(data.get("model"), str):
        data["model"] = {"name": data["model"]}
    if isinstance(data.get("model"), Mapping) and "name" in data["model"]:
        named = dict(data["model"])
        data["model"] = asdict(find_config(str(named.pop("name")))) | named
    try:
        return TrainConfig.model_validate(data)
    except ValidationError as error:
        raise _readable(error, where) from None


def _augment_params(changes: Literal["none"] | Mapping[str, Any]) -> AugmentParams:
    if changes == "none":
        return AugmentParams.none()
    known = [field.name for field in fields(AugmentParams)]
    for name in changes:
        if name not in known:
            raise _unknown(f"data.augment.{name}", name, known)
    return _AUGMENT.validate_python(changes)


def _find(source: str | Path) -> Path:
    path = Path(source)
    if path.is_file():
        return path
    bundled = BUNDLED / f"{source}.yaml"
    if "/" not in str(source) and bundled.is_file():
        return bundled
    names = ", ".join(sorted(each.stem for each in BUNDLED.glob("*.yaml")))
    raise LayoutError("No such configuration", where=path, expected=f"a YAML file, or one of: {names}")


def _override(raw: dict[str, Any], text: str) -> None:
    name, sign, value = text.partition("=")
    *sections, last = name.split(".")
    if not sign or not all([*sections, last]):
        raise UsageError("An override cannot be read", where="-o", expected="section.field=value", found=text)
    inner: Any = raw
    for section in sections:
        if isinstance(inner.get(section), str) and section == "model":
            inner[section] = {"name": inner[section]}
        inner = inner.setdefault(section, {})
        if not isinstance(inner, dict):
            raise UsageError(
                "An override goes into a value", where=f"-o {name}", found=f"{section} = {inner}"
            )
    try:
        inner[last] = yaml.safe_load(value)
    except yaml.YAMLError as error:
        raise UsageError("A value cannot be read", where=f"-o {name}", found=value) from error


def _readable(error: ValidationError, where: str) -> UsageError:
    first = error.errors()[0]
    place = ".".join(str(part) for part in first["loc"])
    if first["type"] in ("extra_forbidden", "unexpected_keyword_argument"):
        return _unknown(place, str(first["loc"][-1]), _siblings(first["loc"][:-1]), where)
    rest = len(error.errors()) - 1
    return UsageError(
        "A value does not fit" if first["type"] != "missing" else "A value is missing",
        where=f"{place} in {where}",
        expected=first["msg"],
        found=None if first["type"] == "missing" else repr(first["input"]),
        mend=f"{rest} more value(s) do not fit" if rest else None,
    )


def _siblings(place: Iterable[Any]) -> list[str]:
    """Names that are known at a place of the configuration."""
    kind: Any = TrainConfig
    for part in place:
        kind = TrainConfig.model_fields[str(part)].annotation
    if isinstance(kind, type) and issubclass(kind, BaseModel):
        return list(kind.model_fields)
    names = [field.name for field in fields(kind)]
    return ["name", *names] if kind is ModelConfig else names


def _unknown(place: str, name: str, known: list[str], where: str | None = None) -> UsageError:
    near = get_close_matches(name, known, n=1, cutoff=0.5)
    return UsageError(
        "Unknown key in the configuration",
        where=place if where is None else f"{place} in {where}",
        expected="one of: " + ", ".join(known),
        mend=f"did you mean '{near[0]}'?" if near else None,
    )
