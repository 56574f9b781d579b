"""datakit train."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from .common import EXIT_INTERRUPTED, verb

if TYPE_CHECKING:
    from datakit.train.rundir import Existing


@verb("""
datakit train tiny --out run
datakit train my.yaml --out run -o optim.lr=3e-4 -o data.batch_size=8
datakit train my.yaml --out run            # after Ctrl-C or a kill: goes on where it was
datakit train params.yaml --section train --out run --overwrite
datakit train paper -o data.shards='[s3://bucket/shards]' -o init.videomae=vit_g.pth --show-config
""")
@click.argument("config")
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    default=Path("run"),
    show_default=True,
    help="Folder of the run.",
)
@click.option(
    "--override", "-o", "overrides", multiple=True, metavar="KEY=VALUE",
    help="A field of the configuration, e.g. optim.lr=3e-4; the value as in YAML.",
)  # fmt: skip
@click.option(
    "--resume", "existing", flag_value="resume", default=True,
    help="Go on with the run in --out, which must be this one [default].",
)  # fmt: skip
@click.option(
    "--overwrite", "existing", flag_value="overwrite",
    help="Go on with the run in --out if it is this one and not finished, else replace it.",
)  # fmt: skip
@click.option("--fresh", "existing", flag_value="fresh", help="Delete the run in --out.")
@click.option("--section", metavar="NAME", help="The configuration is under this key of CONFIG.")
@click.option("--show-config", is_flag=True, help="Print the resolved configuration, and do nothing.")
@click.option("--quiet", is_flag=True, help="No progress lines.")
def command(
    config: str,
    out: Path,
    overrides: tuple[str, ...],
    existing: Existing,
    section: str | None,
    show_config: bool,
    quiet: bool,
) -> int:
    """Train a D4RT model as CONFIG says: a YAML file, or the name of one that comes with the package.

    A run that was stopped goes on when it is called again, and gives the same losses as one that was not. On
    several GPUs: torchrun --nproc-per-node 8 --no-python datakit train CONFIG. Needs the extra `train`.
    """
    import yaml

    from datakit.train import Trainer, load_config

    resolved = load_config(config, overrides, section)
    if show_config:
        click.echo(yaml.safe_dump(resolved.to_dict(), sort_keys=False), nl=False)
        return 0

    def say(text: str) -> None:
        click.echo(text, err=True)

    if Trainer(resolved, out, existing=existing, say=None if quiet else say).run():
        return 0
    click.echo(
        f"stopped; the checkpoint is in {out / 'checkpoints'}. The same command, without --fresh, goes on from there",
        err=True,
    )
    return EXIT_INTERRUPTED
