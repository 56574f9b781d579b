"""From shards into a training loop: clips and point queries in an order that nothing can disturb.

The module is also the function: `datakit.stream(...)` is `datakit.stream.stream(...)`.
"""

import sys
from types import ModuleType
from typing import Any

from .ledger import Ledger, compare, merge
from .loader import Stream, stream
from .order import Order, Sample
from .params import AugmentParams, ClipParams
from .workers import WorkerError

__all__ = [
    "AugmentParams",
    "ClipParams",
    "Ledger",
    "Order",
    "Sample",
    "Stream",
    "WorkerError",
    "compare",
    "merge",
    "stream",
]


class _Room(ModuleType):
    def __call__(self, *args: Any, **kwargs: Any) -> Stream:
        """Call `stream.stream`."""
        return stream(*args, **kwargs)


sys.modules[__name__].__class__ = _Room
