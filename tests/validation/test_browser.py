"""The page in a real browser: it draws, sorts, filters, runs nothing it should not, asks nobody."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from converter.validation.render_html import render_html
from tests.validation.made import HOSTILE, made
from tests.validation.test_render_html import hostile

webdriver = pytest.importorskip("selenium.webdriver", reason="selenium is not installed")

_BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
_DRIVERS = ("chromedriver", "chromium.chromedriver")


def _program(names: tuple[str, ...]) -> str:
    found = next((path for name in names if (path := shutil.which(name))), None)
    if found is None:
        pytest.skip(f"none of {', '.join(names)} is installed")
    return found


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """A headless Chromium that records its network traffic."""
    from selenium.webdriver.chrome.service import Service

    options = webdriver.ChromeOptions()
    options.binary_location = _program(_BROWSERS)
    for argument in ("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage",
                     "--hide-scrollbars"):  # fmt: skip
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    driver = webdriver.Chrome(options=options, service=Service(_program(_DRIVERS)))
    driver.set_script_timeout(60)
    yield driver
    driver.quit()


Show = Callable[..., Any]


@pytest.fixture
def show(browser: Any, tmp_path: Path) -> Show:
    """Open a page of reports at a width; returns the driver."""

    def open_page(reports: list[Any], width: int = 1400, fragment: str = "") -> Any:
        path = tmp_path / "report.html"
        path.write_text(render_html(reports), encoding="utf-8")
        browser.execute_cdp_cmd(
            "Emulation.setDeviceMetricsOverride",
            {"width": width, "height": 1000, "deviceScaleFactor": 1, "mobile": width < 500},
        )
        browser.get("about:blank")
        for kind in ("browser", "performance"):
            browser.get_log(kind)  # what was before
        browser.get(path.as_uri() + fragment)
        return browser

    return open_page


def wait_for(driver: Any, script: str, seconds: float = 60) -> Any:
    end = time.monotonic() + seconds
    while not (value := driver.execute_script(f"return {script}")):
        assert time.monotonic() < end, f"never: {script}"
        time.sleep(0.05)
    return value


DRAWN = "Array.from(document.querySelectorAll('.detail')).some(d => d.dataset.drawn)"


def assert_calm(driver: Any, path: str = "file://") -> None:
    """No complaint on the console, and no request but for the page itself."""
    assert driver.get_log("browser") == []
    urls = []
    for entry in driver.get_log("performance"):
        message = json.loads(entry["message"])["message"]
        if message["method"] == "Network.requestWillBeSent":
            urls.append(message["params"]["request"]["url"])
    assert urls, "the record of requests is empty"
    assert [u for u in urls if not u.startswith((path, "data:", "blob:"))] == []
    assert sum(u.startswith("file://") for u in urls) == 1


def visible(driver: Any) -> list[str]:
    script = (
        "return Array.from(document.querySelectorAll('tbody')).filter(b => b.offsetParent !== null"
        " && !b.hidden).map(b => b.querySelector('.opener').textContent)"
    )
    found: list[str] = driver.execute_script(script)
    return found


def click(driver: Any, selector: str) -> None:
    driver.execute_script(f"document.querySelector({json.dumps(selector)}).click()")


@pytest.mark.parametrize("width", [1400, 390])
def test_one_track_is_open_with_its_pictures_and_plots(show: Show, width: int) -> None:
    driver = show([made(0)], width)
    wait_for(driver, DRAWN)
    assert driver.execute_script("return document.querySelectorAll('.plot .main-svg').length") >= 5
    loaded = "Array.from(document.images).every(i => i.complete && i.naturalWidth > 0)"
    assert driver.execute_script(f"return document.images.length === 2 && {loaded}")
    # A line with as many points as there are frames, and marks where the checks found something.
    points = "document.querySelectorAll('.plot')[4].data.map(t => t.x.length)"
    assert driver.execute_script(f"return {points}") == [189, 2]
    assert "jitter (70–72)" in driver.execute_script(
        "return document.querySelectorAll('.plot')[4].data[1].text"
    )
    # Nothing is wider than the window.
    assert driver.execute_script("return document.documentElement.scrollWidth") <= width
    assert_calm(driver)


def test_the_plots_offer_no_way_to_send_data_away(show: Show) -> None:
    driver = show([made(0)])
    wait_for(driver, DRAWN)
    titles = driver.execute_script(
        "return Array.from(document.querySelectorAll('.modebar-btn')).map(b => b.dataset.title)"
    )
    assert set(titles) == {"Download plot as a PNG", "Zoom", "Pan", "Reset axes"}
    assert driver.execute_script("return document.querySelectorAll('a[href]').length") == 0


def test_zooming_one_plot_shows_the_same_frames_in_all(show: Show) -> None:
    driver = show([made(0)])
    wait_for(driver, DRAWN)
    driver.execute_script(
        "Plotly.relayout(document.querySelectorAll('.plot')[0],"
        " {'xaxis.range[0]': 20, 'xaxis.range[1]': 30})"
    )
    wait_for(driver, "document.querySelectorAll('.plot')[4].layout.xaxis.range[1] === 30")


@pytest.mark.parametrize("width", [1400, 390])
def test_five_hundred_tracks_sort_and_filter(show: Show, width: int) -> None:
    driver = show([made(k, n_frames=60 + k) for k in range(500)], width)
    wait_for(driver, "document.getElementById('shown').textContent === '500 tracks'", 20)
    timing = "performance.getEntriesByType('navigation')[0].domInteractive"
    assert driver.execute_script(f"return {timing}") < 20_000
    assert len(visible(driver)) == 500
    assert driver.execute_script("return document.querySelectorAll('.detail').length") == 0
    assert driver.execute_script("return document.documentElement.scrollWidth") <= width

    if width > 800:
        click(driver, "button[data-sort=frames]")
    else:
        driver.execute_script(
            "const s = document.getElementById('sort'); s.value = 'frames';"
            "s.dispatchEvent(new Event('change'))"
        )
    assert visible(driver)[0] == "actor_499"
    click(driver, "button[data-sort=frames]")
    assert visible(driver)[0] == "actor_039"
    click(driver, "button[data-sort=name]")
    assert visible(driver)[:2] == ["actor_000", "actor_001"]

    click(driver, ".tile.error")
    assert len(visible(driver)) == 82
    assert driver.execute_script("return document.getElementById('shown').textContent") == (
        "82 of 500 tracks"
    )
    search = (
        "const s = document.getElementById('search'); s.value = arguments[0];"
        "s.dispatchEvent(new Event('input'))"
    )
    driver.execute_script(search, "session_01/")
    assert visible(driver) == ["actor_028", "actor_035", "actor_039", "actor_042", "actor_049"]
    driver.execute_script(search, "no such thing")
    assert visible(driver) == []
    assert driver.execute_script("return !document.getElementById('nothing').hidden")
    driver.execute_script(search, "torch.save file")  # only the findings say it
    assert len(visible(driver)) == 12
    driver.execute_script(search, "")
    click(driver, ".tile[data-worst='']")
    driver.execute_script(
        "const s = document.getElementById('check'); s.value = 'jitter';"
        "s.dispatchEvent(new Event('change'))"
    )
    assert len(visible(driver)) == 163

    click(driver, "tbody:not([hidden]) .opener")
    wait_for(driver, DRAWN)
    click(driver, "tbody:not([hidden]) .opener")
    assert driver.execute_script("return document.querySelector('.detail').hidden")
    assert_calm(driver)


def test_a_link_opens_its_track(show: Show) -> None:
    driver = show([made(k) for k in range(50)], fragment="#track-5")
    wait_for(driver, DRAWN)
    top = "document.getElementById('track-5').getBoundingClientRect().top"
    assert 0 <= driver.execute_script(f"return {top}") < 1000


@pytest.mark.parametrize("others", [[], [made(0), made(1)]])
def test_names_that_would_run_are_shown_and_do_not(show: Show, others: list[Any]) -> None:
    driver = show([hostile(), *others])
    if others:
        openers = "Array.from(document.querySelectorAll('.opener'))"
        driver.execute_script(f"{openers}.find(o => o.textContent.includes('owned')).click()")
    wait_for(driver, DRAWN)
    # Hovering shows the library's own labels: these are the last way in.
    driver.execute_script(
        "Plotly.Fx.hover(document.querySelector('.plot'), [{curveNumber: 0, pointNumber: 1}])"
    )
    wait_for(driver, "document.querySelectorAll('.hoverlayer *').length")
    # Plotly would drop what it takes for a tag: what is shown is the name, letter by letter.
    assert HOSTILE in wait_for(driver, "document.querySelector('.plot .gtitle').textContent")
    assert driver.execute_script("return document.querySelectorAll('.plot a').length") == 0
    assert driver.title.startswith("Validation of")
    assert driver.execute_script("return document.querySelectorAll('img[src=\"x\"]').length") == 0
    assert "document.title='owned'" in driver.execute_script("return document.body.textContent")
    assert_calm(driver)
