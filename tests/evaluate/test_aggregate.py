from __future__ import annotations

import json
import math

import pytest

from datakit.errors import UsageError
from datakit.evaluate.aggregate import Row, average
from datakit.evaluate.settings import settings

NAN = float("nan")


def rows() -> list[Row]:
    return [
        Row("a", "1", {"score": 1.0, "num_valid": 30.0}),
        Row("a", "2", {"score": 0.5, "num_valid": 10.0}),
        Row("b", "3", {"score": 0.0, "num_valid": 0.0}),
    ]


def test_videos_sources_and_pixels():
    assert average(rows()).values["score"] == pytest.approx(0.5)
    by_source = average(rows(), "sources")
    assert by_source.values["score"] == pytest.approx(0.375)  # (0.75 + 0) / 2
    assert by_source.by_source["a"]["score"] == 0.75
    assert average(rows(), "pixels").values["score"] == pytest.approx((30 + 5) / 40)
    assert average(rows()).values["num_valid"] == 40


def test_undefined_is_left_out_and_counted_and_spoils_the_plain_mean():
    some = [*rows(), Row("b", "4", {"score": NAN, "num_valid": 5.0})]
    for rule, want in (("videos", 0.5), ("sources", 0.375), ("pixels", 35 / 40)):
        found = average(some, rule)
        assert found.values["score"] == pytest.approx(want), rule
        assert math.isnan(found.plain["score"]) and found.undefined == {"score": 1}
    nothing = average([Row("a", "1", {"score": NAN})])
    assert math.isnan(nothing.values["score"]) and nothing.undefined == {"score": 1}


def test_a_source_without_a_value_does_not_count_as_zero():
    some = [*rows()[:2], Row("b", "3", {"score": NAN})]
    assert average(some, "sources").values["score"] == 0.75


def test_missing_predictions_are_named_and_zero_where_the_official_script_says_so():
    some = [*rows(), Row("a", "5", None)]
    found = average(some, "sources")
    assert found.missing == ("a/5",) and found.clips == 4
    assert found.values["score"] == pytest.approx(0.375)
    assert found.plain["score"] == pytest.approx(0.25)  # (0.5 + 0) / 2
    assert average(some).plain["score"] == pytest.approx(0.5)


def test_infinite_errors_stay_and_are_counted():
    found = average([*rows(), Row("b", "4", {"score": math.inf, "num_valid": 1.0})])
    assert found.values["score"] == math.inf and found.infinite == {"score": 1} and not found.undefined
    empty = average([Row("a", "1", {"score": math.inf, "num_valid": 0.0}), rows()[0]], "pixels")
    assert empty.values["score"] == 1.0


def test_bad_rules_and_weights_are_named():
    with pytest.raises(UsageError, match="rule"):
        average(rows(), "median")
    with pytest.raises(UsageError, match="b/4"):
        average([*rows(), Row("b", "4", {"score": 1.0})], "pixels")
    assert average([]).values == {}


def test_settings_say_all_that_a_number_needs():
    found = settings(
        metric="cut3r_scale",
        alignment="l1_scale",
        averaging="clips by pixels",
        num_frames=(20, 50),
        max_depth=70.0,
        result=average([*rows(), Row("c", "4", None)]),
        extra={"seed": 3},
    )
    assert set(found) >= {
        *("alignment", "mask", "max_depth", "resize", "resolution", "uses_true_intrinsics", "num_frames"),
        *("chunking", "averaging", "clips_undefined", "code"),
    }
    assert found["clips_missing"] == ["c/4"] and found["seed"] == 3
    json.dumps(found)
