"""What each term of the loss is worth: the same model trained without it, on the same held-out clips.

All runs start from the same weights and see the same clips and questions; only the loss differs. The paper does
this with ViT-L on Sintel (arXiv 2512.08924, table 8); here it is any configuration on any shards. Runs go one after the
other and can be stopped: what is finished is found again in --out.

    python benchmarks/ablate.py tiny --out out/ablate -o data.shards=[SHARDS] -o validation.shards=[HELD_OUT]
    python benchmarks/ablate.py base --out out/ablate --steps 20000 -o data.shards=[...] -o validation.shards=[...]
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from datakit.train import Trainer, load_config

#: Left out -> what changes in the configuration.
VARIANTS: dict[str, tuple[str, ...]] = {
    "nothing": (),
    "uv": ("loss.uv=0",),
    "visible": ("loss.visible=0",),
    "displacement": ("loss.displacement=0",),
    "normal": ("loss.normal=0",),
    # Without its reward the confidence would fall and take the 3D term along, so its factor is held at 1 too.
    "confidence": ("loss.confidence=0", "loss.confidence_warmup_steps=1000000000"),
}
MEASURES = ("apd3d", "abs_rel", "delta1")


def main() -> None:
    """Train each variant that is not there yet, and print all of them."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("config", help="as of `datakit train`")
    parser.add_argument("--out", type=Path, required=True, help="a folder of a run for each variant")
    parser.add_argument("--steps", type=int, help="optimiser steps [the configuration's]")
    parser.add_argument("--without", nargs="+", choices=VARIANTS, default=list(VARIANTS))
    parser.add_argument("-o", "--override", action="append", default=[], metavar="KEY=VALUE")
    args = parser.parse_args()
    overrides = args.override + ([f"optim.steps={args.steps}"] if args.steps else [])
    found = {}
    for name in args.without:
        config = load_config(args.config, [*overrides, *VARIANTS[name]])
        folder = args.out / f"without-{name}"
        if not Trainer(config, folder, say=print).run():
            return  # stopped; the same command goes on
        found[name] = json.loads((folder / "metrics.json").read_text())
        write_table(found)
    (args.out / "ablation.json").write_text(json.dumps(found, indent=1) + "\n")


def write_table(found: dict[str, dict[str, Any]]) -> None:
    """Print held-out measures of what is there so far, and of the trivial predictors."""
    first = next(iter(found.values()))
    rows = {f"without {name}": metrics["model"] for name, metrics in found.items()}
    rows |= {name: first[name] for name in ("constant_depth", "static_world")}
    print(f"{first['clips']} held-out clips, step {first['step']}")
    print("  ".join([f"{'':24}", *(f"{measure:>8}" for measure in MEASURES)]))
    for name, values in rows.items():
        print("  ".join([f"{name:24}", *(f"{values[measure]:8.4f}" for measure in MEASURES)]))


if __name__ == "__main__":
    main()
