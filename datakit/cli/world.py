"""datakit world."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import click

from datakit.errors import UsageError

from .common import verb

if TYPE_CHECKING:
    from datakit.worlds import World

MOTIONS = ("rigid", "static", "points", "mixed")


@verb("""
datakit world kubric RAW
datakit world kubric RAW --form tfds --num-scenes 4 --frames 24 --size 256x256 --seed 7
""")
@click.argument("dataset")
@click.argument("out", type=click.Path(path_type=Path))
@click.option("--seed", default=0, show_default=True, help="Scene k is made from seed + k.")
@click.option("--num-scenes", default=2, show_default=True, type=click.IntRange(1))
@click.option("--frames", default=24, show_default=True, type=click.IntRange(2), help="Frames per scene.")
@click.option("--size", default="128x128", show_default=True, metavar="WxH")
@click.option("--motion", default="rigid", show_default=True, type=click.Choice(MOTIONS))
@click.option("--form", help="Native form of the dataset; see `datakit converters`.  [default: its first]")
def command(
    dataset: str, out: Path, seed: int, num_scenes: int, frames: int, size: str, motion: str, form: str | None
) -> None:
    """Write analytic worlds as a native tree of DATASET at OUT, which must not exist or be empty.

    The tree is what the dataset's release looks like on disk; `datakit convert DATASET OUT ...` reads it.
    """
    from datakit.convert import load_converter
    from datakit.worlds import random_world

    converter = load_converter(dataset)
    form = converter.NATIVE_FORMS[0] if form is None else form
    if form not in converter.NATIVE_FORMS:
        raise UsageError(
            f"{dataset} has no such native form",
            where="--form",
            expected=f"one of: {', '.join(converter.NATIVE_FORMS)}",
            found=form,
        )
    width_height = _parse_size(size)
    # A dataset about something special (driving, say) makes worlds of its own.
    make_world = getattr(converter, "make_world", random_world)

    def worlds() -> Iterator[World]:
        for number in range(num_scenes):
            yield make_world(seed + number, num_frames=frames, size=width_height, motion=motion)

    _check_empty(out)
    partial = out.with_name(out.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    try:
        partial.mkdir(parents=True)
        converter.write_native(worlds(), partial, form)
        partial.replace(out)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    click.echo(f"{num_scenes} scene(s) of {frames} frames, form {form}: {out}")


def _parse_size(text: str) -> tuple[int, int]:
    width, _, height = text.partition("x")
    if not (width.isdecimal() and height.isdecimal() and int(width) and int(height)):
        raise UsageError("The size cannot be read", where="--size", expected="WxH, e.g. 128x96", found=text)
    return int(width), int(height)


def _check_empty(out: Path) -> None:
    if out.exists() and not (out.is_dir() and not any(out.iterdir())):
        raise UsageError(
            "The output is not empty",
            where=out,
            expected="a folder that does not exist yet, or is empty",
            mend="delete it, or choose another",
        )
