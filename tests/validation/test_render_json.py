"""The JSON keeps to its schema, loses nothing, and the journal gets the same reports back."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from converter.errors import FormatError
from converter.findings import Finding
from converter.validation.render_json import render_json, report_from_json, report_to_json
from converter.validation.report import CheckResult, Report, Series
from tests.conftest import REPOSITORY
from tests.validation.made import HOSTILE, made

SCHEMA = json.loads((REPOSITORY / "docs" / "validate.schema.json").read_text())


def validate(document: object) -> None:
    import jsonschema

    jsonschema.Draft202012Validator.check_schema(SCHEMA)
    jsonschema.validate(document, SCHEMA, cls=jsonschema.Draft202012Validator)


def odd() -> Report:
    """Numbers and names that JSON does not have."""
    finding = Finding("x", "warning", "a\udcff", HOSTILE, math.nan, math.inf, "px")
    return replace(
        made(1), path="b\udcff\x00", name=HOSTILE, seconds=math.nan,
        results=(CheckResult("x", "found", (finding,), n_examined=3, frame_ids=(1, 5)),),
    )  # fmt: skip


def test_it_keeps_to_its_schema() -> None:
    document = json.loads(render_json([made(k) for k in range(42)] + [odd()], complete=False))
    validate(document)
    assert document["complete"] is False
    assert len(document["tracks"]) == 43
    summary = document["summary"]
    assert summary["n_with_errors"] + summary["n_with_warnings_only"] + summary["n_fine"] == 43
    assert summary["n_tracks_by_check"]["jitter"] == 13
    assert summary["n_unreadable"] == 1
    assert document["tracks"][-1]["checks"][0]["findings"][0]["measured"] is None
    validate(json.loads(render_json([])))


def test_every_key_that_is_written_is_in_the_schema() -> None:
    """So that a new key is described, although readers may ignore it."""
    document = json.loads(render_json([made(0), odd()]))
    places = {"track": [], "check": [], "finding": []}  # type: dict[str, list[dict[str, object]]]
    places["track"] = document["tracks"]
    places["check"] = [c for t in document["tracks"] for c in t["checks"]]
    places["finding"] = [f for c in places["check"] for f in c["findings"]]  # type: ignore[attr-defined]
    for name, found in places.items():
        assert found
        for value in found:
            assert set(value) == set(SCHEMA["$defs"][name]["properties"]) - {"fix"} | (
                set(value) & {"fix"}
            )
            assert set(value) == set(SCHEMA["$defs"][name]["required"])


@pytest.mark.parametrize("key", ["kind", "worst", "counts", "checks"])
def test_the_schema_refuses_what_it_should(key: str) -> None:
    import jsonschema

    document = json.loads(render_json([made(0)]))
    document["tracks"][0][key] = "terrible"
    with pytest.raises(jsonschema.ValidationError):
        validate(document)


def test_a_report_comes_back_as_it_was() -> None:
    for number in (0, 3, 39):
        before = made(number)
        content = json.loads(json.dumps(report_to_json(before, illustrated=True), allow_nan=False))
        after = report_from_json(content, "journal:1")
        assert replace(after, series=(), pictures=()) == replace(before, series=(), pictures=())
        assert after.pictures == before.pictures
        for a, b in zip(after.series, before.series, strict=True):
            assert (a.name, a.unit, a.labels, a.marked) == (b.name, b.unit, b.labels, b.marked)
            np.testing.assert_array_equal(a.frame_ids, b.frame_ids)
            np.testing.assert_array_equal(a.values, b.values)


def test_values_that_are_not_known_come_back_as_nan() -> None:
    series = Series("x", "", np.arange(2), np.array([[1.0, np.nan], [np.inf, 2.0]]), ("a", "b"))
    content = json.loads(json.dumps(report_to_json(replace(made(1), series=(series,)),
                                                   illustrated=True)))  # fmt: skip
    (after,) = report_from_json(content, "x").series
    np.testing.assert_array_equal(after.values, [[1, np.nan], [np.nan, 2]])


@pytest.mark.parametrize(
    "content",
    [None, [], {}, {"path": "x"}, {**report_to_json(made(0)), "checks": [{"check": 1}]},
     {**report_to_json(made(0)), "facts": 3},
     {**report_to_json(made(0)), "pictures": [{"caption": "", "jpeg": "!!"}]},
     {**report_to_json(made(0)), "series": [{"values": [1], "shape": [2, 2]}]}],
)  # fmt: skip
def test_a_damaged_journal_line_is_no_report(content: object) -> None:
    with pytest.raises(FormatError, match="journal:7"):
        report_from_json(content, "journal:7")


def test_the_document_names_the_schema_of_the_docs(fixtures_dir: Path) -> None:
    del fixtures_dir
    document = json.loads(render_json([]))
    assert document["schema"] == SCHEMA["properties"]["schema"]["const"]
    assert document["schema_version"] == SCHEMA["properties"]["schema_version"]["const"]
