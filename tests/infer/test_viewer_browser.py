"""The viewer in a real browser, where one is installed: it draws, it does not complain, it runs no foreign code."""

from __future__ import annotations

import re

import pytest

from datakit.infer.viewer import write_viewer
from tests.browser import BROWSER, open_page
from tests.show.test_browser import HOSTILE
from tests.tiny import write_tiny

pytestmark = [pytest.mark.slow, pytest.mark.skipif(BROWSER is None, reason="no Chromium is installed")]


@pytest.mark.parametrize("fragment", ["", "#slot=2,through,hidden,all"])
def test_it_draws_without_complaint(tmp_path, fragment):
    scene = write_tiny(tmp_path / "scene.h5")
    page = write_viewer(scene, tmp_path / "viewer.html", facts=[("model", HOSTILE)], notes=[(HOSTILE, True)])
    dom, complaints = open_page(page, tmp_path / "profile", fragment)
    assert complaints == []
    assert re.search(r'id="note"[^>]*>[\d,]+ points, \d+ tracks<', dom), (
        "the note is written once all is drawn"
    )
    slot = 2 if fragment else 0
    assert f"frame 0000{slot}, 0.{slot}00 s" in dom and "<title>tiny / square</title>" in dom
    assert '<li class="bad">&lt;/script&gt;' in dom
