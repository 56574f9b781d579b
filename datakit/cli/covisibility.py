"""datakit covisibility."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from datakit.errors import DatakitError, UsageError

from .common import find_scenes, verb

if TYPE_CHECKING:
    from datakit.covisibility import Covisibility, CovisibilityParams

METHODS = ("auto", "depth", "points")


@verb(
    """
datakit covisibility OUT
datakit covisibility OUT/barn.h5 --out covisibility --points 512 --max-frames 300
""",
    resumes=True,
)
@click.argument("scenes", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--out", type=click.Path(path_type=Path), help="Folder of the results.  [default: the scene's]")
@click.option("--method", default="auto", show_default=True, type=click.Choice(METHODS))
@click.option(
    "--points", default=256, show_default=True, type=click.IntRange(1), help="Pixels drawn in each frame."
)
@click.option(
    "--max-frames",
    default=1000,
    show_default=True,
    type=click.IntRange(1),
    help="Frames of a scene, evenly spread.",
)
@click.option(
    "--tolerance",
    type=click.FloatRange(min=0, min_open=True),
    help="Share of depth that still agrees.  [default: by depth kind]",
)
@click.option("--seed", default=0, show_default=True, help="Of the pixels.")
def command(
    scenes: tuple[Path, ...],
    out: Path | None,
    method: str,
    points: int,
    max_frames: int,
    tolerance: float | None,
    seed: int,
) -> int:
    """Measure which frames of SCENES (files, or folders of scenes) show the same surfaces.

    Writes <scene>.covisibility.safetensors. One that is there already for the same scene bytes and options is kept.
    Exits with 1 if a scene cannot be measured.
    """
    from tqdm import tqdm

    from datakit.covisibility import SUFFIX, CovisibilityParams

    paths = find_scenes(scenes)
    targets = {path: (out or path.parent) / f"{path.stem}{SUFFIX}" for path in paths}
    if len(set(targets.values())) < len(paths):
        raise UsageError("Two scenes have the same file name", where=out, mend="measure them apart")
    params = CovisibilityParams(method, points, max_frames, tolerance, seed)
    num_failed = 0
    for path, target in tqdm(targets.items(), unit="scene", file=sys.stderr, disable=not sys.stderr.isatty()):
        try:
            click.echo(f"{path}: {_measure(path, target, params)}")
        except DatakitError as error:
            num_failed += 1
            click.echo(f"{path}: {type(error).__name__}: {error}", err=True)
    return int(num_failed > 0)


def _measure(path: Path, target: Path, params: CovisibilityParams) -> str:
    import hashlib

    import numpy as np

    from datakit.covisibility import measure_covisibility, write_covisibility
    from datakit.scene import open_scene

    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    found = _kept(target, digest, params)
    if found is None:
        with open_scene(path) as scene:
            found = measure_covisibility(scene, params)
        target.parent.mkdir(parents=True, exist_ok=True)
        write_covisibility(target, found, digest)
    others = found.overlap[~np.eye(len(found.overlap), dtype=bool)]
    others = others[np.isfinite(others)]
    shares = f"mean overlap {others.mean():.2f}" if others.size else "nothing to compare"
    return f"{len(found.frame)} frames, {shares}, by {found.params['used']}"


def _kept(target: Path, digest: str, params: CovisibilityParams) -> Covisibility | None:
    """Return what is there already, if it was measured on this scene file in this way."""
    from dataclasses import asdict

    from datakit.covisibility import read_covisibility

    if not target.is_file():
        return None
    try:
        found = read_covisibility(target, digest)
    except DatakitError:
        return None
    same = {name: value for name, value in found.params.items() if name != "used"} == asdict(params)
    return found if same else None
