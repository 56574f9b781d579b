"""Every notebook runs from top to bottom in an empty folder, and is kept without outputs."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

#: Notebook -> what it says when all went well, a file it writes, and an optional package it cannot do without.
EXPECTED = {
    "01_scenes": ("verdict: pass", "datakit-*/report.html", "numpy"),
    "02_stream_and_train": ("AbsRel of the model", "datakit-*/run/metrics.json", "torch"),
}
NOTEBOOKS = sorted((Path(__file__).resolve().parents[2] / "notebooks").glob("*.ipynb"))


def test_there_are_notebooks():
    assert [path.stem for path in NOTEBOOKS] == list(EXPECTED)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_outputs_are_stripped(path):
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    kept = [
        k for k, cell in enumerate(cells) if cell.get("outputs") or cell.get("execution_count") is not None
    ]
    assert not kept, f"cells {kept} hold outputs; strip them before committing"


@pytest.mark.slow
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_runs(path, tmp_path, monkeypatch):
    nbclient = pytest.importorskip("nbclient", reason="the notebook extra is not installed")
    pytest.importorskip("ipykernel", reason="the notebook extra is not installed")
    pytest.importorskip("matplotlib", reason="the notebook extra is not installed")
    said, written, package = EXPECTED[path.stem]
    pytest.importorskip(package, reason="an extra is not installed")
    import nbformat

    # The notebook's own scratch folders go to the test's folder too.
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setenv("PYTHONPATH", str(path.parents[1]))
    notebook = nbformat.read(path, as_version=4)
    client = nbclient.NotebookClient(
        notebook, timeout=300, kernel_name="python3", resources={"metadata": {"path": str(tmp_path)}}
    )
    client.execute()
    outputs = [out for cell in notebook.cells for out in cell.get("outputs", [])]
    assert sum("image/png" in out.get("data", {}) for out in outputs) >= 2, "pictures are drawn"
    text = "".join(out.get("text", "") for out in outputs)
    assert said in text
    assert list(tmp_path.glob(written)), "the result is written"
