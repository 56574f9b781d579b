"""datakit infer."""

from __future__ import annotations

from pathlib import Path

import click

from .common import EXIT_INTERRUPTED, verb

#: As `datakit.infer.outputs.OUTPUTS`, which a test compares; its import would bring in torch's room.
OUTPUTS = ("scene", "npz", "ply", "colmap", "viewer", "rerun")


@verb("""
datakit infer video.mp4 OUT --model run
datakit infer video.mp4 OUT --model run                     # after Ctrl-C or a kill: goes on where it was
datakit infer video.mp4 OUT --model run --fps 10 --start 3 --max-frames 200 --depth-size 128
datakit infer images/ OUT --model run --tracks points.csv --image-rate 30
datakit infer kitchen.h5 OUT --model run --view left --dense --output viewer --output ply
datakit infer video.mp4 OUT --model run --device cuda --precision bf16 --compile --dry-run
""")
@click.argument("source", type=click.Path(path_type=Path))
@click.argument("out", type=click.Path(path_type=Path))
@click.option(
    "--model", required=True, type=click.Path(path_type=Path), metavar="RUN",
    help="A run of `datakit train`, or one of its checkpoints.",
)  # fmt: skip
@click.option(
    "--fps", type=click.FloatRange(min=0, min_open=True), help="Use at most so many frames a second."
)
@click.option(
    "--stride", default=1, show_default=True, type=click.IntRange(1), help="Use every so many frames."
)
@click.option(
    "--start", type=click.FloatRange(0), metavar="S", help="Begin so many seconds after the first frame."
)
@click.option(
    "--end", type=click.FloatRange(0), metavar="S", help="End so many seconds after the first frame."
)
@click.option("--max-frames", type=click.IntRange(1), help="Use at most so many frames.")
@click.option("--view", help="View of a scene, if it has several.")
@click.option(
    "--image-rate", default=24.0, show_default=True, type=click.FloatRange(min=0, min_open=True),
    help="Images a second of a folder, which has no clock.",
)  # fmt: skip
@click.option(
    "--tracks", default="grid:16", show_default=True, metavar="WHAT",
    help="What to follow: grid:N (N cells along the longer side), FILE.csv (columns frame, x, y), or none.",
)  # fmt: skip
@click.option(
    "--dense", is_flag=True, help="Follow every pixel of the depth grid. Dear: look at --dry-run first."
)
@click.option(
    "--depth-size", type=click.IntRange(2), metavar="N",
    help="Cells of the depth maps along the longer side.  [default: 64]",
)  # fmt: skip
@click.option(
    "--window", type=click.IntRange(2), help="Frames of a window.  [default: the model's clip, 48 at most]"
)
@click.option("--overlap", type=click.IntRange(1), help="Frames that two windows share.  [default: a third]")
@click.option(
    "--device", default="auto", show_default=True, help="Where the model runs: auto, cpu, cuda, cuda:1."
)
@click.option(
    "--precision", default="fp32", show_default=True, type=click.Choice(["fp32", "bf16"]),
    help="Of the model's matrix products.",
)  # fmt: skip
@click.option(
    "--compile", "compiled", is_flag=True, help="Compile the decoder: slow to begin, faster afterwards."
)
@click.option(
    "--chunk",
    default=4096,
    show_default=True,
    type=click.IntRange(1),
    help="Queries that are answered at a time.",
)
@click.option(
    "--output", "kinds", multiple=True, type=click.Choice(OUTPUTS),
    help="What to write beside the scene; may be given again.  [default: all but rerun]",
)  # fmt: skip
@click.option(
    "--points", default=2_000_000, show_default=True, type=click.IntRange(1), help="Most points of the PLY."
)
@click.option(
    "--viewer-points",
    default=150_000,
    show_default=True,
    type=click.IntRange(1),
    help="Most points of the viewer.",
)
@click.option(
    "--drop", default=0.15, show_default=True, type=click.FloatRange(0, 1, max_open=True),
    help="Share of the least confident depths that point clouds leave out.",
)  # fmt: skip
@click.option(
    "--licence", help="Licence of the video, for the scene.  [default: its source's, or NOASSERTION]"
)
@click.option("--overwrite", is_flag=True, help="Delete another inference in OUT.")
@click.option("--dry-run", is_flag=True, help="Only say what it would cost.")
@click.option("--quiet", is_flag=True, help="No progress, no remarks.")
def command(
    source: Path,
    out: Path,
    model: Path,
    fps: float | None,
    stride: int,
    start: float | None,
    end: float | None,
    max_frames: int | None,
    view: str | None,
    image_rate: float,
    tracks: str,
    dense: bool,
    depth_size: int | None,
    window: int | None,
    overlap: int | None,
    device: str,
    precision: str,
    compiled: bool,
    chunk: int,
    kinds: tuple[str, ...],
    points: int,
    viewer_points: int,
    drop: float,
    licence: str | None,
    overwrite: bool,
    dry_run: bool,
    quiet: bool,
) -> int:
    """Infer depth, cameras and 3D tracks of SOURCE (a video, a folder of images, or a scene) into the folder OUT.

    First says what it will cost on this machine. Windows of the video are kept as they are finished: stop it in any way
    and run the same command to go on. OUT/scene.h5 is a scene like any other. Needs the extra `torch`.
    """
    from datakit.infer.job import default_params, estimate, infer
    from datakit.infer.model_answers import ModelAnswers
    from datakit.infer.outputs import DEFAULT_OUTPUTS, OutputOptions
    from datakit.infer.video import Selection, open_source

    def say(text: str) -> None:
        if not quiet:
            click.echo(text, err=True)

    opened = open_source(
        source, Selection(stride, fps, start, end, max_frames), view=view, image_rate=image_rate
    )
    answerer = ModelAnswers.load(model, device=device, precision=precision, compile=compiled, chunk=chunk)
    params = default_params(answerer, window=window, overlap=overlap, depth_size=depth_size, dense=dense)
    if dry_run:
        click.echo(str(estimate(opened, answerer, params, tracks=tracks)))
        return 0
    options = OutputOptions(kinds or DEFAULT_OUTPUTS, points, viewer_points, drop, licence)
    try:
        done = infer(
            opened,
            out,
            answerer,
            params,
            tracks=tracks,
            outputs=options,
            overwrite=overwrite,
            say=say,
            progress=not quiet,
        )
    except KeyboardInterrupt:
        click.echo(
            f"stopped; finished windows are in {out / 'windows'}. The same command goes on from there",
            err=True,
        )
        return EXIT_INTERRUPTED
    kept = f", {done.num_kept} of them kept from before" if done.num_kept else ""
    click.echo(f"{done.num_frames} frames in {done.num_windows} windows{kept}: {done.written['scene']}")
    if done.num_bad_seams:
        click.echo(
            f"{done.num_bad_seams} seams between windows disagree: look at {out / 'report.json'}", err=True
        )
    return 0
