"""The page holds everything, escapes everything, and stays bounded. See also test_browser.py."""

from __future__ import annotations

import base64
import json
import re
from dataclasses import replace
from html.parser import HTMLParser
from typing import Any

import numpy as np
import pytest

from converter.findings import Finding
from converter.validation import render_html as module
from converter.validation.render_html import render_html, thinned
from converter.validation.report import CheckResult, Picture, Report, Series
from tests.validation.made import HOSTILE, made, picture


class Page(HTMLParser):
    """Elements of a page, and what its data scripts hold."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.data: list[Any] = []
        self.text = ""
        self._in_data = False
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        self._in_data = tag == "script" and dict(attrs).get("type") == "application/json"

    def handle_data(self, data: str) -> None:
        if self._in_data:
            self.data.append(json.loads(data))
            self._in_data = False
        self.text += data

    def count(self, tag: str) -> int:
        return sum(name == tag for name, _ in self.elements)


def hostile() -> Report:
    """Every text that can come out of a file says something that would run."""
    finding = Finding(HOSTILE, "error", HOSTILE, HOSTILE, 1.0, 2.0, HOSTILE, HOSTILE)
    series = Series(HOSTILE, HOSTILE, np.arange(3), np.ones((3, 2)), (HOSTILE, HOSTILE),
                    ((1, HOSTILE),))  # fmt: skip
    return Report(
        HOSTILE, HOSTILE, "track", HOSTILE, 3, {HOSTILE: HOSTILE},
        (CheckResult(HOSTILE, "found", (finding,)), CheckResult("s", "skipped", reason=HOSTILE),
         CheckResult(HOSTILE, "passed")),
        (series,), (Picture(HOSTILE, picture(0)),),
    )  # fmt: skip


@pytest.mark.parametrize("reports", [[hostile()], [hostile(), made(0), made(39)]])
def test_nothing_that_a_file_says_becomes_an_element(reports: list[Report]) -> None:
    text = render_html(reports, title=HOSTILE)
    page = Page(text)
    calm = [
        replace(made(0), series=r.series, pictures=r.pictures, results=r.results) for r in reports
    ]
    expected = Page(render_html(calm))
    for tag in ("script", "img", "svg", "iframe", "link", "style"):
        assert page.count(tag) == expected.count(tag)
    assert not [a for _, a in page.elements if any(name.startswith("on") for name in a)]
    assert "<script>document" not in text
    assert text.count("owned") > 20


def test_the_page_names_nothing_outside_itself() -> None:
    page = Page(render_html([made(0), made(3)]))
    for _, attributes in page.elements:
        for name in ("src", "href", "action", "data", "poster", "srcset"):
            assert (attributes.get(name) or "data:").startswith("data:image/jpeg;base64,") or (
                attributes.get(name) is None
            )
    policy = next(a["content"] for _, a in page.elements if a.get("http-equiv"))
    assert policy is not None
    assert policy.startswith("default-src 'none'")
    (script,) = [a for t, a in page.elements if t == "script" and a.get("type") is None]
    assert f"script-src 'nonce-{script['nonce']}';" in policy


def test_the_nonce_depends_on_what_the_page_says() -> None:
    nonces = {re.search("nonce-([0-9a-f]{32})", render_html([made(k)])).group(1) for k in (0, 1)}  # type: ignore[union-attr]
    assert len(nonces) == 2


def test_the_same_reports_give_the_same_page() -> None:
    assert render_html([made(0), made(1)]) == render_html([made(0), made(1)])


def test_without_series_the_plotting_library_stays_away() -> None:
    assert len(render_html([made(k, illustrated=False) for k in range(3)])) < 60_000


def test_a_name_that_is_no_text_is_escaped() -> None:
    render_html([replace(made(1), path="a\udcff", name="\udcff")]).encode("utf-8")


def test_an_empty_run_is_a_page() -> None:
    assert "Validation of 0 tracks" in render_html([])
    assert "interrupted" in render_html([], complete=False)


# --- bounds -----------------------------------------------------------------------------------


def test_pictures_of_many_tracks_are_bounded_and_the_worst_keep_theirs(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "PICTURE_BYTES", 400_000)
    reports = [made(k) for k in range(1, 31)]
    page = Page(render_html(reports))
    uris = [a["src"] or "" for t, a in page.elements if t == "img"]
    sizes = [len(base64.b64decode(uri.split(",", 1)[1])) for uri in uris]
    assert sum(sizes) <= 400_000
    worst = max(reports, key=lambda r: (r.count("error"), r.count("warning")))
    assert sizes[0] == len(worst.pictures[0].jpeg)  # whole
    assert sizes[-1] < sizes[0] / 3  # reduced
    assert "Reduced, to keep the page" in page.text
    assert "Left out, to keep the page" in page.text


def test_a_picture_that_cannot_be_decoded_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "PICTURE_BYTES", 100_000)
    broken = replace(made(1), pictures=(Picture("broken", b"\xff\xd8broken"), made(1).pictures[1]))
    page = Page(render_html([made(0), broken]))
    assert [a["alt"] for t, a in page.elements if t == "img"] == [
        *(p.caption for p in made(0).pictures),
        made(1).pictures[1].caption,
    ]


def floats(text: str, kind: str) -> np.ndarray[Any, Any]:
    return np.frombuffer(base64.b64decode(text), kind)


def test_plots_hold_the_numbers_and_break_at_gaps() -> None:
    report = made(3)
    (data,) = Page(render_html([report])).data
    error = data["series"][-1]
    frames, values = (
        floats(data["frames"][error["frames"]], "<f8"),
        floats(error["columns"][0], "<f4"),
    )
    known = np.isfinite(values)
    np.testing.assert_array_equal(frames[known], report.series[-1].frame_ids)
    np.testing.assert_allclose(values[known], report.series[-1].values, rtol=1e-6)
    assert frames[~known].tolist() == [40]  # 40 to 51 are missing
    assert error["ranges"] == [[70, 72, "jitter", "warning"], [12, 12, "jitter", "warning"]]
    assert data["note"] == ""


def test_columns_far_apart_are_drawn_about_their_medians() -> None:
    (data,) = Page(render_html([made(3)])).data
    translation = data["series"][3]
    assert translation["labels"][2].startswith("z − 17")
    assert abs(np.nanmedian(floats(translation["columns"][2], "<f4"))) < 1e-3
    assert data["series"][2]["labels"] == ["yaw", "pitch", "roll"]


def test_long_series_keep_every_extreme() -> None:
    rng = np.random.default_rng(0)
    values = rng.normal(size=(100_000, 2))
    spikes = rng.choice(100_000, 20, replace=False)
    values[spikes, rng.integers(0, 2, 20)] = 50
    values[500:700] = np.nan
    kept = thinned(values, 5000)
    assert len(kept) <= 5100
    assert set(spikes[np.isfinite(values[spikes]).any(axis=1)]) <= set(kept)
    assert np.isnan(values[kept]).any()
    np.testing.assert_array_equal(thinned(values[:100], 5000), np.arange(100))


def test_many_tracks_stay_small() -> None:
    """The bound of the numbers: tracks of 5000 frames, a hundred of them."""
    reports = [replace(made(k, n_frames=5000), pictures=()) for k in range(100)]
    text = render_html(reports)
    assert len(text) < 12e6
    assert "every extreme is among them" in text
