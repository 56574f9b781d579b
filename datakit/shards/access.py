"""Read ranges of a set's files, from a folder or from any URL that fsspec knows."""

from __future__ import annotations

import asyncio
import os
import random
import stat
import time
from collections.abc import Callable
from functools import partial
from typing import Any, TypeVar

from datakit.errors import ShardError, UsageError

Answer = TypeVar("Answer")

#: What an error says was found where there is no file.
NOTHING = "nothing"
_LONGEST_WAIT = 20.0
#: A long range is read in pieces, so that the timeout of one try asks for a rate that any line can keep.
_PIECE = 1 << 24
#: Refusals (4xx) that RFC 9110 §15.5.9, RFC 8470 §5.2 and RFC 6585 §4 give for now and not for good.
_PASSING = (408, 425, 429)
_FORBIDDEN, _GONE, _BEYOND_THE_END = (401, 403), (404, 410), 416
#: Chance of its own: waits must not disturb the random numbers of whoever trains.
_CHANCE = random.SystemRandom()


class Reader:
    """Reads byte ranges of files under one root; can be pickled, forked and used from several threads.

    A remote read that fails, stalls past the timeout or returns another number of bytes is tried again, with
    growing waits; one that is refused for good (no such file, not allowed) is not. This is the only loop: those
    inside `s3fs` and `botocore` would multiply with it, and are switched off unless `storage_options` asks for them.

    Args:
        root: Folder, or URL of one (s3://, gs://, https://, memory:// ...).
        storage_options: For the fsspec file system.
        retries: Further tries of a remote read after the first.
        timeout: Seconds that one try may take where the file system is asynchronous (S3, GCS, HTTP); others
            follow their own. More than 16 MB are read in pieces, each with tries of its own.
        first_wait: Seconds before the second try; doubled from try to try up to 20 s, less up to half by chance,
            so that many workers do not come back at once.

    Raises:
        UsageError: A number is out of range.
    """

    def __init__(
        self,
        root: str,
        *,
        storage_options: dict[str, Any] | None = None,
        retries: int = 6,
        timeout: float = 30.0,
        first_wait: float = 0.2,
    ) -> None:
        if retries < 0 or timeout <= 0 or first_wait < 0:
            raise UsageError(
                "A remote read needs retries >= 0, timeout > 0 and first_wait >= 0",
                where=root,
                found=f"retries {retries}, timeout {timeout:g}, first_wait {first_wait:g}",
            )
        self.root = root.rstrip("/") if "://" in root else root
        self.is_local = "://" not in root
        self.storage_options = dict(storage_options or {})
        self.retries = retries
        self.timeout = timeout
        self.first_wait = first_wait
        self._fs: Any = None
        self._base = ""
        self._pid = -1

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_fs": None, "_pid": -1}

    def place(self, name: str) -> str:
        """Name a file of the set in full, for messages."""
        return os.path.join(self.root, name) if self.is_local else f"{self.root}/{name}"

    def read(self, name: str, offset: int = 0, length: int | None = None) -> bytes:
        """Read `length` bytes from `offset`; to the end where `length` is None.

        Raises:
            ShardError: The file is missing, ends before, or could not be read within the retries.
        """
        if self.is_local:
            return self._read_local(name, offset, length)
        if length is None or length <= _PIECE:
            return self._read_piece(name, offset, length)
        starts = range(offset, offset + length, _PIECE)
        return b"".join(self._read_piece(name, at, min(_PIECE, offset + length - at)) for at in starts)

    def size(self, name: str) -> int:
        """Size of a file in bytes.

        Raises:
            ShardError: The file is missing or cannot be asked for.
        """
        if not self.is_local:
            return self._persist(name, self.place(name), partial(self._size_remote, name))
        try:
            status = os.stat(self.place(name))
        except FileNotFoundError as error:
            raise self._missing(name) from error
        except OSError as error:
            raise self._unreadable(name, error) from error
        if not stat.S_ISREG(status.st_mode):
            raise self._unreadable(name, "no plain file")
        return status.st_size

    def _read_piece(self, name: str, offset: int, length: int | None) -> bytes:
        where = self._range(name, offset, length)
        return self._persist(name, where, partial(self._read_remote, name, offset, length))

    def _persist(self, name: str, where: str, ask: Callable[[], Answer]) -> Answer:
        """Ask until there is an answer, or no further try would bring one."""
        self._remote()  # a URL that no try can reach is the user's error
        problem: Exception
        for attempt in range(self.retries + 1):
            if attempt:
                longest = min(self.first_wait * 2 ** (attempt - 1), _LONGEST_WAIT)
                time.sleep(longest * _CHANCE.uniform(0.5, 1))
            try:
                return ask()
            except Exception as error:  # every file system raises its own kinds
                problem = error
            if (refusal := self._refusal(name, where, problem)) is not None:
                raise refusal from problem
        if isinstance(problem, ShardError):
            raise problem
        raise ShardError(
            "File cannot be read",
            where=where,
            expected=f"an answer within {self.retries + 1} tries of {self.timeout:g} s",
            found=_described(problem),
        ) from problem

    def _refusal(self, name: str, where: str, problem: Exception) -> ShardError | None:
        """Turn an answer that will not change into what to raise; None where another try may help."""
        status = _status(problem)
        if status in _GONE or (status is None and isinstance(problem, FileNotFoundError)):
            return self._missing(name)
        if status in _FORBIDDEN or (status is None and isinstance(problem, PermissionError)):
            what, expected = "File may not be read", "permission to read it"
            mend = "check the credentials, and who may read there"
        elif status is not None and 400 <= status < 500 and status not in _PASSING:
            what, expected, mend = "File cannot be read", "an answer", None
        else:
            return None
        return ShardError(what, where=where, expected=expected, found=_described(problem), mend=mend)

    def _read_local(self, name: str, offset: int, length: int | None) -> bytes:
        try:
            descriptor = os.open(self.place(name), os.O_RDONLY)
        except FileNotFoundError as error:
            raise self._missing(name) from error
        except OSError as error:
            raise self._unreadable(name, error) from error
        try:
            wanted = os.fstat(descriptor).st_size - offset if length is None else length
            parts = []
            while wanted > 0 and (part := os.pread(descriptor, min(wanted, 1 << 30), offset)):
                parts.append(part)
                offset, wanted = offset + len(part), wanted - len(part)
        except OSError as error:
            raise self._unreadable(name, error) from error
        finally:
            os.close(descriptor)
        data = parts[0] if len(parts) == 1 else b"".join(parts)
        if length is not None and len(data) != length:
            raise self._short(name, offset - len(data), length, len(data))
        return data

    def _read_remote(self, name: str, offset: int, length: int | None) -> bytes:
        if length == 0:
            return b""
        fs, base = self._remote()
        span = {} if length is None and not offset else {"start": offset, "end": None}
        if length is not None:
            span["end"] = offset + length
        try:
            data = bytes(self._call(fs, "cat_file", f"{base}/{name}", **span))
        except Exception as error:
            if _status(error) != _BEYOND_THE_END:
                raise
            data = b""
        if length is not None and len(data) != length:
            raise self._short(name, offset, length, len(data))
        return data

    def _size_remote(self, name: str) -> int:
        fs, base = self._remote()
        info = self._call(fs, "info", f"{base}/{name}")
        if info["type"] != "file":  # an object store calls whatever keys begin with a folder
            raise FileNotFoundError(name)
        if info["size"] is None:
            raise ShardError(
                "Server does not say how long a file is",
                where=self.place(name),
                expected="a Content-Length",
                found="none",
            )
        return int(info["size"])

    def _call(self, fs: Any, method: str, *args: Any, **kwargs: Any) -> Any:
        """Call a method of the file system, within the timeout where it is asynchronous."""
        from fsspec.asyn import AsyncFileSystem, sync

        if isinstance(fs, AsyncFileSystem):
            return sync(fs.loop, getattr(fs, f"_{method}"), *args, timeout=self.timeout, **kwargs)
        return getattr(fs, method)(*args, **kwargs)

    def _remote(self) -> tuple[Any, str]:
        if (
            self._fs is None or self._pid != os.getpid()
        ):  # the loop thread of a file system does not survive a fork
            from fsspec.core import url_to_fs

            try:
                fs, base = url_to_fs(self.root, **self._options())
            except (ImportError, ValueError, TypeError) as error:
                raise UsageError(
                    "No file system for this URL",
                    where=self.root,
                    found=error,
                    mend="pip install s3fs (s3://), gcsfs (gs://) or aiohttp (http://)",
                ) from error
            if self._is_s3:
                fs.retries = 1  # of one call; this class has the loop
            self._fs, self._base, self._pid = fs, base.rstrip("/"), os.getpid()
        return self._fs, self._base

    @property
    def _is_s3(self) -> bool:
        return self.root.startswith(("s3://", "s3a://"))

    def _options(self) -> dict[str, Any]:
        if not self._is_s3:
            return self.storage_options
        config = {"retries": {"total_max_attempts": 1}} | self.storage_options.get("config_kwargs", {})
        return self.storage_options | {"config_kwargs": config}

    def _missing(self, name: str) -> ShardError:
        return ShardError(
            "File of the set is missing", where=self.place(name), expected="a file", found=NOTHING
        )

    def _unreadable(self, name: str, found: object) -> ShardError:
        return ShardError(
            "File cannot be read", where=self.place(name), expected="a file that can be read", found=found
        )

    def _short(self, name: str, offset: int, length: int, found: int) -> ShardError:
        return ShardError(
            "File ends too early" if found < length else "Server ignores byte ranges",
            where=self._range(name, offset, length),
            expected=f"{length} bytes",
            found=f"{found} bytes",
        )

    def _range(self, name: str, offset: int, length: int | None) -> str:
        return self.place(name) + (f", bytes {offset}..{offset + length}" if length is not None else "")


def _causes(error: BaseException) -> list[BaseException]:
    """The error and what it was raised from."""
    chain: list[BaseException] = []
    link: BaseException | None = error
    while link is not None and link not in chain:
        chain.append(link)
        link = link.__cause__
    return chain


def _status(error: BaseException) -> int | None:
    """HTTP status that an error, or one that it was raised from, stands for: aiohttp's and botocore's."""
    for link in _causes(error):
        response = getattr(link, "response", None)
        said = response.get("ResponseMetadata", {}) if isinstance(response, dict) else {}
        status = getattr(link, "status", said.get("HTTPStatusCode"))
        if isinstance(status, int):
            return status
    return None


def _described(error: BaseException) -> str:
    """Name an error by its origin: file systems wrap it in kinds that say less, or the wrong thing."""
    # How asyncio ends what took too long is no origin.
    chain = [link for link in _causes(error) if not isinstance(link, asyncio.CancelledError)]
    origin = chain[-1] if chain else error
    return f"{type(origin).__name__}: {origin}" if str(origin) else type(origin).__name__
