"""The list of abuse, its documentation and its tests stay in step."""

from __future__ import annotations

import re
from pathlib import Path

from fixtures.hostile.abuse import ABUSE
from tests.conftest import REPOSITORY

ROW = re.compile(r"^\| (\d+) \| ([^|]+) \| ([^|]+) \| (\d+) \| `([^`]+)` \|$", re.MULTILINE)


def rows() -> list[tuple[str, ...]]:
    text = (REPOSITORY / "docs" / "security.md").read_text(encoding="utf-8")
    return [match.groups() for match in ROW.finditer(text)]


def test_the_numbers_run_from_one() -> None:
    assert [a.number for a in ABUSE] == list(range(1, len(ABUSE) + 1))


def test_every_number_is_documented_with_its_test() -> None:
    documented = [(int(number), title.strip(), test) for number, title, _, _, test in rows()]
    assert documented == [
        (a.number, a.title, f"tests/hostile/test_abuse.py::test_abuse[{a.number:02d}]")
        for a in ABUSE
    ]
    assert all(len(defence) > 20 for _, _, defence, _, _ in rows())


def test_the_number_of_items_is_the_documented_one() -> None:
    found = {a.number: sum(1 for _ in a.items()) for a in ABUSE}
    assert {int(number): int(n) for number, _, _, n, _ in rows()} == found
    assert min(found.values()) >= 3
    said = f"{sum(found.values()):,} "
    assert f"{said}hostile files of {len(ABUSE)} kinds" in (REPOSITORY / "README.md").read_text()
    assert f"{said}files of {len(ABUSE)} kinds" in (REPOSITORY / "SECURITY.md").read_text()


def test_items_have_names_of_their_own() -> None:
    for abuse in ABUSE:
        names = [item.name for item in abuse.items()]
        assert len(set(names)) == len(names), abuse.number


def test_nothing_hostile_is_kept_as_a_file() -> None:
    """What is hostile is made by code that can be read, never a blob of unknown origin."""
    kept = {path.suffix for path in Path(REPOSITORY, "fixtures", "hostile").rglob("*.*")}
    assert kept <= {".py", ".pyc"}
