from __future__ import annotations

from pathlib import Path

import pytest

from .takes import write_take


@pytest.fixture
def raw(tmp_path: Path) -> Path:
    return write_take(tmp_path / "raw")
