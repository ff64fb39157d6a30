"""A real Chromium for tests of pages, and what they measure in it."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from selenium.webdriver import Chrome

CONTRAST_AA = 4.5  # WCAG 2.2, 1.4.3: text of any size

CONTRASTS = """
const parts = (color) => {
  const numbers = color.match(/[\\d.]+/g).map(Number);
  return color.startsWith("color(") ? numbers.map((number, i) => (i < 3 ? 255 * number : number)) : numbers;
};
const luminance = (color) => parts(color).slice(0, 3)
  .map((part) => part / 255)
  .map((part) => (part <= 0.04045 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4))
  .reduce((sum, part, i) => sum + part * [0.2126, 0.7152, 0.0722][i], 0);
const behind = (element) => {
  const color = getComputedStyle(element).backgroundColor;
  return element.parentElement && parts(color)[3] === 0 ? behind(element.parentElement) : color;
};
const ink = (element) => getComputedStyle(element)[element instanceof SVGElement ? "fill" : "color"];
const ownText = (element) => [...element.childNodes].some((node) => node.nodeType === 3 && node.data.trim());
return [...document.querySelectorAll("body *:not(title, desc)")]
  .filter((element) => element.checkVisibility() && (ownText(element) || element.value))
  .map((element) => {
    const [a, b] = [ink(element), behind(element)].map(luminance);
    return [(Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05), element.outerHTML.slice(0, 80)];
  });
"""
"""[contrast, element] of every element that shows text, by WCAG's formula of relative luminance."""


@contextmanager
def chromium() -> Iterator[Chrome]:
    """A browser without a window; the test is skipped where there is none."""
    # Not needed to collect the tests, and missing on machines that test only the reranker.
    webdriver = pytest.importorskip("selenium.webdriver", reason="selenium is not installed (group `test`)")
    browser, chromedriver = shutil.which("chromium"), shutil.which("chromedriver")
    if not (browser and chromedriver):
        pytest.skip("Chromium is not installed: apt-get install chromium chromium-driver")
    options = webdriver.ChromeOptions()
    options.binary_location = browser
    # As root, and with the small /dev/shm of a container.
    for argument in ("--headless=new", "--no-sandbox", "--disable-dev-shm-usage", "--disable-background-networking"):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    chrome = webdriver.Chrome(options=options, service=webdriver.ChromeService(chromedriver))
    yield chrome
    chrome.quit()


def emulate(driver: Chrome, width: int = 1000, color_scheme: str = "light", motion: str = "reduce") -> None:
    """Another screen or another reader's settings; motion is off unless a test is about it."""
    features = {"prefers-color-scheme": color_scheme, "prefers-reduced-motion": motion}
    pairs = [{"name": name, "value": value} for name, value in features.items()]
    driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": pairs})
    screen = {"width": width, "height": 800, "deviceScaleFactor": 1, "mobile": width < 600}
    driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", screen)
