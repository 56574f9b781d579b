"""The command `datakit`: one thin file per verb, imported only when the verb is used."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Sequence
from importlib import import_module
from types import FrameType
from typing import Any

import click

from datakit.errors import DatakitError, UsageError

from .common import EXIT_ERROR, EXIT_INTERRUPTED, EXIT_USAGE

#: verb -> one line for the overview; the module of the same name holds the command `command`.
VERBS = {
    "probe": "Look at a native tree: which release, what is missing, what will it give.",
    "convert": "Convert native files into scenes; resumes where it stopped.",
    "info": "Show what is in a scene.",
    "validate": "Read every byte of scenes and check every value.",
    "certify": "Measure the geometric quality of scenes.",
    "covisibility": "Measure which frames of a scene show the same surfaces.",
    "rollup": "Roll certificates up into metrics and plots for DVC.",
    "show": "Write a report of a scene as one HTML file.",
    "export": "Write a scene for COLMAP or nerfstudio.",
    "world": "Write synthetic scenes in a dataset's own native format.",
    "pack": "Cut scenes into clips and write them as WebDataset shards; resumes where it stopped.",
    "verify": "Check every byte of a shard set and name what is wrong.",
    "trace": "Follow a sample back to its source files.",
    "train": "Train a D4RT model on shard sets; resumes exactly where it stopped.",
    "infer": "Infer depth, cameras and 3D tracks of a video with a trained model; resumes where it stopped.",
    "evaluate": "Measure predictions against a benchmark's files or scenes of ours.",
    "leaks": "Find training scenes that are also measured on.",
    "stream": "Try what a trainer would be given: rates, shares, histograms.",
    "ledger": "Look at what a model really saw: shares, repeats, failures.",
    "converters": "List the installed converters and what to know about their datasets.",
    "schema": "Make the JSON Schema files and the docs page from the contract's tables.",
}


class _Verbs(click.Group):
    """A group that imports a verb when it is used, and not for the overview."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(VERBS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in VERBS:
            return None
        command: click.Command = import_module(f"{__name__}.{cmd_name}").command
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Verbs"):
            formatter.write_dl(list(VERBS.items()))

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        try:
            return super().resolve_command(ctx, args)
        except click.UsageError as error:
            from difflib import get_close_matches

            near = get_close_matches(args[0], VERBS, n=1)
            if near:
                raise click.UsageError(f"{error.message} Did you mean '{near[0]}'?", ctx) from None
            raise


@click.group(cls=_Verbs, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(package_name="datakit")
def command() -> None:
    """Turn public 4D datasets, from their native files, into one checked schema.

    `datakit VERB --help` has examples.

    Exit codes: 0 all is well; 1 something failed; 2 the command was wrong; 130 interrupted.
    """


def main(args: Sequence[str] | None = None) -> int:
    """Run the command line.

    Args:
        args: Arguments without the program's name; None for those of this process.

    Returns:
        The exit code. Errors that input can cause are printed; anything else is a bug and raises.
    """
    given = list(sys.argv[1:] if args is None else args)
    before = _treat_termination_as_interrupt()
    try:
        return _run(given)
    except DatakitError as error:
        if "--debug" in given:
            raise
        click.echo(f"{type(error).__name__}: {error}", err=True)
        return EXIT_USAGE if isinstance(error, UsageError) else EXIT_ERROR
    except BrokenPipeError:
        # The reader of our output is gone (`| head`); Python would complain again when it flushes at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return EXIT_ERROR  # as click does where it meets the same while printing
    except OSError as error:
        if "--debug" in given or error.filename is None:
            raise
        click.echo(f"{type(error).__name__}: {error.strerror}\n  where: {error.filename}", err=True)
        return EXIT_ERROR
    except (KeyboardInterrupt, click.Abort):
        click.echo("interrupted", err=True)
        return EXIT_INTERRUPTED
    finally:
        if before is not None:
            signal.signal(signal.SIGTERM, before)


def _run(args: list[str]) -> int:
    try:
        result = command.main(args=args, prog_name="datakit", standalone_mode=False)
    except click.ClickException as error:
        error.show()
        return error.exit_code
    sys.stdout.flush()  # so that a broken pipe shows here and not after `main`
    return result if isinstance(result, int) else 0


def _treat_termination_as_interrupt() -> Any:
    """Make SIGTERM, which batch systems send before they kill, as clean as Ctrl-C; return the old handler."""

    def interrupt(signum: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    try:
        return signal.signal(signal.SIGTERM, interrupt)
    except ValueError:  # not the main thread: the caller keeps its own handling
        return None
