"""Decide which clips a set has and in what order, before anything is written."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from datakit.errors import QualityError, UsageError

from .clips import Window
from .layout import FORMAT_VERSION, LEVELS, clip_key, sha256_json
from .params import PackParams
from .scenes import SceneFacts
from .windows import windows


@dataclass(frozen=True)
class Plan:
    """A set to be packed.

    Attributes:
        scenes: What is packed, sorted by dataset and id.
        refused: What is not, because of its certificate level.
        clips: (index into scenes, window) in the order of the set.
        sha256: Of everything that decides the set's bytes.
    """

    scenes: tuple[SceneFacts, ...]
    refused: tuple[SceneFacts, ...]
    clips: tuple[tuple[int, Window], ...]
    sha256: str


def make_plan(facts: Sequence[SceneFacts], params: PackParams, max_refused: int) -> Plan:
    """Order scenes and windows; the order of `facts` does not matter.

    Args:
        facts: All scenes asked for.
        params: Parameters of the set.
        max_refused: How many scenes may be left out for their certificate level.

    Raises:
        QualityError: More scenes than that are below `params.min_level`.
        UsageError: A scene comes twice, two clips would have one key, or nothing is left.
    """
    ordered = sorted(facts, key=lambda f: (f.dataset, f.id))
    _require_unique(ordered)
    worst = LEVELS.index(params.min_level)
    refused = tuple(f for f in ordered if LEVELS.index(f.origin.certificate_level) > worst)
    if len(refused) > max_refused:
        _refuse(refused, params, max_refused)
    scenes = tuple(f for f in ordered if f not in refused)
    clips = tuple(
        (i, Window(view, start, count))
        for i, scene in enumerate(scenes)
        for view, num_frames in scene.views
        for start, count in windows(num_frames, params.clip_frames, params.window_stride)
    )
    if not clips:
        raise UsageError(
            "There is nothing to pack", expected="scenes with colour", found=f"{len(ordered)} scene(s)"
        )
    _require_unique_keys(scenes, clips)
    content = {
        "version": FORMAT_VERSION,
        "params": params.to_dict(),
        "scenes": [f.summary for f in scenes],
        "refused": [f.summary for f in refused],
    }
    return Plan(scenes, refused, clips, sha256_json(content))


def _require_unique(ordered: Sequence[SceneFacts]) -> None:
    for one, two in zip(ordered, ordered[1:], strict=False):
        if (one.dataset, one.id) == (two.dataset, two.id):
            raise UsageError(
                "A scene comes twice", where=two.path, expected="each scene once", found=one.path
            )


def _require_unique_keys(scenes: Sequence[SceneFacts], clips: Sequence[tuple[int, Window]]) -> None:
    owner: dict[str, tuple[int, Window]] = {}
    for i, window in clips:
        key = clip_key(scenes[i].dataset, scenes[i].id, window.view, window.start)
        if key in owner:
            raise UsageError(
                "Two clips would have one key",
                where=scenes[i].path,
                expected="ids that differ in more than punctuation",
                found=f"{key}, also of {scenes[owner[key][0]].path}",
            )
        owner[key] = (i, window)


def _refuse(refused: Sequence[SceneFacts], params: PackParams, max_refused: int) -> None:
    names = [f"{f.dataset}/{f.id} ({f.origin.certificate_level})" for f in refused]
    more = f" and {len(names) - 10} more" if len(names) > 10 else ""
    raise QualityError(
        f"{len(refused)} scene(s) have no certificate of the level asked for",
        expected=f"{params.min_level} or better; at most {max_refused} left out",
        found=", ".join(names[:10]) + more,
        mend="certify them, leave them out (max_refused, --max-refused), or lower the level (min_level, --min-level)",
    )
