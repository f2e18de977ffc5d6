"""The report in a real browser, driven over the WebDriver protocol; skipped where Chromium is absent."""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from crossfade.evaluation.result import Evaluation
from crossfade.report import Hit, ReportPaths, SampleSearch, write_report
from crossfade.spaces import Space

CHROMIUM, DRIVER = shutil.which("chromium"), shutil.which("chromedriver")
FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
pytestmark = pytest.mark.skipif(
    CHROMIUM is None or DRIVER is None,
    reason="no chromium and chromedriver on the path (Debian: apt-get install chromium chromium-driver)",
)


class Browser:
    """One browser session: JSON over HTTP to chromedriver."""

    def __init__(self, port: int, profile: Path) -> None:
        self.base = f"http://127.0.0.1:{port}"
        # The driver is on this machine: no proxy from the environment may come between.
        self.opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        options = {"binary": CHROMIUM, "args": [*FLAGS, f"--user-data-dir={profile}"]}
        wanted = {
            "browserName": "chrome",
            "goog:chromeOptions": options,
            "goog:loggingPrefs": {"browser": "ALL", "performance": "ALL"},
        }
        session = self.call("POST", "/session", capabilities={"alwaysMatch": wanted})
        self.session = f"/session/{session['sessionId']}"

    def call(self, method: str, path: str, **body: Any) -> Any:
        data = json.dumps(body).encode() if method == "POST" else None
        request = urllib.request.Request(
            self.base + path, data, {"Content-Type": "application/json"}, method=method
        )
        with self.opener.open(request, timeout=60) as answer:
            return json.load(answer)["value"]

    def open(self, path: Path, width: int, *, dark: bool = False) -> None:
        self.devtools(
            "Emulation.setDeviceMetricsOverride", width=width, height=900, deviceScaleFactor=1, mobile=False
        )
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.devtools("Emulation.setEmulatedMedia", features=[scheme])
        self.call("POST", f"{self.session}/url", url=path.as_uri())

    def reach(self) -> int:
        """How far to the right the page reaches, in pixels."""
        return int(self.evaluate("document.documentElement.scrollWidth"))

    def devtools(self, command: str, **params: Any) -> None:
        self.call("POST", f"{self.session}/goog/cdp/execute", cmd=command, params=params)

    def evaluate(self, expression: str) -> Any:
        return self.call("POST", f"{self.session}/execute/sync", script=f"return {expression}", args=[])

    def log(self, kind: str) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = self.call("POST", f"{self.session}/se/log", type=kind)
        return found

    def close(self) -> None:
        self.call("DELETE", self.session)


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    process = subprocess.Popen(
        [str(DRIVER), f"--port={port}"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        _wait_for(port)
        opened = Browser(port, tmp_path_factory.mktemp("profile"))
        yield opened
        opened.close()
    finally:
        process.terminate()
        process.wait(timeout=20)


def _wait_for(port: int) -> None:
    for _ in range(200):
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
            return
        except OSError:
            time.sleep(0.05)
    pytest.fail(f"chromedriver did not open port {port} within ten seconds")


@pytest.mark.parametrize("width", [390, 1280])
def test_page_renders_within_its_width_without_errors(
    browser: Browser, report: ReportPaths, width: int
) -> None:
    browser.log("browser")
    browser.open(report.html, width)
    assert browser.evaluate("window.innerWidth") == width
    assert browser.evaluate("document.querySelector('h1').textContent") == "Search in two stages"
    assert browser.reach() <= width
    assert browser.evaluate("[...document.images].every(image => image.naturalWidth > 0)")
    assert browser.log("browser") == []


def test_tables_fit_a_desktop_without_scrolling(browser: Browser, report: ReportPaths) -> None:
    browser.open(report.html, 1280)
    hidden = "[...document.querySelectorAll('.scroll')].map(box => box.scrollWidth - box.clientWidth)"
    assert max(browser.evaluate(hidden)) <= 0


@pytest.mark.parametrize("width", [390, 1280])
def test_words_without_a_break_stay_within_the_page(
    browser: Browser, evaluation: Evaluation, tmp_path: Path, width: int
) -> None:
    word = "x" * 300
    task = evaluation.tasks[0]
    rows = tuple(replace(row, title=word, notation=word, note=word) for row in task.rows)
    verdict = replace(evaluation.verdict, sentence=word, reasons=(word,), strategy=word)
    facts = [(word, word)]
    long = replace(
        evaluation,
        tasks=(replace(task, name=word, ground_truth=word, rows=rows),),
        verdict=verdict,
        old=Space(word, 8),
    )
    searches = [SampleSearch(word, None, [(word, [Hit(word, word, None, True, 1.0)])])]
    paths = write_report(
        long, tmp_path, samples=searches, plan=facts, history=facts, commands=[("crossfade " + word, word)]
    )
    browser.open(paths.html, width)
    assert browser.reach() <= width


@pytest.mark.parametrize(("width", "form"), [(390, "narrow"), (1280, "wide")])
def test_one_form_of_each_plot_is_shown(browser: Browser, report: ReportPaths, width: int, form: str) -> None:
    browser.open(report.html, width)
    shown = (
        "[...document.querySelectorAll('svg.plot')].filter(plot => plot.getBoundingClientRect().width > 0)"
    )
    assert browser.evaluate(f"{shown}.every(plot => plot.classList.contains('{form}'))")
    assert browser.evaluate(f"{shown}.length") == 4


def test_nothing_is_requested_but_the_page_itself(browser: Browser, report: ReportPaths) -> None:
    browser.log("performance")
    browser.open(report.html, 1280)
    sent = [json.loads(entry["message"])["message"] for entry in browser.log("performance")]
    addresses = {m["params"]["request"]["url"] for m in sent if m["method"] == "Network.requestWillBeSent"}
    assert {address for address in addresses if not address.startswith("data:")} == {report.html.as_uri()}


@pytest.mark.parametrize("dark", [False, True])
def test_text_has_enough_contrast(browser: Browser, report: ReportPaths, dark: bool) -> None:
    browser.open(report.html, 1280, dark=dark)
    poor = browser.evaluate(f"({CONTRAST})()")
    assert poor == []


# WCAG 2.1: relative luminance, and the ratio of text to the nearest opaque background (at least 4.5).
CONTRAST = """() => {
  const parts = color => color.match(/[\\d.]+/g).map(Number);
  const light = color => {
    const [r, g, b] = parts(color).slice(0, 3).map(v => v / 255)
      .map(v => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const behind = node => {
    for (let at = node; at; at = at.parentElement) {
      const color = getComputedStyle(at).backgroundColor;
      if ((parts(color)[3] ?? 1) === 1) return color;
    }
    return 'rgb(255, 255, 255)';
  };
  const poor = [];
  const own = node => [...node.childNodes].some(child => child.nodeType === 3 && child.data.trim());
  for (const node of [...document.querySelectorAll('body *')].filter(own)) {
    const style = getComputedStyle(node);
    const color = node instanceof SVGElement ? style.fill : style.color;
    const [a, b] = [light(color), light(behind(node))].sort((x, y) => y - x);
    const ratio = (a + 0.05) / (b + 0.05);
    if (ratio < 4.5) poor.push(`${node.textContent.trim().slice(0, 40)}: ${ratio.toFixed(2)}`);
  }
  return [...new Set(poor)];
}"""
