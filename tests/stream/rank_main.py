"""One rank as a process of its own: streams, writes a line a sample and its state after each step."""

from __future__ import annotations

import hashlib
import json
import os
import sys
from pathlib import Path
from typing import Any

import numpy as np

from datakit.stream import Stream, stream

MIXTURE = {"alpha": 0.5, "beta": 0.3, "gamma": 0.2}


def open_stream(shards: str | Path, **options: Any) -> Stream:
    small = {"batch_size": 4, "clip_frames": 6, "size": 24, "num_queries": 32, "seed": 5}
    return stream(shards, options.pop("mixture", MIXTURE), **(small | options))


def fingerprints(batch: dict[str, Any]) -> list[str]:
    """Hash everything of each sample, every pixel and every target."""
    hashes = [hashlib.sha256() for _ in batch["times"]]

    def walk(value: Any) -> None:
        if isinstance(value, dict):
            for name in sorted(value):
                walk(value[name])
            return
        for row, digest in zip(value, hashes, strict=True):
            digest.update(row.encode() if isinstance(row, str) else np.ascontiguousarray(row).tobytes())

    walk(batch)
    return [digest.hexdigest() for digest in hashes]


def main(shards: str, out: str, rank: int, world_size: int, workers: int, stop: int, state: str) -> None:
    folder = Path(out)
    folder.mkdir(parents=True, exist_ok=True)
    with open_stream(shards, rank=rank, world_size=world_size, workers=workers, num_steps=stop) as run:
        if state:
            run.load_state_dict(json.loads(Path(state).read_text()))
        with (folder / f"rank{rank}.txt").open("a") as log:
            for batch in run:
                places = zip(batch["meta"]["step"], batch["meta"]["slot"], fingerprints(batch), strict=True)
                log.writelines(f"{step} {slot} {found}\n" for step, slot, found in places)
                log.flush()
                beside = folder / f"state{rank}.partial"
                beside.write_text(json.dumps(run.state_dict()))
                os.replace(beside, folder / f"state{rank}.json")
                run.ledger.save(folder / f"ledger{rank}.json")


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], *(int(text) for text in sys.argv[3:7]), state=sys.argv[7])
