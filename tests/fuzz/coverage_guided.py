"""Coverage-guided fuzzing of the parsers of native files, with Atheris (libFuzzer for Python).

    pip install atheris                                              # Linux, Python 3.11 to 3.13; no part of `dev`
    python tests/fuzz/coverage_guided.py                             # every target, 10^6 inputs each
    python tests/fuzz/coverage_guided.py pfm sens --runs 100000 --seconds 60
    python tests/fuzz/coverage_guided.py --reproduce pfm out/fuzz/pfm/crash-...

Any bytes must give a value or one of datakit's own errors. Another exception, ten seconds for one input, a crash of
compiled code, or memory that the input's size does not explain end a target with the input in
`--out`/TARGET/crash-..., and the exit status is 1. What was found interesting stays in `--out`/TARGET/corpus, from
which the next run goes on.

No input may take more memory at a time than `_SPARE` and what its bytes can inflate to (deflate: 1032 times) beyond
what the process holds: the system refuses it more, and a refusal ends the target even where a parser makes an error of
its own of it. Checksums would keep almost every input from the code behind them: those of PNG chunks and TFRecords are
made right first (targets with `raw` leave them as they come). Nesting and numbers beyond Python's own limits, which
mutations hardly reach, are put into each seed at each of its numbers first. The targets are in targets/, a module for
each dataset or format.
"""

from __future__ import annotations

import argparse
import contextlib
import re
import resource
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
#: Packages whose branches guide the search.
INSTRUMENTED = [
    "converters",
    "datakit.errors",
    "datakit.scene.codecs",
    "datakit.scene.deflate",
    "datakit.scene.png",
    "datakit.export.colmap_model",
]
#: Functions that numba compiles; it cannot read their bytecode once it is instrumented.
COMPILED = ["converters.waymo.kernels", "datakit.motion", "datakit.scene.png_kernels"]
_SECONDS_AN_INPUT, _MIB = 10, 2048
#: Bytes that any input may take, and for each of its own: deflate makes no more of one (zlib's technical details).
_SPARE, _FOR_EACH_BYTE = 64 << 20, 1032
#: What is held grows by the corpus and by caches, and is looked at again after so many inputs.
_LOOK = 256
_PAGE = resource.getpagesize()
#: Put in place of each number of a seed: beyond the limits of Python's integers, floats and recursion.
TRAPS = [b"9" * 5000, b"1e999", b"[" * 5000, b'{"a":' * 5000, b"-1", b"NaN"]
#: Where files live that a parser must open: on a disk they take most of the time.
MEMORY = "/dev/shm" if Path("/dev/shm").is_dir() else None


def trapped(seed: bytes) -> Iterator[bytes]:
    """Yield a seed with each of its numbers replaced by each trap."""
    for match in re.finditer(rb"\d[\d.]*", seed[:20_000]):
        for trap in TRAPS:
            yield seed[: match.start()] + trap + seed[match.end() :]


def limit_memory(more: int | None) -> None:
    """Let this process take so many bytes beyond what it holds; None for any."""
    pages = int(Path("/proc/self/statm").read_bytes().split()[5])
    hard = resource.getrlimit(resource.RLIMIT_DATA)[1]
    resource.setrlimit(resource.RLIMIT_DATA, (hard if more is None else pages * _PAGE + more, hard))


def was_refused(error: BaseException | None) -> bool:
    """Tell whether an error came of a refusal of memory, by itself or by what it was made of."""
    while error is not None:
        # OpenCV has a type of its own for it, and so has Arrow; both say it.
        if isinstance(error, MemoryError) or re.search(
            "(?i)insufficient memory|malloc|bad_alloc", str(error)
        ):
            return True
        error = error.__cause__ or error.__context__
    return False


def fuzz(name: str, folder: str, arguments: list[str]) -> None:
    """Fuzz one target in this process, which libFuzzer ends; so the folder is another's to remove."""
    import atheris

    with atheris.instrument_imports(include=INSTRUMENTED, exclude=COMPILED):
        from datakit.errors import DatakitError
        from tests.fuzz.targets import make_target

        target = make_target(name, Path(folder))
        for seed in target.seeds:  # makes the tables and loads the libraries that are kept
            with contextlib.suppress(DatakitError):
                target.parse(seed)
    largest = int(next(a for a in arguments if a.startswith("-max_len=")).split("=")[1])
    done = 0

    def one(data: bytes) -> None:
        nonlocal done
        if done % _LOOK == 0:
            limit_memory(_SPARE + _FOR_EACH_BYTE * max(largest, len(data)))
        done += 1
        try:
            target.parse(data)
        except DatakitError as error:
            assert error.what and str(error)
            assert not was_refused(error), "too much memory"

    prefix = next(a for a in arguments if a.startswith("-artifact_prefix=")).split("=")[1]
    for data in (data for seed in target.seeds for data in trapped(seed)):
        try:
            one(data)
        except BaseException:
            Path(f"{prefix}crash-trap").write_bytes(data)
            raise
    limit_memory(None)  # libFuzzer makes its tables now
    done = 0
    atheris.Setup([sys.argv[0], *arguments], one)
    atheris.Fuzz()


def run(name: str, runs: int, seconds: int, patience: int, out: Path) -> tuple[int, str]:
    """Fuzz one target in a process of its own.

    Returns:
        Exit status, and the last lines of its output.
    """
    from tests.fuzz.targets import make_target

    corpus = out / name / "corpus"
    corpus.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        for number, seed in enumerate(make_target(name, Path(folder)).seeds):
            (corpus / f"seed{number}").write_bytes(seed)
    largest = max(path.stat().st_size for path in corpus.iterdir())
    arguments = [
        f"-runs={runs}",
        f"-max_total_time={seconds}",
        f"-timeout={patience}",
        f"-rss_limit_mb={_MIB}",
        f"-max_len={max(512, 2 * largest)}",
        f"-artifact_prefix={out / name}/",
        str(corpus),
    ]
    with tempfile.TemporaryDirectory(dir=MEMORY) as folder:
        command = [sys.executable, __file__, "--inside", name, folder, *arguments]
        done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, errors="replace")
    # Tracebacks are in the one, libFuzzer's report in the other.
    return done.returncode, "\n".join([*done.stderr.splitlines(), *done.stdout.splitlines()[-30:]])


def main() -> None:
    """Run the targets asked for and report."""
    sys.path.insert(0, str(ROOT))
    if sys.argv[1:2] == ["--inside"]:
        fuzz(sys.argv[2], sys.argv[3], sys.argv[4:])
        return
    from tests.fuzz.targets import NAMES, make_target

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("targets", nargs="*", metavar="TARGET", help=f"of {', '.join(NAMES)}; default: all")
    parser.add_argument("--runs", type=int, default=1_000_000, help="inputs of a target")
    parser.add_argument(
        "--seconds", type=int, default=0, help="at most, of a target; 0 for as long as it takes"
    )
    parser.add_argument(
        "--patience",
        type=int,
        default=_SECONDS_AN_INPUT,
        help="seconds for one input; more where the process is paused from outside",
    )
    parser.add_argument("--out", type=Path, default=Path("out/fuzz"))
    parser.add_argument(
        "--reproduce", nargs=2, metavar=("TARGET", "FILE"), help="parse one input and say how it ends"
    )
    options = parser.parse_args()
    if options.reproduce:
        with tempfile.TemporaryDirectory() as folder:
            make_target(options.reproduce[0], Path(folder)).parse(Path(options.reproduce[1]).read_bytes())
        return
    if unknown := set(options.targets) - set(NAMES):
        parser.error(f"no such target: {', '.join(sorted(unknown))}")
    num_failed = 0
    for name in options.targets or NAMES:
        status, output = run(name, options.runs, options.seconds, options.patience, options.out.resolve())
        done = re.findall(r"^(?:Done (\d+) runs|#(\d+)\s)", output, re.MULTILINE)
        executions = max((int(a or b) for a, b in done), default=0)
        cover, held = re.findall(r"cov: (\d+)", output), re.findall(r"rss: (\d+)Mb", output)
        print(
            f"{name:<34}{executions:>10} inputs, {cover[-1] if cover else 0} branches, "
            f"{max(map(int, held), default=0)} MiB held, "
            f"{'FAILED' if status else 'ok'}",
            flush=True,
        )
        if status:
            num_failed += 1
            print("\n".join(output.splitlines()[-60:]), file=sys.stderr)
    sys.exit(int(num_failed > 0))


if __name__ == "__main__":
    main()
