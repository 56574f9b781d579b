"""Fixtures shared by all tests."""

from __future__ import annotations

import signal
from pathlib import Path

import hypothesis
import pytest

_SAMPLES = Path(__file__).resolve().parents[2] / "shared" / "samples"

# The same inputs in every run, however slow the machine is. For more of them in fuzz tests: converters/damage.py.
hypothesis.settings.register_profile("datakit", deadline=None, derandomize=True, database=None)
hypothesis.settings.load_profile("datakit")

# A shell that starts a run in the background has it ignore Ctrl-C, and children inherit that.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def samples_dir() -> Path:
    """Native sample data that is not part of the repository; tests that need it skip without it."""
    if not _SAMPLES.is_dir():
        pytest.skip("no native samples beside this checkout")
    return _SAMPLES
