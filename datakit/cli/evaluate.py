"""datakit evaluate."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from datakit.errors import LayoutError, UsageError

from .common import verb

if TYPE_CHECKING:
    from datakit.evaluate.benchmarks import Benchmark, Entry
    from datakit.evaluate.runner import ClipResult

BENCHMARKS = ("tapvid3d", "tapvid2d", "worldtrack", "video-depth", "pose", "points")


@verb("""
datakit evaluate tapvid3d tapvid3d_dataset --predictions pred --out results.json
datakit evaluate tapvid3d tapvid3d_dataset --list tapvid3d_splits.py:minival --model run --predictions pred
datakit evaluate video-depth MPI-Sintel --list 23 --predictions pred --protocol depthcrafter --metrics metrics.json
datakit evaluate pose OUT --predictions pred --csv clips.csv --out results.json
""")
@click.argument("benchmark", type=click.Choice(BENCHMARKS))
@click.argument("data", type=click.Path(path_type=Path))
@click.option(
    "--predictions", required=True, type=click.Path(path_type=Path, file_okay=False),
    help="Folder with a file for each clip; with --model it is filled.",
)  # fmt: skip
@click.option("--protocol", "protocols", multiple=True, metavar="NAME", help="Only these.  [default: all]")
@click.option(
    "--dataset",
    default="auto",
    show_default=True,
    help="Whose files DATA holds; docs/evaluate.md lists them.",
)
@click.option(
    "--list", "clip_list", metavar="NAME|FILE[:SPLIT]",
    help="Which clips: a list of the dataset, or a file with a name a line.  [default: the dataset's]",
)  # fmt: skip
@click.option("--query-mode", default="first", show_default=True, help="TAP-Vid's queries: first or strided.")
@click.option(
    "--max-tracks", default=256, show_default=True, type=click.IntRange(1),
    help="Tracks drawn of a scene of ours.",
)  # fmt: skip
@click.option("--seed", default=0, show_default=True, help="Of that draw.")
@click.option("--model", help="Run, checkpoint or weights; makes the predictions that are missing first.")
@click.option("--device", default="auto", show_default=True, help="Of the model.")
@click.option("--precision", default="fp32", show_default=True, type=click.Choice(["fp32", "bf16"]))
@click.option(
    "--depth-size",
    type=click.IntRange(1),
    help="Cells of the model's depth along the longer side.  [default: infer's]",
)
@click.option("--out", type=click.Path(path_type=Path, dir_okay=False), help="JSON results.")
@click.option(
    "--csv", "csv_file", type=click.Path(path_type=Path, dir_okay=False), help="A row a clip and metric."
)
@click.option("--metrics", type=click.Path(path_type=Path, dir_okay=False), help="JSON of numbers, for DVC.")
@click.option("--fresh", is_flag=True, help="Measure again what --out has kept.")
@click.option("--quiet", is_flag=True, help="No table.")
def command(
    benchmark: str,
    data: Path,
    predictions: Path,
    protocols: tuple[str, ...],
    dataset: str,
    clip_list: str | None,
    query_mode: str,
    max_tracks: int,
    seed: int,
    model: str | None,
    device: str,
    precision: str,
    depth_size: int | None,
    out: Path | None,
    csv_file: Path | None,
    metrics: Path | None,
    fresh: bool,
    quiet: bool,
) -> int:
    """Measure predictions for DATA by the protocols of a BENCHMARK.

    Clips that are measured are kept beside --out (<out>.clips.jsonl): a run that was stopped goes on when it is called
    again. A missing prediction is counted and named, never taken for a zero. Exits with 1 if a clip's files cannot be
    used.
    """
    from datakit.evaluate.benchmarks import ReadOptions, open_benchmark
    from datakit.evaluate.protocols import choose_protocols
    from datakit.evaluate.report import summarise
    from datakit.evaluate.runner import Kept, measure_benchmark

    names, builtin = _list_of(clip_list)
    options = ReadOptions(names, builtin, max_tracks, seed, query_mode)
    choose_protocols(benchmark, protocols)  # a wrong name is told before anything is read
    found = open_benchmark(data, dataset, options)
    chosen = choose_protocols(benchmark, protocols, found.dataset)
    if not found.entries:
        raise LayoutError(
            "None of the clips asked for is there", where=data, expected=", ".join(found.missing[:5])
        )
    if not predictions.is_dir() and model is None:
        raise LayoutError(
            "No such folder", where=predictions, expected="predictions, or --model to make them"
        )
    predict, facts = _predictor(model, device, precision, depth_size)
    if facts is not None:
        from datakit.evaluate.predictions import claim_predictions

        # What is followed hangs on these too.
        asked = {"query_mode": query_mode, "max_tracks": max_tracks, "seed": seed}
        claim_predictions(predictions, facts | {"asked": asked})
    kept_path = None if out is None else out.with_name(out.name + ".clips.jsonl")
    if fresh and kept_path is not None:
        kept_path.unlink(missing_ok=True)
    results = _with_bar(
        found,
        lambda say: measure_benchmark(
            found, predictions, chosen, kept=Kept(kept_path), predict=predict, progress=say
        ),
    )
    settings = {"benchmark": benchmark, "data": str(data), "predictions": str(predictions), "model": facts}
    chunks = (
        {}
        if facts is None
        else {"chunking": "windows of {window} frames, {overlap} shared".format(**facts["params"])}
    )
    summary = summarise(found, results, chosen, settings, **chunks)
    _write(summary, results, out, csv_file, metrics)
    if not quiet:
        from datakit.evaluate.report import table_of

        click.echo(table_of(summary, chosen))
    for clip, reasons in summary["failed"].items():
        for protocol, reason in reasons.items():
            click.echo(f"{clip}{f', {protocol}' if protocol else ''}: {reason}", err=True)
    if not summary["counts"]["measured"] and not summary["counts"]["failed"]:
        raise LayoutError(
            "Nothing was measured",
            where=predictions,
            expected=f"<source>/<clip>.npz, e.g. {found.entries[0].name}.npz",
            found=f"{summary['counts']['missing']} missing, {summary['counts']['no_truth']} without truth",
        )
    return int(summary["counts"]["failed"] > 0)


def _list_of(text: str | None) -> tuple[tuple[str, ...] | None, str | None]:
    """Return names from a file, or the name of a list that comes with the reader."""
    if text is None:
        return None, None
    from datakit.evaluate.benchmarks import read_list

    file, _, split = text.rpartition(":") if not Path(text).is_file() else (text, "", "")
    if file and Path(file).is_file():
        return read_list(Path(file), split or None), None
    if "/" in text or "." in text:
        raise LayoutError("No such list", where=text, expected="a file with a name a line")
    return None, text


def _predictor(
    model: str | None, device: str, precision: str, depth_size: int | None
) -> tuple[Callable[[Entry, Path], None] | None, Any]:
    """Return what makes a clip's prediction, and what is to be said of it in the results."""
    if model is None:
        if depth_size is not None:
            raise UsageError("--depth-size is for --model", found=depth_size)
        return None, None
    from dataclasses import asdict

    from datakit.evaluate.predict import predict
    from datakit.evaluate.predictions import write_prediction
    from datakit.infer.job import default_params
    from datakit.infer.model_answers import ModelAnswers

    answerer = ModelAnswers.load(model, device=device, precision=precision)
    params = default_params(answerer, depth_size=depth_size)

    def make(entry: Entry, path: Path) -> None:
        write_prediction(path, predict(entry.load(), answerer, params))

    return make, {"answers": dict(answerer.describe()), "params": asdict(params)}


def _with_bar(
    found: Benchmark, run: Callable[[Callable[[ClipResult, bool], None]], list[ClipResult]]
) -> list[ClipResult]:
    from tqdm import tqdm

    with tqdm(total=len(found.entries), unit="clip", file=sys.stderr, disable=not sys.stderr.isatty()) as bar:

        def say(result: ClipResult, was_kept: bool) -> None:
            bar.set_postfix_str(f"{result.clip}{' (kept)' if was_kept else ''}", refresh=False)
            bar.update()

        return run(say)


def _write(
    summary: dict[str, Any],
    results: Sequence[ClipResult],
    out: Path | None,
    csv_file: Path | None,
    metrics: Path | None,
) -> None:
    import json

    from datakit.evaluate.report import csv_of, metrics_of
    from datakit.infer.files import atomic_file

    texts = (
        (out, lambda: json.dumps(summary, indent=1, sort_keys=True) + "\n"),
        (metrics, lambda: json.dumps(metrics_of(summary), indent=1, sort_keys=True) + "\n"),
        (csv_file, lambda: csv_of(results)),
    )
    for path, text in texts:
        if path is not None:
            with atomic_file(path) as file:
                file.write(text().encode())
