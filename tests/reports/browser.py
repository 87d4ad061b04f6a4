"""A headless browser that opens pages from files, and what it complained about."""

import importlib.util
import os
import shutil
import time
from contextlib import contextmanager

import pytest

REQUIRED = "DEPTHBAL_REQUIRE_BROWSER"
"""Set to 1, a missing browser is a failure and not a reason to skip."""

ARGUMENTS = (
    "--headless",
    "--no-sandbox",  # the sandbox refuses to start for root, who runs tests in containers
    "--hide-scrollbars",
)


def require_browser() -> None:
    """Skip the test, with the reason, where pages cannot be opened; fail where that is required."""
    missing = None
    if not importlib.util.find_spec("selenium"):
        missing = "selenium is not installed (pip install -e '.[test]')"
    elif not (shutil.which("chromium") and shutil.which("chromedriver")):
        missing = "chromium or chromedriver is not installed (apt-get install chromium-driver)"
    if missing and os.environ.get(REQUIRED) == "1":
        pytest.fail(f"{REQUIRED}=1, but {missing}")
    if missing:
        pytest.skip(missing)


@contextmanager
def started_browser(profile):
    """Yield a selenium driver of Chromium with a fresh profile folder."""
    from selenium import webdriver
    from selenium.webdriver.chrome.service import Service

    options = webdriver.ChromeOptions()
    options.binary_location = shutil.which("chromium")
    for argument in (*ARGUMENTS, f"--user-data-dir={profile}"):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = webdriver.Chrome(options=options, service=Service(shutil.which("chromedriver")))
    driver.set_page_load_timeout(60)
    try:
        yield driver
    finally:
        driver.quit()


def wait_until(condition, seconds=30.0):
    """Return the first true result of a condition."""
    end = time.monotonic() + seconds
    while True:
        found = condition()
        if found:
            return found
        assert time.monotonic() < end, "the page did not get there in time"
        time.sleep(0.05)


class Page:
    """A report in the browser, as a reader uses it."""

    def __init__(self, driver, path) -> None:
        self.driver = driver
        self.size(1200)  # whatever the last test left
        driver.get(path.as_uri())
        wait_until(lambda: self.run("return document.documentElement.dataset.ready"))

    def run(self, script, *arguments):
        return self.driver.execute_script(script, *arguments)

    def element(self, css):
        return self.driver.find_element("css selector", css)

    def elements(self, css):
        return self.driver.find_elements("css selector", css)

    def complaints(self):
        """Return what the console shows above the level of information."""
        return [e for e in self.driver.get_log("browser") if e["level"] in ("WARNING", "SEVERE")]

    def size(self, width, height=900):
        override = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600}
        self.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", override)

    def choose(self, name, value):
        """Choose an option of a selector by its value."""
        from selenium.webdriver.support.ui import Select

        Select(self.element(f"#select-{name}")).select_by_value(value)

    def draw_all(self):
        """Scroll through the page, so that every figure is drawn."""
        for figure in self.elements("[data-figure]"):
            self.draw(figure.get_attribute("data-figure"))

    def draw(self, name):
        """Scroll to a figure, wait until it is drawn, and return its plot."""
        plot = self.element(f"#figure-{name} .plot")
        self.run("arguments[0].scrollIntoView({block: 'center'})", plot)
        wait_until(lambda: plot.find_elements("css selector", ".nsewdrag"))
        return plot

    def click_label(self, name, label):
        """Click into a figure where its axis shows a label."""
        from selenium.webdriver.common.action_chains import ActionChains

        plot = self.draw(name)
        x, y = self.run(
            "const {xaxis, yaxis} = arguments[0]._fullLayout;"
            "return [xaxis._offset + xaxis.d2p(arguments[1]) - arguments[0].clientWidth / 2,"
            " yaxis._offset + yaxis._length / 2 - arguments[0].clientHeight / 2]",
            plot,
            label,
        )
        mouse = ActionChains(self.driver).move_to_element_with_offset(plot, x - 2, y)
        mouse.move_to_element_with_offset(plot, x, y).pause(0.1).click().perform()

    def shown_numbers(self, run=0):
        """Return {metric: number} of the panel of the chosen bin."""
        row = f'#bin-table tbody tr[data-run="{run}"] td'
        return {
            cell.get_attribute("data-metric"): float(cell.get_attribute("data-value"))
            for cell in self.elements(row)
            if cell.get_attribute("data-value")
        }
