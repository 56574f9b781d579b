"""A page as a real browser shows it, where one is installed, by the protocol its developer tools speak."""

from __future__ import annotations

import fcntl
import json
import os
import select
import shutil
import signal
import time
from contextlib import contextmanager
from pathlib import Path
from typing import Any

BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
QUIET = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-extensions",
]
PATIENCE = 120.0
# What a page asks to be drawn is drawn two animation frames later, however slow the machine is. A clock cannot
# say that: --dump-dom with a budget of time caught a page before its first frame.
DRAWN = """new Promise((done) => {
  const frames = (left) => left ? requestAnimationFrame(() => frames(left - 1)) : pause();
  let pauses = 3;
  const pause = () => pauses-- ? setTimeout(() => frames(2), 100) : done(document.documentElement.outerHTML);
  document.readyState === "complete" ? frames(2) : addEventListener("load", () => frames(2));
})"""


def open_page(page: Path, scratch: Path, fragment: str = "") -> tuple[str, list[str]]:
    """Return the page as it stands once it is drawn, and what it complained of."""
    with _browser(scratch) as talk:
        target = talk.call("Target.createTarget", url="about:blank")["targetId"]
        session = talk.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Runtime", "Log", "Page"):
            talk.call(f"{domain}.enable", session)
        talk.call("Page.navigate", session, url=page.as_uri() + fragment)
        while not any(_leaves_blank(event) for event in talk.events):
            talk.receive()
        answer = talk.call("Runtime.evaluate", session, expression=DRAWN, awaitPromise=True)
        return answer["result"]["value"], [_complaint(event) for event in talk.events if _complaint(event)]


def _leaves_blank(event: dict[str, Any]) -> bool:
    return event["method"] == "Page.frameNavigated" and event["params"]["frame"]["url"] != "about:blank"


def _complaint(event: dict[str, Any]) -> str:
    heard = ("Runtime.consoleAPICalled", "Runtime.exceptionThrown", "Log.entryAdded")
    return json.dumps(event["params"]) if event["method"] in heard else ""


@contextmanager
def _browser(scratch: Path):
    """Start the browser with its developer tools on two pipes: it reads from number 3 and writes to number 4."""
    theirs_in, ours_out = os.pipe()
    ours_in, theirs_out = os.pipe()
    # Numbers above those they become, or one of them would be overwritten before it is copied.
    high = [fcntl.fcntl(end, fcntl.F_DUPFD_CLOEXEC, 10) for end in (theirs_in, theirs_out)]
    log = os.open(scratch.with_suffix(".log"), os.O_WRONLY | os.O_CREAT, 0o600)
    moves = [(os.POSIX_SPAWN_DUP2, a, b) for a, b in ((high[0], 3), (high[1], 4), (log, 1), (log, 2))]
    command = [BROWSER, *QUIET, "--remote-debugging-pipe", f"--user-data-dir={scratch}", "about:blank"]
    process = os.posix_spawn(command[0], command, os.environ, file_actions=moves, setsid=True)
    for end in (theirs_in, theirs_out, *high, log):
        os.close(end)
    try:
        yield _Talk(ours_in, ours_out)
    finally:
        # The browser is many processes; its own group takes all of them along.
        os.killpg(process, signal.SIGKILL)
        os.waitpid(process, 0)
        os.close(ours_in)
        os.close(ours_out)


class _Talk:
    """Calls and their answers, each a JSON message that ends with a zero byte."""

    def __init__(self, read: int, write: int) -> None:
        self.read, self.write = read, write
        self.last, self.rest = 0, b""
        self.deadline = time.monotonic() + PATIENCE
        self.events: list[dict[str, Any]] = []

    def call(self, method: str, session: str | None = None, **params: Any) -> dict[str, Any]:
        self.last += 1
        message = {"id": self.last, "method": method, "params": params}
        if session is not None:
            message["sessionId"] = session
        os.write(self.write, json.dumps(message).encode() + b"\0")
        answer: dict[str, Any] = {}
        while answer.get("id") != self.last:
            answer = self.receive()
        assert "error" not in answer, f"{method}: {answer['error']}"
        return answer["result"]

    def receive(self) -> dict[str, Any]:
        """Read one message; an event is kept."""
        message = self._message()
        if "method" in message:
            self.events.append(message)
        return message

    def _message(self) -> dict[str, Any]:
        while b"\0" not in self.rest:
            ready = select.select([self.read], [], [], max(self.deadline - time.monotonic(), 0))[0]
            data = os.read(self.read, 1 << 16) if ready else None
            assert data, "the browser ended" if data == b"" else "the browser did not answer in time"
            self.rest += data
        message, _, self.rest = self.rest.partition(b"\0")
        return json.loads(message)
