"""A trainer with a `DataLoader`, as a process of its own: takes batches until it is stopped."""

from __future__ import annotations

import sys
from pathlib import Path

from datakit.stream.torch_dataset import torch_dataset

from .rank_main import MIXTURE


def main(shards: str, mark: str, context: str) -> None:
    from torch.utils.data import DataLoader

    dataset = torch_dataset(shards, MIXTURE, batch_size=4, clip_frames=6, size=24, num_queries=32)
    for number, _ in enumerate(
        DataLoader(dataset, batch_size=None, num_workers=2, multiprocessing_context=context)
    ):
        if number == 2:
            Path(mark).touch()


if __name__ == "__main__":
    main(*sys.argv[1:])
