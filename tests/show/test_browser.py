"""The report in a real browser, where one is installed: it draws, it does not complain, and it runs no foreign code."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from datakit.scene import write_scene
from datakit.show import write_report
from tests.browser import BROWSER, open_page
from tests.tiny import tiny_stream

HOSTILE = "</script><script>document.title='owned'</script><img src=x onerror=\"document.title='owned'\">"

pytestmark = [pytest.mark.slow, pytest.mark.skipif(BROWSER is None, reason="no Chromium is installed")]


def write_hostile(path: Path, **changes) -> Path:
    stream = tiny_stream()
    motion = replace(stream.record.motion, instance_names=(HOSTILE, "square"))
    stream.record = replace(stream.record, licence=HOSTILE, citation=HOSTILE, motion=motion, **changes)
    write_scene(path, stream)
    return path


def test_page_draws_without_complaint_and_text_stays_text(tmp_path):
    certificate = {
        "verdict": "fail",
        "checks": [
            {
                "name": HOSTILE,
                "verdict": "fail",
                "reason": "too far",
                "measures": [
                    {"name": "far", "value": 2.5, "warn": 1, "fail": 2, "verdict": "fail", "count": 7}
                ],
            },
            {"name": "scale", "verdict": "not_testable", "reason": "no parallax"},
            {"unheard": ["of"]},
        ],
    }
    page = write_report(write_hostile(tmp_path / "tiny.h5"), tmp_path / "report.html", certificate)
    dom, console = open_page(page, tmp_path / "browser", "#frame=2")
    assert console == []
    assert "<title>tiny / square</title>" in dom, "no foreign code ran"
    body = dom.split('id="payload"')[0]
    assert body.count("<figure") == 3 and "<img" not in body
    assert "<b>3 / 4</b>" in body, "the fragment chose the third frame"
    assert "not testable" in body and "no parallax" in body and "2.5" in body
    visible = re.search(r'data-state="1".*?<b>(\d+)</b>', body, re.S)
    assert visible is not None and int(visible[1]) > 20
    assert "&lt;/script&gt;" in body


def without_poses() -> dict:
    view = tiny_stream().record.views["cam"]
    poses = np.full_like(view.world_from_cam, np.nan)
    return {"views": {"cam": replace(view, world_from_cam=poses, pose_is_known=np.zeros(4, bool))}}


ODD_SCENES = {"no pose": without_poses, "set": lambda: {"time_kind": "set", "scale": "sfm"}}


@pytest.mark.parametrize("changes", ODD_SCENES.values(), ids=ODD_SCENES)
def test_odd_scenes_draw_without_complaint(tmp_path, changes):
    page = write_report(write_hostile(tmp_path / "tiny.h5", **changes()), tmp_path / "report.html")
    dom, console = open_page(page, tmp_path / "browser")
    assert console == []
    assert dom.split('id="payload"')[0].count("<figure") == 3 and "has not been measured" in dom
