"""datakit certify."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from datakit.errors import DatakitError, FormatError, UsageError

from .certificates import CERTIFICATE_SUFFIX, read_certificate, summarised, write_json
from .common import SCENE_SUFFIX, find_scenes, usable_cpus, verb

if TYPE_CHECKING:
    from datakit.certify.certificate import Certificate
    from datakit.certify.thresholds import Thresholds

Item = TypeVar("Item")


@verb(
    """
datakit certify OUT
datakit certify OUT/3.h5 --out certificates --thresholds strict.yaml
datakit certify OUT --workers 8 --allow-fail
""",
    resumes=True,
)
@click.argument("scenes", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--out", type=click.Path(path_type=Path), help="Folder of the results.  [default: the scene's]")
@click.option(
    "--thresholds", type=click.Path(path_type=Path), help="YAML of all limits.  [default: datakit's own]"
)
@click.option("--seed", default=0, show_default=True, help="Of the pixels and frames that are sampled.")
@click.option("--workers", type=int, metavar="N", help="Scenes at a time.  [default: one per CPU]")
@click.option("--allow-fail", is_flag=True, help="Exit with 0 even if a verdict is fail.")
@click.option("--prune", is_flag=True, help="Delete certificates in --out of scenes that are not in SCENES.")
def command(
    scenes: tuple[Path, ...],
    out: Path | None,
    thresholds: Path | None,
    seed: int,
    workers: int | None,
    allow_fail: bool,
    prune: bool,
) -> int:
    """Measure the geometric quality of SCENES (files, or folders of scenes), each from its own data alone.

    Writes <scene>.certificate.json and, over all scenes of a folder, summary.json. A certificate that is there
    already for the same scene bytes, thresholds and seed is kept. Exits with 1 if a scene fails or is unreadable.
    """
    from datakit.certify.thresholds import load_thresholds

    paths = find_scenes(scenes)
    targets = {path: (out or path.parent) / f"{path.stem}{CERTIFICATE_SUFFIX}" for path in paths}
    if len(set(targets.values())) < len(paths):
        raise UsageError("Two scenes have the same file name", where=out, mend="certify them apart")
    limits = load_thresholds(thresholds)
    done: dict[Path, Certificate] = {}
    num_unreadable = 0
    for path, result in _certify_all(targets, limits, seed, usable_cpus() if workers is None else workers):
        if isinstance(result, DatakitError):
            num_unreadable += 1
            click.echo(f"{path}: {type(result).__name__}: {result}", err=True)
        else:
            done[path] = result
            click.echo(f"{path}: {_sentence(result)}")
    if prune and out is not None:
        _prune(out, set(targets.values()))
    for folder in dict.fromkeys(targets[path].parent for path in done):
        inside = [certificate for path, certificate in done.items() if targets[path].parent == folder]
        write_json(folder / "summary.json", summarised(inside))
    verdicts = [certificate.verdict for certificate in done.values()]
    click.echo(", ".join(f"{verdicts.count(v)} {v}" for v in ("pass", "warn", "fail", "not_testable")))
    return int(num_unreadable > 0 or ("fail" in verdicts and not allow_fail))


def _sentence(certificate: Certificate) -> str:
    bad = [check for check in certificate.checks if check.verdict in ("warn", "fail")]
    lines = [certificate.verdict, *(f"  {check.name}: {check.verdict}: {check.reason}" for check in bad)]
    return "\n".join(lines)


def _certify_all(
    targets: dict[Path, Path], limits: Thresholds, seed: int, workers: int
) -> Iterator[tuple[Path, Any]]:
    """Yield every scene with its certificate, or with the error that kept it from having one."""
    one = partial(_certify_one, limits=limits, seed=seed)
    if min(workers, len(targets)) <= 1:
        for path, target in _counted(targets):
            yield path, one(path, target)
        return
    with _pool(min(workers, len(targets))) as pool:
        futures: dict[Path, Future[Any]] = {
            path: pool.submit(one, path, target) for path, target in targets.items()
        }
        for path, future in _counted(futures):
            yield path, future.result()


def _counted(items: dict[Path, Item]) -> Iterator[tuple[Path, Item]]:
    from tqdm import tqdm

    yield from tqdm(items.items(), unit="scene", file=sys.stderr, disable=not sys.stderr.isatty())


@contextmanager
def _pool(width: int) -> Iterator[Any]:
    from datakit.convert.pools import Workers

    pool = Workers(width)
    finished = False
    try:
        yield pool
        finished = True
    finally:
        pool.close(kill=not finished)


def _certify_one(path: Path, target: Path, limits: Thresholds, seed: int) -> Certificate | DatakitError:
    from datakit.certify import certify_scene
    from datakit.certify.certificate import write_certificate

    try:
        if _is_certified(path, target, limits, seed):
            return read_certificate(target)
        certificate = certify_scene(path, thresholds=limits, seed=seed)
    except DatakitError as error:
        return error
    target.parent.mkdir(parents=True, exist_ok=True)
    write_certificate(certificate, target)
    return read_certificate(target)  # rounded as in the file, so that a resumed run sums up the same numbers


def _is_certified(path: Path, target: Path, limits: Thresholds, seed: int) -> bool:
    import hashlib

    from datakit.certify.certificate import CERTIFY_VERSION

    if not target.is_file():
        return False
    try:
        found = read_certificate(target)
    except FormatError:
        return False
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return (found.scene_sha256, found.thresholds_sha256, found.certify_version, found.seed) == (
        digest,
        limits.sha256,
        CERTIFY_VERSION,
        seed,
    )


def _prune(out: Path, expected: set[Path]) -> None:
    for path in out.glob(f"*{CERTIFICATE_SUFFIX}"):
        if path not in expected:
            path.unlink()
            click.echo(f"removed {path}: no scene {path.name.removesuffix(CERTIFICATE_SUFFIX)}{SCENE_SUFFIX}")
