"""Fixtures shared by all tests."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import hypothesis
import pytest

_SAMPLES = Path(__file__).resolve().parents[2] / "shared" / "samples"

# As the Makefile does, for a pytest of one's own: tests run side by side, and where torch has more threads than cores
# they wait for each other. A notebook that takes 40 s took more than 300 beside one busy process.
os.environ.setdefault("OMP_NUM_THREADS", "1")

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
