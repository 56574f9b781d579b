"""datakit export."""

from __future__ import annotations

from pathlib import Path

import click

from .common import verb

FORMATS = ("colmap", "nerfstudio")


@verb("""
datakit export colmap OUT/kitchen.h5 kitchen_colmap
datakit export nerfstudio OUT/kitchen.h5 kitchen_ns --every 10
""")
@click.argument("format", type=click.Choice(FORMATS))
@click.argument("scene", type=click.Path(path_type=Path))
@click.argument("out", type=click.Path(path_type=Path))
@click.option("--view", "views", multiple=True, metavar="NAME", help="Only this view; may be given again.")
@click.option("--every", default=1, show_default=True, type=click.IntRange(1), help="Every so many frames.")
@click.option("--depth/--no-depth", default=True, show_default=True, help="Write depth maps.")
@click.option(
    "--points", type=click.IntRange(0), help="Largest number of points.  [default: 20000 or 100000]"
)
@click.option("--text", is_flag=True, help="COLMAP: write the model as text.")
def command(
    format: str,
    scene: Path,
    out: Path,
    views: tuple[str, ...],
    every: int,
    depth: bool,
    points: int | None,
    text: bool,
) -> int:
    """Write SCENE as a COLMAP workspace or for nerfstudio, at OUT, which must not exist or be empty.

    Poses, K, lenses and image bytes are exact. Frames without a pose are left out; points are of what is static.
    """
    from datakit.errors import UsageError
    from datakit.export import export_colmap, export_nerfstudio
    from datakit.scene import open_scene

    if text and format != "colmap":
        raise UsageError("Only COLMAP models can be text", where="--text", expected="colmap", found=format)
    limit = {} if points is None else {"points": points}
    with open_scene(scene) as opened:
        if format == "colmap":
            done = export_colmap(opened, out, views=views, every=every, depth=depth, as_text=text, **limit)
        else:
            done = export_nerfstudio(opened, out, views=views, every=every, depth=depth, **limit)
    click.echo(f"{done.num_frames} frames, {done.num_points} points: {out}")
    if done.num_without_pose:
        click.echo(f"{done.num_without_pose} frames without a pose are left out", err=True)
    if done.resampled_depth:
        views_text = ", ".join(done.resampled_depth)
        click.echo(
            f"depth of {views_text} was sampled onto a resize of the colour grid, nearest pixel", err=True
        )
    return 0
