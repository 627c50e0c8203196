"""A real Chromium that opens pages from files, and tells all that it asked for and complained about."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

import axe
from selenium import webdriver
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.keys import Keys

CHROMIUM: Final = "/usr/bin/chromium"
DRIVER: Final = "/usr/bin/chromedriver"
OPTIONS: Final = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-dev-shm-usage",
)
TAB: Final = Keys.TAB
ENTER: Final = Keys.ENTER


@dataclass(frozen=True)
class Browser:
    """One window of Chromium."""

    driver: webdriver.Chrome

    def open(self, page: Path, *, width: int = 1200, dark: bool = False, hash: str = "") -> None:  # noqa: A002
        """Open a page at this width, in light or dark colours."""
        metrics = {"width": width, "height": 800, "deviceScaleFactor": 1, "mobile": False}
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
        self.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [scheme]})
        self.driver.get("about:blank")
        for kind in ("browser", "performance"):
            self._log(kind)  # what was there is not this page's
        self.driver.get(f"{page.as_uri()}{hash}")

    def js(self, script: str, *arguments: Any) -> Any:
        """What a function body of JavaScript returns, run in the page."""
        return self.driver.execute_script(script, *arguments)

    def press(self, *keys: str) -> None:
        """Press keys, one after the other."""
        ActionChains(self.driver).send_keys(*keys).perform()

    def _log(self, kind: str) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = self.driver.get_log(kind)  # type: ignore[no-untyped-call]
        return found

    def complaints(self) -> list[str]:
        """What stands in the console: errors of scripts, and what the content security policy stopped."""
        return [entry["message"] for entry in self._log("browser")]

    def requests(self) -> list[str]:
        """All addresses that were asked for since the page was opened, but those of data in the page."""
        messages = [json.loads(entry["message"])["message"] for entry in self._log("performance")]
        found = [
            message["params"]["request"]["url"]
            for message in messages
            if message["method"] == "Network.requestWillBeSent"
        ]
        return [url for url in found if not url.startswith("data:")]

    def accessibility(self) -> list[str]:
        """What the accessibility checker finds, with all details of the page open."""
        self.js("for (const it of document.querySelectorAll('details')) it.open = true")
        self.driver.execute_cdp_cmd("Runtime.evaluate", {"expression": axe.source()})
        found = self.driver.execute_async_script(
            "const done = arguments[0]; axe.run(document).then((it) => done(it.violations.map((one) =>"
            " `${one.id}: ${one.help}: ${one.nodes.map((node) => node.html.slice(0, 150)).slice(0, 3).join(' | ')}`)))"
        )
        assert isinstance(found, list)
        return found


@contextmanager
def chromium() -> Iterator[Browser]:
    """Start Chromium with a profile of its own, and end it."""
    with TemporaryDirectory(prefix="runnable-chromium-", ignore_cleanup_errors=True) as profile:
        options = webdriver.ChromeOptions()
        options.binary_location = CHROMIUM
        for option in (*OPTIONS, f"--user-data-dir={profile}"):
            options.add_argument(option)
        options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
        driver = webdriver.Chrome(options=options, service=Service(DRIVER))
        driver.set_script_timeout(120)
        try:
            yield Browser(driver)
        finally:
            driver.quit()
