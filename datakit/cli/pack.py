"""datakit pack."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from .common import find_scenes, usable_cpus, verb

# Levels and defaults are those of `datakit.shards.PackParams`, which is only imported when the verb runs.
_LEVELS = ("pass", "warn", "not_testable", "fail", "none")


@verb(
    """
datakit pack SCENES SHARDS
datakit pack KUBRIC/*.h5 SCANNET SHARDS --certificates CERTIFICATES --workers 8
datakit pack SCENES SHARDS --max-side 512 --stride 24
datakit pack SCENES SHARDS --min-level fail --max-refused 3
""",
    resumes=True,
)
@click.argument("scenes", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.argument("out", type=click.Path(path_type=Path))
@click.option(
    "--certificates", type=click.Path(path_type=Path), help="Folder of certificates [beside the scenes]."
)
@click.option(
    "--covisibility",
    type=click.Path(path_type=Path),
    help="Folder of covisibility files [beside the scenes].",
)
@click.option("--min-level", type=click.Choice(_LEVELS), help="Worst certificate that is packed [warn].")
@click.option(
    "--max-refused", default=0, show_default=True, help="Scenes that may be left out for their level."
)
@click.option("--clip-frames", type=int, help="Most frames of a clip [48].")
@click.option("--stride", type=int, help="Frames from one clip to the next [--clip-frames].")
@click.option("--max-side", type=int, help="Longest side of stored colour, px [the source's].")
@click.option(
    "--rgb", type=click.Choice(["native", "jpeg"]), help="Keep the source's image bytes, or encode [native]."
)
@click.option("--jpeg-quality", type=int, help="Of frames that are encoded [95].")
@click.option(
    "--depth", type=click.Choice(["log16", "float32"]), help="16 bit with error <= 8e-5, or exact [log16]."
)
@click.option("--shard-mb", type=float, help="Size of a shard in MB [256].")
@click.option("--workers", default=None, type=int, help="Clips at a time [all CPUs].")
@click.option("--overwrite", is_flag=True, help="Replace another set in OUT.")
@click.option("--quiet", is_flag=True, help="No progress bar.")
def command(
    scenes: tuple[Path, ...],
    out: Path,
    certificates: Path | None,
    covisibility: Path | None,
    max_refused: int,
    shard_mb: float | None,
    workers: int | None,
    overwrite: bool,
    quiet: bool,
    **params: Any,
) -> int:
    """Cut SCENES (files, or folders of scenes) into clips and write them to OUT as WebDataset shards.

    The same scenes and options give the same bytes. A run that was stopped goes on when it is called again; the
    set is complete once OUT/manifest.json is there.
    """
    from datakit.shards import PackParams, pack

    if shard_mb is not None:
        params["shard_bytes"] = int(shard_mb * 1e6)
    report = pack(
        find_scenes(scenes),
        out,
        certificates=certificates,
        covisibility=covisibility,
        params=PackParams(**{name: value for name, value in params.items() if value is not None}),
        workers=usable_cpus() if workers is None else workers,
        max_refused=max_refused,
        overwrite=overwrite,
        progress=not quiet,
    )
    for name, level in report.refused:
        click.echo(f"left out: {name} (certificate: {level})")
    for name in report.views_left_out:
        click.echo(f"left out: {name} (no colour)")
    for name, by in report.set_windows:
        if by == "order":
            click.echo(f"in file order: {name} (nothing tells which photos show the same)")
    click.echo(
        f"{report.num_clips} clip(s), {report.num_frames} frames of {report.num_scenes} scene(s) in "
        f"{report.num_shards} shard(s), {report.num_bytes / 1e6:.1f} MB; {report.num_made} clip(s) made now"
    )
    click.echo(f"manifest {report.manifest_sha256}")
    return 0
