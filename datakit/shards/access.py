"""Read ranges of a set's files, from a folder or from any URL that fsspec knows."""

from __future__ import annotations

import os
import time
from typing import Any

from datakit.errors import ShardError, UsageError

_FIRST_WAIT, _LONGEST_WAIT = 0.1, 5.0


class Reader:
    """Reads byte ranges of files under one root; can be pickled, forked and used from several threads.

    A remote read that fails, stalls past the timeout or returns another number of bytes is tried again, with
    growing waits; a file that does not exist is not.

    Args:
        root: Folder, or URL of one (s3://, gs://, https://, memory:// ...).
        storage_options: For the fsspec file system.
        retries: Further tries of a remote read after the first.
        timeout: Seconds that one try may take where the file system is asynchronous (S3, GCS, HTTP); others
            follow their own.
    """

    def __init__(
        self,
        root: str,
        *,
        storage_options: dict[str, Any] | None = None,
        retries: int = 4,
        timeout: float = 30.0,
    ) -> None:
        self.root = root.rstrip("/") if "://" in root else root
        self.is_local = "://" not in root
        self.storage_options = dict(storage_options or {})
        self.retries = retries
        self.timeout = timeout
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
        self._remote()  # a URL that no try can reach is the user's error
        problem: Exception | None = None
        for attempt in range(self.retries + 1):
            if attempt:
                time.sleep(min(_FIRST_WAIT * 2 ** (attempt - 1), _LONGEST_WAIT))
            try:
                data = self._read_remote(name, offset, length)
            except FileNotFoundError as error:
                raise self._missing(name) from error
            except PermissionError as error:
                raise ShardError("File may not be read", where=self.place(name), found=error) from error
            except Exception as error:  # every file system raises its own kinds
                problem = error
                continue
            if length is None or len(data) == length:
                return data
            problem = self._short(name, offset, length, len(data))
        if isinstance(problem, ShardError):
            raise problem
        raise ShardError(
            "File cannot be read",
            where=self.place(name),
            expected=f"an answer within {self.retries + 1} tries of {self.timeout:g} s",
            found=f"{type(problem).__name__}: {problem}",
        ) from problem

    def size(self, name: str) -> int:
        """Size of a file in bytes.

        Raises:
            ShardError: The file is missing or cannot be asked for.
        """
        try:
            if self.is_local:
                return os.stat(self.place(name)).st_size
            fs, base = self._remote()
            return int(fs.size(f"{base}/{name}"))
        except FileNotFoundError as error:
            raise self._missing(name) from error
        except Exception as error:
            raise ShardError("File cannot be read", where=self.place(name), found=error) from error

    def _read_local(self, name: str, offset: int, length: int | None) -> bytes:
        try:
            descriptor = os.open(self.place(name), os.O_RDONLY)
        except FileNotFoundError as error:
            raise self._missing(name) from error
        except OSError as error:
            raise ShardError("File cannot be read", where=self.place(name), found=error) from error
        try:
            wanted = os.fstat(descriptor).st_size - offset if length is None else length
            parts = []
            while wanted > 0 and (part := os.pread(descriptor, min(wanted, 1 << 30), offset)):
                parts.append(part)
                offset, wanted = offset + len(part), wanted - len(part)
        except OSError as error:
            raise ShardError("File cannot be read", where=self.place(name), found=error) from error
        finally:
            os.close(descriptor)
        data = parts[0] if len(parts) == 1 else b"".join(parts)
        if length is not None and len(data) != length:
            raise self._short(name, offset - len(data), length, len(data))
        return data

    def _read_remote(self, name: str, offset: int, length: int | None) -> bytes:
        from fsspec.asyn import AsyncFileSystem, sync

        fs, base = self._remote()
        path = f"{base}/{name}"
        span = {} if length is None and not offset else {"start": offset, "end": None}
        if length is not None:
            if not length:
                return b""
            span = {"start": offset, "end": offset + length}
        if isinstance(fs, AsyncFileSystem):
            return bytes(sync(fs.loop, fs._cat_file, path, timeout=self.timeout, **span))
        return bytes(fs.cat_file(path, **span))

    def _remote(self) -> tuple[Any, str]:
        if (
            self._fs is None or self._pid != os.getpid()
        ):  # the loop thread of a file system does not survive a fork
            from fsspec.core import url_to_fs

            try:
                fs, base = url_to_fs(self.root, **self.storage_options)
            except (ImportError, ValueError) as error:
                raise UsageError(
                    "No file system for this URL",
                    where=self.root,
                    found=error,
                    mend="pip install s3fs (s3://), gcsfs (gs://) or aiohttp (http://)",
                ) from error
            self._fs, self._base, self._pid = fs, base.rstrip("/"), os.getpid()
        return self._fs, self._base

    def _missing(self, name: str) -> ShardError:
        return ShardError(
            "File of the set is missing", where=self.place(name), expected="a file", found="nothing"
        )

    def _short(self, name: str, offset: int, length: int, found: int) -> ShardError:
        return ShardError(
            "File ends too early" if found < length else "Server ignores byte ranges",
            where=f"{self.place(name)}, bytes {offset}..{offset + length}",
            expected=f"{length} bytes",
            found=f"{found} bytes",
        )
