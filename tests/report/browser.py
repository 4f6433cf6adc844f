"""Headless Chromium over its DevTools pipe: no driver, no port, nothing but the standard library.

The pipe is needed for what flags cannot do: a page 390 px wide (a window of headless Chromium is
at least 500), dark mode, print, and the list of everything that was requested.
"""

from __future__ import annotations

import base64
import contextlib
import json
import os
import select
import shutil
import subprocess
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
_PATIENCE = 60.0


class Page:
    """One tab, and what went wrong in it."""

    def __init__(self, browser: Browser, session: str) -> None:
        self._browser = browser
        self._session = session
        self.errors: list[str] = []
        self.requests: list[str] = []
        browser.pages[session] = self
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.send(f"{domain}.enable")

    def send(self, method: str, **params: object) -> Mapping[str, object]:
        return self._browser.send(method, params, self._session)

    def resize(self, width: int, height: int = 900, *, phone: bool = False) -> None:
        self.send(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=1,
            mobile=phone,
        )

    def media(self, *, dark: bool = False, print_: bool = False) -> None:
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        kind = "print" if print_ else ""
        self.send("Emulation.setEmulatedMedia", media=kind, features=[scheme])

    def open(self, path: Path) -> None:
        """Go to a report and wait until its charts are drawn, or failed."""
        address = path.resolve().as_uri()
        self.send("Page.navigate", url=address)
        # Until the new page is there, the old one answers.
        here = f"location.href === {json.dumps(address)}"
        state = f"{here} && document.documentElement && document.documentElement.dataset.charts"
        end = time.monotonic() + _PATIENCE
        while self.evaluate(state) not in ("drawn", "failed"):
            if time.monotonic() > end:
                raise TimeoutError(f"{path} is not drawn: {self.errors}")
            time.sleep(0.05)

    def evaluate(self, code: str) -> object:
        """Return what an expression of JavaScript gives, as JSON would hold it."""
        answer = self.send(
            "Runtime.evaluate", expression=code, returnByValue=True, awaitPromise=True
        )
        if "exceptionDetails" in answer:
            raise RuntimeError(str(answer["exceptionDetails"]))
        found = answer["result"]
        assert isinstance(found, dict)
        return found.get("value")

    def capture(self, path: Path) -> bytes:
        """Save the whole page as PNG, and return its bytes."""
        answer = self.send(
            "Page.captureScreenshot", format="png", captureBeyondViewport=True, **self._whole()
        )
        data = base64.b64decode(str(answer["data"]))
        path.write_bytes(data)
        return data

    def _whole(self) -> dict[str, object]:
        size = self.send("Page.getLayoutMetrics")["cssContentSize"]
        return {"clip": {**size, "scale": 1}}  # type: ignore[dict-item]

    def printed(self) -> bytes:
        answer = self.send("Page.printToPDF", printBackground=True)
        return base64.b64decode(str(answer["data"]))

    def heard(self, method: str, params: Mapping[str, object]) -> None:
        if method == "Runtime.exceptionThrown":
            self.errors.append(json.dumps(params["exceptionDetails"])[:500])
        elif method == "Runtime.consoleAPICalled" and params["type"] in ("error", "warning"):
            self.errors.append(json.dumps(params["args"])[:500])
        elif method == "Log.entryAdded":
            entry = params["entry"]
            assert isinstance(entry, dict)
            if entry["level"] in ("error", "warning"):
                self.errors.append(f"{entry['text']}")
        elif method == "Network.requestWillBeSent":
            request = params["request"]
            assert isinstance(request, dict)
            self.requests.append(str(request["url"]))


class Browser:
    """A running Chromium."""

    def __init__(self, commands: int, answers: int) -> None:
        self._commands, self._answers = commands, answers
        self._number = 0
        self._rest = b""
        self.pages: dict[str, Page] = {}

    def page(self) -> Page:
        made = self.send("Target.createTarget", {"url": "about:blank"})
        target = {"targetId": made["targetId"], "flatten": True}
        return Page(self, str(self.send("Target.attachToTarget", target)["sessionId"]))

    def send(
        self, method: str, params: Mapping[str, object] | None = None, session: str = ""
    ) -> Mapping[str, object]:
        self._number += 1
        message = {"id": self._number, "method": method, "params": dict(params or {})}
        if session:
            message["sessionId"] = session
        data = json.dumps(message).encode() + b"\0"
        while data:
            data = data[os.write(self._commands, data) :]
        while True:
            answer = self._next()
            if answer.get("id") == self._number:
                if "error" in answer:
                    raise RuntimeError(f"{method}: {answer['error']}")
                return answer["result"]  # type: ignore[return-value]
            page = self.pages.get(str(answer.get("sessionId")))
            if page is not None and "method" in answer:
                page.heard(str(answer["method"]), answer["params"])  # type: ignore[arg-type]

    def _next(self) -> dict[str, object]:
        while b"\0" not in self._rest:
            ready, _, _ = select.select([self._answers], [], [], _PATIENCE)
            data = os.read(self._answers, 2**20) if ready else b""
            if not data:
                raise RuntimeError("Chromium does not answer.")
            self._rest += data
        line, _, self._rest = self._rest.partition(b"\0")
        answer = json.loads(line)
        assert isinstance(answer, dict)
        return answer


@contextlib.contextmanager
def running(folder: Path) -> Iterator[Browser]:
    """Run Chromium with a profile of its own; it has ended when this is left."""
    assert CHROMIUM is not None
    commands_out, commands = os.pipe()
    answers, answers_in = os.pipe()
    # Chromium reads commands from 3 and answers on 4; the shell puts the pipes there.
    flags = [
        "--headless=new",
        "--remote-debugging-pipe",
        f"--user-data-dir={folder}",
        "--disable-gpu",
        "--disable-dev-shm-usage",
        "--disable-background-networking",
        "--no-first-run",
        "--hide-scrollbars",
        *(["--no-sandbox"] if os.geteuid() == 0 else []),
    ]
    place = f'exec "$0" "$@" 3<&{commands_out} 4>&{answers_in}'
    child = subprocess.Popen(
        ["/bin/bash", "-c", place, CHROMIUM, *flags],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        pass_fds=(commands_out, answers_in),
    )
    os.close(commands_out)
    os.close(answers_in)
    browser = Browser(commands, answers)
    try:
        yield browser
    finally:
        with contextlib.suppress(RuntimeError, OSError):
            browser.send("Browser.close")
        os.close(commands)
        try:
            child.wait(timeout=10)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()
        os.close(answers)
