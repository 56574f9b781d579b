"""datakit info."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import click

from .common import find_scenes, verb

if TYPE_CHECKING:
    from datakit.scene import Scene, View


@verb("""
datakit info OUT/3.h5
datakit info OUT/3.h5 --json | jq .provenance.sources
""")
@click.argument("scenes", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option(
    "--json", "as_json", is_flag=True, help="Print every field, as in schemas/json/scene.schema.json."
)
def command(scenes: tuple[Path, ...], as_json: bool) -> None:
    """Show what is in SCENES (files, or folders of scenes).

    With --json, one object a line if there are several.
    """
    from datakit.scene import describe_scene, open_scene

    paths = find_scenes(scenes)
    for number, path in enumerate(paths):
        with open_scene(path) as scene:
            if as_json:
                click.echo(json.dumps(describe_scene(scene), indent=2 if len(paths) == 1 else None))
            else:
                click.echo(("\n" if number else "") + "\n".join(_summary(scene)))


def _summary(scene: Scene) -> list[str]:
    from datakit.motion import MotionKind

    made = scene.provenance
    kinds = [MotionKind(int(kind)).name.lower() for kind in scene.motion.instance_motion]
    counts = ", ".join(f"{kinds.count(kind)} {kind}" for kind in dict.fromkeys(kinds))
    rows = [
        ("dataset", f"{scene.dataset}, split {scene.split}"),
        ("scale", scene.scale),
        ("time", scene.time_kind),
        ("licence", scene.licence),
        ("instances", f"{len(kinds)} ({counts})"),
        ("made by", f"{made['converter']} {made['converter_version']}, contract {scene.schema_version}"),
        ("sources", f"{len(made['sources'])} file(s)"),
    ]
    lines = [str(scene.path), *(f"  {label:<10} {value}" for label, value in rows)]
    for view in scene.views.values():
        lines += _view_summary(view)
    return lines


def _view_summary(view: View) -> list[str]:
    width, height = view.size
    span = f"{view.times[0]:g} to {view.times[-1]:g} s" if view.num_frames else "no frames"
    known = int(view.pose_is_known.sum())
    lines = [
        f"  view {view.name}: {view.num_frames} frames of {width} x {height}, {span}, {known} poses known"
    ]
    for layer in view.layers:
        size = view.layer_size(layer)
        own = "" if tuple(size) == tuple(view.size) else f", {size[0]} x {size[1]}"
        kind = f", {view.depth_kind}" if layer == "z_depth" else ""
        lines.append(f"    {layer}{kind}{own}")
    return lines
