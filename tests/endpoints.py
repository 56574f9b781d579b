"""A small web server over a folder whose answers can be made to fail: byte ranges over HTTP, and enough of S3.

As S3 it knows path-style GET and HEAD of objects and ListObjectsV2 (docs.aws.amazon.com/AmazonS3/latest/API), with
errors as XML; signatures are not looked at. The first part of a path is the bucket and stands for nothing.
"""

from __future__ import annotations

import re
import socket
import struct
import threading
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit
from xml.sax.saxutils import escape

#: What can become of a request. Those in digits are statuses.
FAULTS = (
    "500",
    "503",
    "429",
    "reset",
    "stall",
    "stall in the body",
    "body breaks off",
    "short body",
    "wrong bytes",
    "whole file",
    "404",
    "403",
    "416",
)
_S3_CODES = {
    403: "AccessDenied",
    404: "NoSuchKey",
    416: "InvalidRange",
    429: "TooManyRequests",
    500: "InternalError",
    503: "SlowDown",
}


@dataclass
class Behaviour:
    """How the server answers, to be changed while it runs.

    Attributes:
        plan: Faults of the next requests that match, in turn; "good" for none.
        lasting: Fault of every request that matches once the plan is used up; None for none.
        match: Pattern of "METHOD /path range" that faults apply to; the range is "-" where none is asked for.
        is_s3: Answer errors as S3 does.
        log: "METHOD /path range fault" of each request so far.
    """

    plan: deque[str] = field(default_factory=deque)
    lasting: str | None = None
    match: str = r"^GET .*\.tar "
    is_s3: bool = False
    log: list[str] = field(default_factory=list)
    lock: Any = field(default_factory=threading.Lock)

    def next_fault(self, request: str, span: str) -> str:
        """Decide about a request and note it."""
        with self.lock:
            fault = "good"
            if re.search(self.match, f"{request} {span}"):
                fault = self.plan.popleft() if self.plan else self.lasting or "good"
            assert fault == "good" or fault in FAULTS, fault
            self.log.append(f"{request} {span} {fault}")
            return fault

    def matching(self) -> list[str]:
        """The requests so far that faults apply to."""
        return [line for line in self.log if re.search(self.match, line)]

    def reset(self, lasting: str | None = None, *plan: str) -> None:
        """Begin anew with these faults."""
        with self.lock:
            self.plan, self.lasting, self.log = deque(plan), lasting, []


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    root: Path
    behaviour: Behaviour
    closing: threading.Event

    def do_HEAD(self) -> None:
        self.answer()

    def do_GET(self) -> None:
        self.answer()

    def log_message(self, *args: Any) -> None:
        pass

    def answer(self) -> None:
        parts = urlsplit(self.path)
        span = self.headers.get("Range", "")
        fault = self.behaviour.next_fault(f"{self.command} {unquote(parts.path)}", span or "-")
        with suppress(ConnectionError):
            if fault == "reset":
                return self.reset()
            if fault == "stall":
                return self.stall()
            if fault.isdigit():
                return self.fail(int(fault))
            if "list-type" in parse_qs(parts.query):
                return self.list_objects(parse_qs(parts.query).get("prefix", [""])[0])
            file = self.root / Path(unquote(parts.path).lstrip("/")).name
            if not file.is_file():
                return self.fail(404)
            self.send(file, span, fault)

    def send(self, file: Path, span: str, fault: str) -> None:
        size = file.stat().st_size
        first, last = self.limits(span, size)
        if span and first >= size:
            return self.fail(416)
        if fault == "whole file":
            span, first, last = "", 0, size
        with open(file, "rb") as opened:
            opened.seek(first)
            data = opened.read(last - first)
        if fault == "wrong bytes":
            middle = len(data) // 2
            data = data[:middle] + bytes([data[middle] ^ 0x10]) + data[middle + 1 :]
        if fault == "short body":  # and its length is said to be that
            data = data[: len(data) // 2]
        self.send_response(206 if span else 200)
        self.send_header("Content-Length", str(len(data)))
        self.send_header("Accept-Ranges", "bytes")
        self.send_header("ETag", f'"{size:x}"')
        self.send_header("Last-Modified", "Thu, 01 Jan 2026 00:00:00 GMT")
        if span:
            self.send_header("Content-Range", f"bytes {first}-{first + len(data) - 1}/{size}")
        self.end_headers()
        if self.command == "HEAD":
            return
        if fault == "stall in the body":
            self.wfile.write(data[: len(data) // 2])
            return self.stall()
        if fault == "body breaks off":  # though its length was said to be all
            self.wfile.write(data[: len(data) // 2])
            self.close_connection = True
            return
        self.wfile.write(data)

    @staticmethod
    def limits(span: str, size: int) -> tuple[int, int]:
        found = re.fullmatch(r"bytes=(\d+)-(\d*)", span)
        if not found:
            return 0, size
        return int(found[1]), min(int(found[2]) + 1, size) if found[2] else size

    def fail(self, status: int) -> None:
        body = b""
        if self.behaviour.is_s3 and self.command == "GET":
            code = _S3_CODES[status]
            body = (
                f"<?xml version='1.0'?><Error><Code>{code}</Code><Message>{code}</Message></Error>".encode()
            )
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Content-Type", "application/xml")
        self.end_headers()
        self.wfile.write(body)

    def list_objects(self, prefix: str) -> None:
        folder, _, start = prefix.rpartition("/")
        entries = "".join(
            f"<Contents><Key>{escape(f'{folder}/{path.name}')}</Key><Size>{path.stat().st_size}</Size>"
            f"<LastModified>2026-01-01T00:00:00.000Z</LastModified></Contents>"
            for path in sorted(self.root.iterdir())
            if path.name.startswith(start)
        )
        body = f"<?xml version='1.0'?><ListBucketResult><IsTruncated>false</IsTruncated>{entries}</ListBucketResult>"
        self.send_response(200)
        self.send_header("Content-Length", str(len(body.encode())))
        self.send_header("Content-Type", "application/xml")
        self.end_headers()
        self.wfile.write(body.encode())

    def reset(self) -> None:
        """Drop the connection so that the other side sees ECONNRESET: close with data's delivery abandoned."""
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.close_connection = True
        self.connection.close()
        self.rfile, self.wfile = _Closed(), _Closed()  # type: ignore[assignment]

    def stall(self) -> None:
        self.closing.wait(60)
        self.close_connection = True


class _Closed:
    """Stands in for the files of a connection that is gone."""

    closed = True

    def close(self) -> None:
        pass

    def flush(self) -> None:
        pass


@dataclass
class Endpoint:
    """A running server.

    Attributes:
        url: Where the folder is served over HTTP, without a slash at the end.
        behaviour: How it answers.
    """

    url: str
    behaviour: Behaviour


@contextmanager
def serve(root: Path, is_s3: bool = False) -> Iterator[Endpoint]:
    """Serve the files of a folder under "http://127.0.0.1:PORT/bucket" until the end of the block."""
    closing, behaviour = threading.Event(), Behaviour(is_s3=is_s3)
    handler = type("_Handler", (Handler,), {"root": root, "behaviour": behaviour, "closing": closing})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield Endpoint(f"http://127.0.0.1:{server.server_port}/bucket", behaviour)
    finally:
        closing.set()
        server.shutdown()
        server.server_close()
        thread.join()
