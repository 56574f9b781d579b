from __future__ import annotations

import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest

from datakit.cli import VERBS, main
from tests.tiny import write_tiny

ROOT = Path(__file__).parents[2]


def test_the_overview_lists_every_verb_without_importing_any(cli):
    result = cli("--help")
    assert result.code == 0
    assert all(f"  {name} " in result.out for name in VERBS)
    code = (
        "import sys; from datakit.cli import main; before = set(sys.modules); main(['--help'])\n"
        "new = set(sys.modules) - before; assert not [m for m in new if m.startswith('datakit')], new"
    )
    subprocess.run([sys.executable, "-c", code], check=True, stdout=subprocess.DEVNULL)


@pytest.mark.parametrize("name", VERBS)
def test_every_verb_has_help_with_examples(cli, name):
    result = cli(name, "--help")
    assert result.code == 0
    assert "Examples:" in result.out and f"datakit {name}" in result.out and "--debug" in result.out


@pytest.mark.parametrize("name", VERBS)
def test_examples_use_options_that_exist(name):
    command = import_module(f"datakit.cli.{name}").command
    known = {option for param in command.params for option in param.opts} | {"--help"}
    used = {
        word.split("=")[0]
        for line in command.epilog.splitlines()
        if f"datakit {name}" in line
        for word in line.split("|")[0].split()
        if word.startswith("-")
    }
    assert used <= known


def test_every_verb_is_in_the_docs():
    page = (ROOT / "docs" / "cli.md").read_text()
    for name in VERBS:
        assert f"## datakit {name}\n" in page
        for param in import_module(f"datakit.cli.{name}").command.params:
            option = param.opts[0]
            assert option in ("--debug", "--json") or not option.startswith("--") or f"`{option}" in page, (
                name,
                option,
            )


def test_exit_codes_and_messages(cli, tmp_path):
    unknown_verb = cli("converts")
    assert unknown_verb.code == 2 and "Did you mean 'convert'?" in unknown_verb.err
    unknown_option = cli("info", "--nope", "x")
    assert unknown_option.code == 2
    usage = cli("convert", "kubrik", tmp_path, tmp_path / "out")
    assert usage.code == 2 and "UsageError" in usage.err and "to mend: did you mean 'kubric'?" in usage.err
    layout = cli("info", tmp_path / "nothing.h5")
    assert layout.code == 1 and "where: " in layout.err and "expected: " in layout.err
    for result in (unknown_verb, usage, layout):
        assert "Traceback" not in result.err and result.out == ""


def test_files_that_cannot_be_written_are_named(cli, tmp_path):
    (tmp_path / "file").write_text("")
    result = cli("world", "kubric", tmp_path / "file" / "out", "--num-scenes", 1, "--frames", 2)
    assert result.code == 1 and str(tmp_path / "file") in result.err and "Traceback" not in result.err


def test_debug_shows_the_traceback(tmp_path):
    command = [sys.executable, "-c", "import sys; from datakit.cli import main; sys.exit(main())"]
    shown = subprocess.run(
        [*command, "info", "--debug", str(tmp_path / "x.h5")], capture_output=True, text=True
    )
    assert "Traceback" in shown.stderr and "LayoutError" in shown.stderr and shown.returncode == 1


@pytest.mark.parametrize("flags", [("-u",), ()], ids=["unbuffered", "buffered"])
def test_a_reader_that_leaves_early_gets_no_traceback(tmp_path, flags):
    for number in range(30):
        write_tiny(tmp_path / f"{number}.h5", num_frames=2)
    # Waits until the other end is closed, so that the result does not hang on who is faster.
    code = "import sys; sys.stdin.read(); from datakit.cli import main; sys.exit(main())"
    process = subprocess.Popen(
        [sys.executable, *flags, "-c", code, "info", str(tmp_path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert process.stdin is not None and process.stdout is not None and process.stderr is not None
    process.stdout.close()
    process.stdin.close()
    errors = process.stderr.read()
    assert process.wait() == 1 and errors == b""


def test_version(cli):
    assert cli("--version").out.startswith("datakit, version 0.")


def test_sigterm_handling_is_put_back():
    import signal

    before = signal.getsignal(signal.SIGTERM)
    main(["--help"])
    assert signal.getsignal(signal.SIGTERM) is before
