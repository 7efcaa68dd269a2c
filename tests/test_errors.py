"""Errors: one root, one line, and nothing in them that a terminal or rich would obey."""

from __future__ import annotations

import copy
import pickle

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.text import Text

from converter import errors
from converter.errors import ConventionError, MissingInputError, UncropError, printable
from converter.findings import Finding

CLASSES = [
    value
    for value in vars(errors).values()
    if isinstance(value, type) and issubclass(value, UncropError)
]
HOSTILE = [
    "a\nb",
    "a\r\x1b[2Kb",
    "\x1b]0;title\x07",
    "\x1b[31mred",
    "\x9b31m",
    "\x00",
    "\x7f",
    "\u202etxt.exe",
    "\u2028",
    "\ud800",
    "name\udcff.frame",
]
# Every code point, the unpaired surrogates of undecodable file names included.
TEXT = st.text(st.characters(codec=None, categories=None)) | st.lists(
    st.sampled_from(["[red]", "[/red]", "[/]", "[@a=b]", "[#ff0000]", "[", "]", "\\", "a", "\x1b"])
).map("".join)


def test_the_shape_of_a_message() -> None:
    error = UncropError("a.frame: opencv.K", "1x3x3 float", "1x4x4 float", "Is it a tracker's?")
    assert str(error) == (
        "a.frame: opencv.K: expected 1x3x3 float, found 1x4x4 float. Is it a tracker's?"
    )
    assert error.where == "a.frame: opencv.K"
    assert (error.expected, error.found) == ("1x3x3 float", "1x4x4 float")
    assert error.remedy == "Is it a tracker's?"


@pytest.mark.parametrize(
    ("fields", "text"),
    [
        ({}, "x."),
        ({"expected": "a"}, "x: expected a."),
        ({"found": "b"}, "x: b."),
        ({"expected": "a", "found": "b"}, "x: expected a, found b."),
        ({"remedy": "Do it."}, "x. Do it."),
        ({"found": "b", "remedy": "Do it."}, "x: b. Do it."),
    ],
)
def test_parts_may_be_left_out(fields: dict[str, str], text: str) -> None:
    assert str(UncropError("x", **fields)) == text


def test_the_statement_is_the_message_without_its_place_and_remedy() -> None:
    """Wherever a colon stands: in the place, in what was found, or in the remedy."""
    error = UncropError("shot: 3/a.frame: opencv.K", "a: b", "c: d", "Is it: e?")
    assert error.statement == "expected a: b, found c: d."
    assert str(error) == f"{error.where}: {error.statement} {error.remedy}"
    finding = Finding.of_error("check", error)
    assert (finding.where, finding.message) == (error.where, error.statement)
    assert str(finding) == str(error)


@pytest.mark.parametrize("cls", CLASSES)
def test_every_class_has_the_one_root_and_shape(cls: type[UncropError]) -> None:
    error = cls(where="here", expected="a", found="b", remedy="Do it.")
    assert isinstance(error, UncropError)
    assert str(error) == "here: expected a, found b. Do it."
    assert cls.__doc__


@pytest.mark.parametrize("cls", CLASSES)
def test_an_error_survives_the_way_from_another_process(cls: type[UncropError]) -> None:
    error = cls("he\x1bre[red]", "a", "b\\", "Do it.")
    for again in (pickle.loads(pickle.dumps(error)), copy.copy(error)):  # noqa: TID251
        assert type(again) is cls
        assert str(again) == str(error)
        assert vars(again) == vars(error)


def test_a_missing_input_is_a_file_not_found() -> None:
    with pytest.raises(FileNotFoundError, match="^bbox.pt: expected a file, found nothing. Look.$"):
        raise MissingInputError("bbox.pt", "a file", "nothing", "Look.")
    assert MissingInputError("x").errno is None


@pytest.mark.parametrize("hostile", HOSTILE)
def test_hostile_names_stay_on_one_harmless_line(hostile: str) -> None:
    for text in (
        str(ConventionError(hostile, hostile, hostile, hostile)),
        str(Finding("check", "error", hostile, hostile, fix=hostile)),
    ):
        assert text.isprintable()
        assert text.isascii()
        assert len(text.splitlines()) == 1


@given(TEXT)
def test_any_text_becomes_one_printable_line(text: str) -> None:
    line = printable(text)
    assert line.isprintable()
    line.encode("utf-8")
    assert printable(line) == line


@given(TEXT)
def test_rich_sees_no_markup_in_a_message(text: str) -> None:
    error = UncropError(text, text, text, text)
    for line in (str(error), f"{error} tail", printable(text) + ".", printable(text) + "[/]"):
        if line.endswith("[/]"):
            line = "[bold]" + line
        styles = [span.style for span in Text.from_markup(line, emoji=False).spans]
        assert set(styles) <= {"bold"}


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("[red]a[/red]", "\\[red]a\\[/red]"),
        ("[@click=app.bell]", "\\[@click=app.bell]"),
        ("[#ff0000]", "\\[#ff0000]"),
        ("\\[red]", "\\[red]"),
        ("\\\\[red]", "\\\\\\[red]"),
        ("bbox [1, 2, 3, 4]", "bbox [1, 2, 3, 4]"),
        ("[[a]]", "[\\[a]]"),
        ("äöü 日本 🙂", "äöü 日本 🙂"),
    ],
)
def test_what_is_escaped_and_what_is_not(text: str, line: str) -> None:
    assert printable(text) == line
    # What a reader of rich's output sees is the text itself, but for doubled backslashes.
    if "\\" not in text:
        assert Text.from_markup(line).plain == text


def test_where_may_be_a_path_or_a_number(tmp_path: object) -> None:
    assert str(UncropError(tmp_path)) == f"{tmp_path}."
    assert str(UncropError(3, 4, 5)) == "3: expected 4, found 5."  # type: ignore[arg-type]


def test_a_finding_reads_as_a_sentence_with_what_to_do() -> None:
    assert str(Finding("c", "info", "a.frame", "It is short.")) == "a.frame: It is short."
    finding = Finding("c", "warning", "a.frame", "It is short.", 3, 4, "px", "Make it longer.")
    assert str(finding) == "a.frame: It is short. Make it longer."
    assert finding == Finding("c", "warning", "a.frame", "It is short.", 3, 4, "px", finding.fix)
