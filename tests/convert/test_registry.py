from __future__ import annotations

import pytest

from datakit.convert import installed, load_converter
from datakit.errors import UsageError

from .conftest import install


def test_a_third_party_converter_is_found(plugin):
    assert {"fakeset", "kubric"} <= set(installed())
    assert load_converter("fakeset").CARD.title == "A fake"


def test_an_unknown_name_gets_near_matches_and_the_list(plugin):
    with pytest.raises(UsageError) as caught:
        load_converter("fakset")
    assert "'fakeset'" in caught.value.mend and "kubric" in caught.value.expected
    with pytest.raises(UsageError, match="datakit converters"):
        load_converter("qqqqqq")


@pytest.mark.parametrize(
    ("source", "found"),
    [
        ("import no_such_module", "ModuleNotFoundError"),
        ("raise RuntimeError('boom')", "boom"),
        ("VERSION = '1'", "no CARD"),
    ],
)
def test_a_broken_package_names_itself(tmp_path, monkeypatch, source, found):
    folder = install(tmp_path / "plugin", "brokenset", "brokenset_module")
    (folder / "brokenset_module.py").write_text(source)
    monkeypatch.syspath_prepend(folder)
    with pytest.raises(UsageError) as caught:
        load_converter("brokenset")
    assert "package brokenset 1.0" in caught.value.where and found in caught.value.found
