"""Decide which clips a set has and in what order, before anything is written."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from datakit.errors import QualityError, UsageError

from .clips import Window
from .layout import FORMAT_VERSION, LEVELS, clip_key, sha256_json
from .params import PackParams
from .scenes import SceneFacts
from .windows import windows

#: By view: what the windows were chosen by, and (name of the window, its photos) of each.
ChosenWindows = Mapping[str, tuple[str, Sequence[tuple[int, Sequence[int]]]]]
#: Another number for another way to choose them: a run that was stopped does not go on with other windows.
_SET_WINDOWS = 1


@dataclass(frozen=True)
class Plan:
    """A set to be packed.

    Attributes:
        scenes: What is packed, sorted by dataset and id.
        refused: What is not, because of its certificate level.
        sets: (index into scenes, views) of the sets of photos whose windows have to be chosen by what the photos
            show: those longer than one window.
        sha256: Of everything that decides the set's bytes.
    """

    scenes: tuple[SceneFacts, ...]
    refused: tuple[SceneFacts, ...]
    sets: tuple[tuple[int, tuple[str, ...]], ...]
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
    if not any(scene.views for scene in scenes):
        raise UsageError(
            "There is nothing to pack", expected="scenes with colour", found=f"{len(ordered)} scene(s)"
        )
    _require_unique_keys(scenes)
    content: dict[str, Any] = {
        "version": FORMAT_VERSION,
        "params": params.to_dict(),
        "scenes": [f.summary for f in scenes],
        "refused": [f.summary for f in refused],
    }
    sets = _sets(scenes, params)
    if sets:  # without any, the plan is the one of the releases before windows were chosen
        content["set_windows"] = _SET_WINDOWS
    return Plan(scenes, refused, sets, sha256_json(content))


def _sets(scenes: Sequence[SceneFacts], params: PackParams) -> tuple[tuple[int, tuple[str, ...]], ...]:
    long = (
        tuple(view for view, num_frames in scene.views if num_frames > params.clip_frames)
        if scene.summary["time_kind"] == "set"
        else ()
        for scene in scenes
    )
    return tuple((i, views) for i, views in enumerate(long) if views)


def list_clips(
    plan: Plan, params: PackParams, chosen: Mapping[int, ChosenWindows]
) -> list[tuple[int, Window]]:
    """List the clips of a plan.

    Args:
        plan: The plan.
        params: Those it was made with.
        chosen: For each scene of `plan.sets`, by view, what its windows were chosen by and what they are.

    Returns:
        (index into `plan.scenes`, window) in the order of the set.
    """
    out: list[tuple[int, Window]] = []
    for i, scene in enumerate(plan.scenes):
        for view, num_frames in scene.views:
            if view in chosen.get(i, {}):
                by, found = chosen[i][view]
                out += [(i, Window(view, start, len(photos), tuple(photos), by)) for start, photos in found]
            else:
                cut = windows(num_frames, params.clip_frames, params.window_stride)
                out += [(i, Window(view, start, count)) for start, count in cut]
    return out


def _require_unique(ordered: Sequence[SceneFacts]) -> None:
    for one, two in zip(ordered, ordered[1:], strict=False):
        if (one.dataset, one.id) == (two.dataset, two.id):
            raise UsageError(
                "A scene comes twice", where=two.path, expected="each scene once", found=one.path
            )


def _require_unique_keys(scenes: Sequence[SceneFacts]) -> None:
    owner: dict[str, SceneFacts] = {}
    for scene in scenes:
        for view, _ in scene.views:
            # Keys of one view differ in their number, so those of two views are alike where these are.
            key = clip_key(scene.dataset, scene.id, view, 0)
            if key in owner:
                raise UsageError(
                    "Two clips would have one key",
                    where=scene.path,
                    expected="ids that differ in more than punctuation",
                    found=f"{key}, also of {owner[key].path}",
                )
            owner[key] = scene


def _refuse(refused: Sequence[SceneFacts], params: PackParams, max_refused: int) -> None:
    names = [f"{f.dataset}/{f.id} ({f.origin.certificate_level})" for f in refused]
    more = f" and {len(names) - 10} more" if len(names) > 10 else ""
    raise QualityError(
        f"{len(refused)} scene(s) have no certificate of the level asked for",
        expected=f"{params.min_level} or better; at most {max_refused} left out",
        found=", ".join(names[:10]) + more,
        mend="certify them, leave them out (max_refused, --max-refused), or lower the level (min_level, --min-level)",
    )
