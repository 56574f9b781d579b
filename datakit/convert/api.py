"""What a converter is: a module (or object) with the names of `Converter`.

It is found through the entry-point group `datakit.converters`. A third party adds a dataset by shipping one;
nothing in datakit names it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:  # a converter imports this module for its records; only type checkers need the rest
    from datakit.scene.records import SceneStream
    from datakit.worlds import World


@dataclass(frozen=True)
class DatasetCard:
    """What a user must know about a dataset before using it.

    Attributes:
        name: The converter's name.
        title: The dataset's own name.
        homepage: Official address.
        licence: Licence id as stored on every scene.
        licence_note: What it obliges to, in a sentence.
        citation: How to cite.
        scale: "metric", "sfm" or "unknown".
        supervision: Which layers and motion kinds a scene has.
        conventions: The source's conventions and how they are converted.
        defects: Known upstream defects, each with its thread ("owner/repo#n: ...").
    """

    name: str
    title: str
    homepage: str
    licence: str
    licence_note: str
    citation: str
    scale: str
    supervision: tuple[str, ...]
    conventions: tuple[str, ...]
    defects: tuple[str, ...] = ()


@dataclass(frozen=True)
class SceneRef:
    """One scene in a native tree, found without reading its frames.

    Attributes:
        id: As `SceneRecord.id`; stable across runs and machines.
        split: Official split, or "none".
        location: What `read` needs to find it again (JSON-able; paths relative to the root).
        fingerprint: sha256 hex over the relative paths and sizes of the scene's files (never times).
        num_frames: Frames over all views, if cheap to know; else None.
        num_bytes: Native bytes of this scene, for the estimate.
    """

    id: str
    split: str
    location: dict[str, Any]
    fingerprint: str
    num_frames: int | None = None
    num_bytes: int = 0


@dataclass(frozen=True)
class Problem:
    """One thing the doctor found. `severity` is "error" (scene cannot be converted) or "warning"."""

    severity: str
    where: str
    what: str
    mend: str = ""


@dataclass(frozen=True)
class Probe:
    """The doctor's report on a native tree.

    Attributes:
        dataset: Converter's name.
        variant: Which form of the release this is, for people ("worker folders, 3 clips").
        num_scenes: Scenes per official split.
        num_bytes: Native bytes in all.
        supervision: What the scenes will give.
        problems: What is missing, truncated or odd.
    """

    dataset: str
    variant: str
    num_scenes: dict[str, int]
    num_bytes: int
    supervision: tuple[str, ...]
    problems: tuple[Problem, ...] = field(default=())


class Converter(Protocol):
    """The names a converter module provides. `Params` is a pydantic dataclass that forbids unknown keys.

    A module may also have `make_world(seed, *, num_frames, size, motion) -> World`, where its native form needs
    other worlds than `datakit.worlds.random_world` draws.
    """

    CARD: DatasetCard
    VERSION: str
    Params: type[Any]
    #: world kinds the native format can express, for `datakit world`
    NATIVE_FORMS: tuple[str, ...]

    def probe(self, root: Path) -> Probe:
        """Look at a native tree without converting it. Never raises for bad content: it reports it."""
        ...

    def scenes(self, root: Path, params: Any) -> Iterator[SceneRef]:
        """List scenes in a stable order, without opening frames. LayoutError if root is not this dataset."""
        ...

    def read(self, root: Path, ref: SceneRef, params: Any) -> SceneStream:
        """Open one scene; frames are read as `SceneStream.frames` is iterated."""
        ...

    def write_native(self, worlds: Iterator[World], out: Path, form: str) -> None:
        """Write analytic worlds in the dataset's real on-disk layout (`form` is one of NATIVE_FORMS)."""
        ...
