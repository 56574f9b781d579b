from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import pytest

from datakit.cli import main


@dataclass
class Result:
    code: int
    out: str
    err: str


@pytest.fixture
def cli(capfd: pytest.CaptureFixture[str]) -> Callable[..., Result]:
    """Run `datakit` in this process."""

    def call(*args: object) -> Result:
        code = main([str(arg) for arg in args])
        captured = capfd.readouterr()
        return Result(code, captured.out, captured.err)

    return call
