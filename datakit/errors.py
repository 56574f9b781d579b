"""The errors a user can meet. Each says what, where, expected, found, and how to mend it."""

from __future__ import annotations

from pathlib import Path


class DatakitError(Exception):
    """Base of every error that input, files or arguments can cause.

    Args:
        what: One sentence naming the problem.
        where: File (and field, frame or byte) at fault; paths are printed as given.
        expected: What a good input has there.
        found: What is there.
        mend: What the user can do about it.
    """

    def __init__(
        self,
        what: str,
        *,
        where: str | Path | None = None,
        expected: object = None,
        found: object = None,
        mend: str | None = None,
    ) -> None:
        self.what = what
        self.where = None if where is None else str(where)
        self.expected = None if expected is None else str(expected)
        self.found = None if found is None else str(found)
        self.mend = mend
        super().__init__(str(self))

    def __str__(self) -> str:
        parts = [self.what]
        for label, value in (
            ("where", self.where),
            ("expected", self.expected),
            ("found", self.found),
            ("to mend", self.mend),
        ):
            if value is not None:
                parts.append(f"{label}: {value}")
        return "\n  ".join(parts)

    def __reduce__(self) -> tuple[object, ...]:
        # Exceptions cross process boundaries; keyword-only arguments need this to survive pickling.
        kwargs = {k: getattr(self, k) for k in ("where", "expected", "found", "mend")}
        return (_rebuild, (type(self), self.what, kwargs))


def _rebuild(cls: type[DatakitError], what: str, kwargs: dict[str, str | None]) -> DatakitError:
    return cls(
        what,
        where=kwargs["where"],
        expected=kwargs["expected"],
        found=kwargs["found"],
        mend=kwargs["mend"],
    )


class LayoutError(DatakitError):
    """A folder or file is not where the dataset's release puts it, or leaves its root."""


class FormatError(DatakitError):
    """The bytes of a file are not what its format says: truncated, wrong magic, wrong checksum."""


class ConventionError(DatakitError):
    """A tag is missing or a value breaks the contract: axes, units, frames, pixel centres, scale."""


class QualityError(DatakitError):
    """The content is readable but too poor to use under the thresholds asked for."""


class ShardError(DatakitError):
    """A shard, its index or its manifest disagree."""


class UsageError(DatakitError):
    """The command or call asks for something that does not exist: a dataset, a split, a parameter."""
