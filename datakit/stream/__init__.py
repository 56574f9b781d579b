"""From shards into a training loop: clips and point queries in an order that nothing can disturb."""

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
