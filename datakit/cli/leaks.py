"""datakit leaks."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from .common import verb

if TYPE_CHECKING:
    from datakit.evaluate.leaks import LeakReport


@verb("""
datakit leaks shards/ --against sintel --against scannet:test
datakit leaks OUT/ --against tapvid3d_dataset/ --out leaks.json
datakit leaks shards/ --against eval_scenes.txt --names-only
datakit leaks shards/ --against ScanNet_eval/ --max-phash 8 --max-frames 90 --thumbnails --out leaks.json
""")
@click.argument("sources", nargs=-1, required=True, metavar="SHARDS_OR_SCENES...")
@click.option(
    "--against", multiple=True, required=True, metavar="LIST_OR_DATA",
    help="What is measured on; may be given several times.",
)  # fmt: skip
@click.option("--names-only", is_flag=True, help="Do not look at frames.")
@click.option(
    "--max-phash", default=6, show_default=True, type=click.IntRange(0, 64),
    help="Bits of 64 by which two frames' pHashes may differ.",
)  # fmt: skip
@click.option(
    "--max-dhash", default=8, show_default=True, type=click.IntRange(0, 64),
    help="Likewise their dHashes; both must be near.",
)  # fmt: skip
@click.option(
    "--min-contrast", default=4.0, show_default=True, type=click.FloatRange(0),
    help="Frames whose grey varies less (standard deviation, 0 to 255) are left out.",
)  # fmt: skip
@click.option(
    "--max-frames", default=32, show_default=True, type=click.IntRange(1),
    help="Frames looked at of each scene or clip, evenly spread.",
)  # fmt: skip
@click.option("--thumbnails", is_flag=True, help="Keep a small picture of each nearest pair in --out.")
@click.option("--out", type=click.Path(path_type=Path, dir_okay=False), help="JSON report.")
@click.option("--allow", is_flag=True, help="Exit with 0 even if something leaks.")
def command(
    sources: tuple[str, ...],
    against: tuple[str, ...],
    names_only: bool,
    max_phash: int,
    max_dhash: int,
    min_contrast: float,
    max_frames: int,
    thumbnails: bool,
    out: Path | None,
    allow: bool,
) -> int:
    """Find scenes of SHARDS_OR_SCENES that are also measured on: by name, and by perceptual hash of frames.

    LIST_OR_DATA is a list that comes with the package (sintel, sintel:23, bonn, kitti, scannet:test), a file with a
    name a line, a benchmark's data, scenes, or a shard set. Exits with 1 if something leaks. Needs the extra
    `evaluate` unless --names-only.
    """
    from tqdm import tqdm

    from datakit.evaluate.images_hash import HashParams
    from datakit.evaluate.leaks import find_leaks, items_of

    ours = [item for source in sources for item in items_of(source)]
    theirs = [item for source in against for item in items_of(source)]
    params = None if names_only else HashParams(max_phash, max_dhash, min_contrast, max_frames)
    total = None if names_only else len(ours) + len(theirs)
    with tqdm(
        total=total, unit="scene", file=sys.stderr, disable=names_only or not sys.stderr.isatty()
    ) as bar:
        report = find_leaks(ours, theirs, params, thumbnails=thumbnails, progress=lambda name: bar.update())
    _print(report)
    if out is not None:
        _write(out, report)
    return int(bool(report.leaks) and not allow)


def _print(report: LeakReport) -> None:
    for leak in report.leaks:
        if leak.by == "name":
            click.echo(f"{leak.ours} = {leak.theirs}: same capture, {leak.key}")
        else:
            our, their, by_phash, by_dhash = leak.frames[0]
            click.echo(
                f"{leak.ours} = {leak.theirs}: {leak.num_frames} frame(s) alike, nearest {our} and {their} "
                f"({by_phash} and {by_dhash} bits)"
            )
    settings = report.settings
    if settings["pictures"]:
        click.echo(
            f"compared {settings['frames_ours']} with {settings['frames_theirs']} frames; "
            f"{settings['flat_frames_left_out']} too flat; {settings['items_without_frames']} entries without frames"
        )
    click.echo(
        f"{len(report.scenes())} of {report.num_ours} scene(s) leak into {report.num_theirs} of the evaluation"
    )


def _write(out: Path, report: LeakReport) -> None:
    import json

    from datakit.infer.files import atomic_file

    with atomic_file(out) as file:
        file.write((json.dumps(report.to_json(), indent=1, sort_keys=True) + "\n").encode())
