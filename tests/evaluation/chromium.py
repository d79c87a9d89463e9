"""Drives a headless Chromium through its debugging pipe: no driver program, no network."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import time
from pathlib import Path
from typing import Any

PROGRAM = next(
    (path for name in ("chromium", "chromium-browser", "google-chrome") if (path := shutil.which(name))), None
)
_OPTIONS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--remote-debugging-pipe",
]


class Page:
    """One page in a browser of its own.

    Args:
        file: HTML file to open.
        profile: empty folder for the browser.
    """

    def __init__(self, file: Path, profile: Path) -> None:
        from_us, to_browser = os.pipe()
        from_browser, to_us = os.pipe()

        def place() -> None:  # Chromium reads from 3 and writes to 4
            high = os.dup2(from_us, 103), os.dup2(to_us, 104)
            os.dup2(high[0], 3)
            os.dup2(high[1], 4)

        self.browser = subprocess.Popen(
            [PROGRAM, *_OPTIONS, f"--user-data-dir={profile}", "about:blank"],
            preexec_fn=place,
            close_fds=False,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        os.close(from_us)
        os.close(to_us)
        self._write, self._read = os.fdopen(to_browser, "wb", 0), os.fdopen(from_browser, "rb")
        self._count, self._session = 0, None
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        self.call("Page.navigate", url=file.resolve().as_uri())
        deadline = time.monotonic() + 30
        while self.run("location.protocol + document.readyState") != "file:complete":
            assert time.monotonic() < deadline, "the page does not load"
            time.sleep(0.05)

    def __enter__(self) -> Page:
        return self

    def __exit__(self, *_: object) -> None:
        self.browser.terminate()
        self.browser.wait(10)
        self._write.close()
        self._read.close()

    def run(self, expression: str) -> Any:
        """The value of a JavaScript expression."""
        answer = self.call("Runtime.evaluate", expression=expression, returnByValue=True)
        assert "exceptionDetails" not in answer, answer
        return answer["result"].get("value")

    def click(self, selector: str, across: float = 0.5, down: float = 0.5) -> None:
        """Press and release the mouse over an element, at these fractions of its sides."""
        box = self.run(
            f"(() => {{ const e = document.querySelector({selector!r}); e.scrollIntoView();"
            "const r = e.getBoundingClientRect(); return [r.left, r.top, r.width, r.height]; })()"
        )
        place = {"x": box[0] + across * box[2], "y": box[1] + down * box[3]}
        for kind in ("mousePressed", "mouseReleased"):
            self.call("Input.dispatchMouseEvent", type=kind, button="left", clickCount=1, **place)

    def call(self, method: str, **params: Any) -> dict[str, Any]:
        """A command of the DevTools protocol."""
        self._count += 1
        message = {"id": self._count, "method": method, "params": params}
        if self._session is not None:
            message["sessionId"] = self._session
        self._write.write(json.dumps(message).encode() + b"\0")
        while True:
            raw = bytearray()
            while not raw.endswith(b"\0"):
                byte = self._read.read(1)
                assert byte, "the browser is gone"
                raw += byte
            answer = json.loads(raw[:-1])
            if answer.get("id") == self._count:
                assert "error" not in answer, answer
                return answer["result"]
