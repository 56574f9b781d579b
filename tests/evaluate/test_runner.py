from __future__ import annotations

import json
import math
from dataclasses import replace

import numpy as np
import pytest

from datakit.errors import UsageError
from datakit.evaluate.benchmarks import ReadOptions, open_benchmark
from datakit.evaluate.predictions import Prediction, write_prediction
from datakit.evaluate.report import csv_of, metrics_of, summarise, table_of
from datakit.evaluate.runner import (
    ClipResult,
    Kept,
    Protocol,
    measure_benchmark,
    result_of_json,
    result_to_json,
)
from tests.evaluate import native


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    root, world = tmp_path_factory.mktemp("data"), native.small_world()
    for name in ("adt/a", "adt/b", "pstudio/c", "pstudio/d"):
        native.write_tapvid3d(root / f"{name}.npz", world, with_poses=False)
    return root


def error_of(clip, prediction):
    """A metric simple enough to know its value."""
    return {
        "error": float(np.abs(prediction.tracks_xyz - clip.tracks.xyz_cam).mean()),
        "weight": len(clip.name),
    }


def protocol(**changes) -> Protocol:
    made = Protocol(
        "plain",
        "tapvid3d",
        ("tracks_xyz",),
        error_of,
        lambda clip: None,
        ("error",),
        {"alignment": "none", "unit": "m"},
    )
    return replace(made, **changes)


@pytest.fixture
def predicted(data, tmp_path):
    """Predictions of three of the four clips, off by 1, 2 and 3 metres."""
    benchmark = open_benchmark(data)
    for entry, shift in zip(benchmark.entries, (1.0, 2.0, 3.0), strict=False):
        write_prediction(
            tmp_path / f"{entry.name}.npz", Prediction(tracks_xyz=entry.load().tracks.xyz_cam + shift)
        )
    return benchmark, tmp_path


def test_means_over_clips_then_sources_and_the_missing_named(predicted):
    benchmark, folder = predicted
    protocols = [protocol(averaging="sources")]
    results = measure_benchmark(benchmark, folder, protocols)
    summary = summarise(benchmark, results, protocols)
    part = summary["protocols"]["plain"]
    assert part["values"]["adt"]["error"] == pytest.approx(1.5)
    assert part["values"]["pstudio"]["error"] == pytest.approx(3.0)
    assert part["values"]["all"]["error"] == pytest.approx(
        2.25
    )  # of sources, not of clips (which would be 2)
    assert part["official"]["values"]["error"] == pytest.approx(
        (1.5 + 1.5) / 2
    )  # the missing one counts as 0
    assert summary["counts"] == {
        "clips": 4, "measured": 3, "missing": 1, "failed": 0, "no_truth": 0, "not_in_data": 0,
    }  # fmt: skip
    assert summary["missing"] == ["pstudio/d"]
    table = table_of(summary, protocols)
    assert "1 missing (pstudio/d)" in table and "unit: m" in table and "2.25" in table


def test_weights(predicted):
    benchmark, folder = predicted
    renamed = [replace(e, source="x") for e in benchmark.entries]
    weights = iter((1.0, 3.0, 4.0))

    def measure(clip, prediction):
        return error_of(clip, prediction) | {"num_valid": next(weights)}

    protocols = [protocol(measure=measure, averaging="pixels")]
    benchmark = replace(benchmark, entries=tuple(renamed))
    summary = summarise(benchmark, measure_benchmark(benchmark, folder, protocols), protocols)
    values = summary["protocols"]["plain"]["values"]["all"]
    assert values["error"] == pytest.approx((1 * 1 + 3 * 2 + 4 * 3) / 8)
    assert values["num_valid"] == 8  # counts are summed


def test_undefined_is_counted_and_infinite_is_not_hidden(predicted):
    benchmark, folder = predicted

    def measure(clip, prediction):
        error = error_of(clip, prediction)["error"]
        return {
            "nan_once": math.nan if error < 1.5 else error,
            "inf_once": math.inf if error < 1.5 else error,
            "never": math.nan,
        }

    protocols = [protocol(measure=measure, columns=("nan_once", "inf_once", "never"), averaging="sources")]
    results = measure_benchmark(benchmark, folder, protocols)
    summary = json.loads(json.dumps(summarise(benchmark, results, protocols), allow_nan=False))
    part = summary["protocols"]["plain"]
    assert part["values"]["adt"] == {"nan_once": pytest.approx(2), "inf_once": "inf", "never": None}
    assert part["undefined"] == {"nan_once": 1, "never": 3}
    assert part["official"]["values"]["nan_once"] is None  # one undefined video spoils the official mean
    assert metrics_of(summary)["plain"]["adt"] == {"nan_once": pytest.approx(2)}
    text = table_of(summary, protocols)
    assert (
        "undefined: nan_once in 1 clip(s), never in 3 clip(s)" in text
        and "infinite: inf_once in 1 clip(s)" in text
    )
    rows = csv_of(results).splitlines()
    assert rows[0] == "clip,source,status,protocol,metric,value"
    assert "adt/a,adt,measured,plain,nan_once," in rows and "pstudio/d,pstudio,missing,,," in rows


def test_what_cannot_be_read_fails_alone(predicted):
    benchmark, folder = predicted
    (folder / "adt" / "a.npz").write_bytes(b"PK nothing")
    write_prediction(folder / "adt" / "b.npz", Prediction(z_depth=np.ones((5, 2, 2), np.float32)))

    def measure(clip, prediction):
        raise UsageError("no")

    protocols = [protocol(), protocol(name="always fails", measure=measure)]
    results = {r.clip: r for r in measure_benchmark(benchmark, folder, protocols)}
    assert "FormatError" in results["adt/a"].reasons[""]
    assert "no tracks_xyz" in results["adt/b"].reasons["plain"]
    partly = results["pstudio/c"]
    assert partly.status == "failed" and partly.values["plain"]["error"] == pytest.approx(3)
    assert "UsageError" in partly.reasons["always fails"]


def test_truth_that_lacks_what_is_measured_is_no_failure(predicted):
    benchmark, folder = predicted
    protocols = [protocol(lacks=lambda clip: "no poses" if clip.source == "adt" else None)]
    results = measure_benchmark(benchmark, folder, protocols)
    assert [r.status for r in results] == ["no_truth", "no_truth", "measured", "missing"]
    assert summarise(benchmark, results, protocols)["no_truth"]["adt/a"] == {"plain": "no poses"}


def test_a_run_goes_on_and_measures_again_what_changed(predicted, data, tmp_path):
    benchmark, folder = predicted
    measured: list[str] = []

    def measure(clip, prediction):
        measured.append(clip.name)
        if len(measured) == 2:
            raise KeyboardInterrupt
        return error_of(clip, prediction)

    store = tmp_path / "out" / "results.json.clips.jsonl"
    protocols = [protocol(measure=measure)]

    def run(**changes):
        measured.clear()
        measured.extend("--" for _ in range(5))  # no more interruptions
        seen = []
        found = measure_benchmark(
            benchmark, folder, changes.pop("protocols", protocols), kept=Kept(store),
            progress=lambda result, was_kept: seen.append(was_kept), **changes,
        )  # fmt: skip
        return found, measured[5:], seen

    with pytest.raises(KeyboardInterrupt):
        measure_benchmark(benchmark, folder, protocols, kept=Kept(store))
    # As if killed while a line was written.
    with store.open("ab") as file:
        file.write(b'{"id": "torn')
    results, again, kept = run()
    assert again == ["adt/b", "pstudio/c"] and kept == [True, False, False, False]
    assert run()[1] == [] and run()[0] == results
    # Another prediction for one clip; other settings; a prediction that was missing.
    write_prediction(folder / "adt" / "b.npz", Prediction(tracks_xyz=np.zeros((24, 5, 3))))
    assert run()[1] == ["adt/b"]
    assert (
        len(run(protocols=[protocol(measure=measure, settings={"alignment": "none", "unit": "km"})])[1]) == 3
    )
    write_prediction(folder / "pstudio" / "d.npz", Prediction(tracks_xyz=np.zeros((24, 5, 3))))
    assert run()[1] == ["pstudio/d"]


def test_predictions_are_made_where_there_is_none(predicted):
    benchmark, folder = predicted
    made = []

    def predict(entry, path):
        made.append(entry.name)
        write_prediction(path, Prediction(tracks_xyz=entry.load().tracks.xyz_cam))

    def cannot(entry, path):
        raise UsageError("no images")

    results = measure_benchmark(benchmark, folder, [protocol()], predict=cannot)
    assert [r.status for r in results] == ["measured"] * 3 + ["failed"] and "no images" in results[3].reasons[
        ""
    ]
    results = measure_benchmark(benchmark, folder, [protocol()], predict=predict)
    assert made == ["pstudio/d"] and results[3].values["plain"]["error"] == 0


def test_results_travel_as_json():
    result = ClipResult(
        "a/b", "a", "measured", {"p": {"x": 1.5, "y": math.inf, "z": math.nan}}, {"q": "why"}, {"n": 3}
    )
    text = json.dumps(result_to_json(result), allow_nan=False)
    back = result_of_json(json.loads(text))
    assert (
        back.values["p"]["y"] == math.inf
        and math.isnan(back.values["p"]["z"])
        and back.reasons == {"q": "why"}
    )


def test_not_in_data_is_counted(data):
    benchmark = open_benchmark(data, options=ReadOptions(names=("adt/a", "adt/gone")))
    summary = summarise(benchmark, [], [protocol()])
    assert summary["counts"]["not_in_data"] == 1 and summary["not_in_data"] == ["adt/gone"]
    assert "1 of the list are not in the data" in table_of(summary, [protocol()])
