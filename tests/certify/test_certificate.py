"""Certificates as data: verdicts, stable JSON, atomic files, roll-up; and the thresholds file."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
import yaml

from datakit.certify import (
    Certificate,
    CheckResult,
    Measure,
    load_thresholds,
    summarise,
    worst_verdict,
    write_certificate,
)
from datakit.certify.certificate import limit_ratio, make_check
from datakit.errors import FormatError


def _certificate(scene: str, *checks: CheckResult) -> Certificate:
    return Certificate(scene, "world", "00", "11", "1", 0, worst_verdict(c.verdict for c in checks), checks)


def _measure(verdict: str, value: float | None, name: str = "m", **more: object) -> Measure:
    return Measure(name, "px", value, verdict, 1.0, 2.0, 100, **more)


def test_the_worst_verdict_decides_and_untestable_never_outweighs() -> None:
    assert worst_verdict([]) == "not_testable"
    assert worst_verdict(["not_testable", "pass"]) == "pass"
    assert worst_verdict(["pass", "fail", "warn"]) == "fail"


def test_a_check_that_agrees_but_could_not_have_disagreed_is_not_testable() -> None:
    blind = Measure("knob", "px", None, "not_testable", sees=("fault",))
    check = make_check("c", [_measure("pass", 0.0), blind])
    assert (check.verdict, check.can_see, check.cannot_see) == ("not_testable", (), ("fault",))
    seeing = Measure("knob", "px", 0.0, "pass", sees=("fault",))
    assert make_check("c", [_measure("pass", 0.0), seeing]).verdict == "pass"
    assert make_check("c", [_measure("fail", 3.0), blind]).verdict == "fail"


def test_json_is_stable_sorted_and_free_of_what_json_cannot_say() -> None:
    first = _certificate("s", make_check("c", [_measure("pass", 1 / 3, standard_error=float("inf"))]))
    text = first.to_json()
    raw = json.loads(text)
    assert text == _certificate("s", *first.checks).to_json()
    assert text == json.dumps(raw, indent=2, sort_keys=True) + "\n"
    assert raw["checks"][0]["measures"][0]["value"] == 0.333333
    assert raw["checks"][0]["measures"][0]["standard_error"] is None


def test_a_certificate_is_replaced_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "s.certificate.json"
    old = _certificate("old", make_check("c", [_measure("pass", 0.0)]))
    write_certificate(old, path)

    def crash(fd: int) -> None:
        raise OSError("no space")

    monkeypatch.setattr(os, "fsync", crash)
    with pytest.raises(OSError, match="no space"):
        write_certificate(_certificate("new", *old.checks), path)
    assert path.read_text() == old.to_json()


def test_the_roll_up_counts_ranks_and_names() -> None:
    good = _certificate("good", make_check("c", [_measure("pass", 0.5)]))
    bad = _certificate("bad", make_check("c", [_measure("fail", -6.0)]))
    worse = _certificate("worse", make_check("c", [_measure("fail", 9.0)]))
    summary = summarise([good, worse, bad])
    assert summary["verdicts"] == {"not_testable": 0, "pass": 1, "warn": 0, "fail": 2}
    assert summary["checks"]["c"]["worst"] == {"m": 9.0}
    assert [row["scene_id"] for row in summary["worst_scenes"]] == ["worse", "bad", "good"]
    assert summary["worst_scenes"][0] == {
        "scene_id": "worse",
        "dataset": "world",
        "verdict": "fail",
        "excess": 4.5,
        "because": "c.m",
    }
    json.dumps(summary, allow_nan=False)


def test_limits_from_below_count_the_other_way_round() -> None:
    low = Measure("share", "ratio", 0.1, "fail", 0.4, 0.2, 100)
    assert limit_ratio(low) == pytest.approx(2.0)
    assert limit_ratio(_measure("not_testable", None)) is None


def test_thresholds_differ_by_depth_kind_and_their_hash_by_content(tmp_path: Path) -> None:
    ours = load_thresholds()
    rendered = ours.limit("depth_reprojection", "relative_z", "rendered")
    sensor = ours.limit("depth_reprojection", "relative_z", "sensor")
    assert rendered.fail is not None and sensor.fail is not None and rendered.fail < sensor.fail
    copy = tmp_path / "t.yaml"
    copy.write_text("# a comment\n" + yaml.safe_dump(ours.raw))
    assert load_thresholds(copy).sha256 == ours.sha256
    ours.raw["checks"]["pose"]["jump"]["rendered"]["fail"] = 31.0
    copy.write_text(yaml.safe_dump(ours.raw))
    assert load_thresholds(copy).sha256 != load_thresholds().sha256


@pytest.mark.parametrize(
    "edit, what",
    [
        (lambda raw: raw["checks"]["pose"]["rigidity"].pop("reason"), "reason"),
        (lambda raw: raw["checks"]["pose"]["rigidity"].update(guessed={"fail": 1.0}), "kind"),
        (lambda raw: raw["checks"]["pose"]["rigidity"]["any"].update(fail="high"), "numbers"),
        (lambda raw: raw["settings"]["frames"].pop("value"), "value"),
        (lambda raw: raw.pop("checks"), "layout"),
    ],
)
def test_bad_thresholds_are_named(tmp_path: Path, edit: object, what: str) -> None:
    raw = load_thresholds().raw
    edit(raw)  # type: ignore[operator]
    path = tmp_path / "t.yaml"
    path.write_text(yaml.safe_dump(raw))
    with pytest.raises(FormatError, match=what) as caught:
        load_thresholds(path)
    assert str(path) in str(caught.value)


def test_a_missing_limit_is_named(tmp_path: Path) -> None:
    with pytest.raises(FormatError, match="lack checks.pose.sway"):
        load_thresholds().limit("pose", "sway", "rendered")
