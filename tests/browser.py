"""A headless Chromium that looks at pages as people do, driven through its own pipe; nothing is installed for it."""

from __future__ import annotations

import base64
import fcntl
import io
import itertools
import json
import os
import shutil
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
FLAGS = ("--headless=new", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking")


class Browser:
    """One page of a browser. `events` are what it told of its own accord: its console, its requests, its exceptions."""

    def __init__(self, to: int, back: int) -> None:
        self.to, self.back, self.read, self.ids = to, back, b"", itertools.count(1)
        self.events: list[dict[str, Any]] = []
        self.session = ""
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self.session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable")

    def call(self, method: str, **params: Any) -> dict[str, Any]:
        """What the browser answers; an assertion fails where it refuses."""
        number = next(self.ids)
        message = {"id": number, "method": method, "params": params}
        message |= {"sessionId": self.session} if self.session else {}
        os.write(self.to, json.dumps(message).encode() + b"\0")
        while (answer := self.next_message()).get("id") != number:
            self.events.append(answer)
        assert "error" not in answer, answer
        return answer["result"]

    def next_message(self) -> dict[str, Any]:
        while b"\0" not in self.read:
            part = os.read(self.back, 1 << 20)
            assert part, "the browser has ended"
            self.read += part
        first, _, self.read = self.read.partition(b"\0")
        return json.loads(first)

    def open(self, page: Path, anchor: str = "", *, width: int = 1280) -> None:
        """Load the page in a window of that width, and wait until it is there."""
        self.call("Emulation.setDeviceMetricsOverride", width=width, height=1000, deviceScaleFactor=1, mobile=False)
        for url in ("about:blank", f"file://{page}{anchor}"):  # a new anchor alone would load nothing
            self.events.clear()
            self.call("Page.navigate", url=url)
            while not any(event["method"] == "Page.loadEventFired" for event in self.events):
                self.events.append(self.next_message())

    def value(self, expression: str) -> Any:
        """A JavaScript expression's value on the page."""
        found = self.call("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in found, found
        return found["result"].get("value")

    def picture(self, *, whole: bool = False) -> np.ndarray:
        """What the window shows, or the whole page: [rows, columns, 3], of 0 to 255."""
        data = self.call("Page.captureScreenshot", format="png", captureBeyondViewport=whole)["data"]
        return np.asarray(Image.open(io.BytesIO(base64.b64decode(data))).convert("RGB"))


def _out_of_the_way(descriptor: int) -> int:
    """The same pipe under a number that is not one of the two that the browser reads and writes."""
    moved = fcntl.fcntl(descriptor, fcntl.F_DUPFD_CLOEXEC, 20)
    os.close(descriptor)
    return moved


@contextmanager
def browser(home: Path) -> Iterator[Browser]:
    """A browser with a fresh profile in that folder, ended with all its processes."""
    for_it, to, back, from_it = (_out_of_the_way(end) for end in (*os.pipe(), *os.pipe()))

    def as_it_wants_them() -> None:
        os.dup2(for_it, 3)
        os.dup2(from_it, 4)

    process = subprocess.Popen(
        [str(CHROMIUM), *FLAGS, "--remote-debugging-pipe", f"--user-data-dir={home}"],
        pass_fds=(3, 4),
        preexec_fn=as_it_wants_them,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    os.close(for_it)
    os.close(from_it)
    try:
        yield Browser(to, back)
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        os.close(to)
        os.close(back)
