"""The catalogue, the checks, their pages and what they report stay in step."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

from converter.errors import FormatError
from converter.validation.catalogue import CATALOGUE, contents, explain, page
from converter.validation.checking import all_checks
from converter.validation.validate import validate
from fixtures.defects import DEFECTS
from tests.conftest import REPOSITORY

PAGES = REPOSITORY / "docs" / "checks"
WITHOUT_FUNCTION = {"worker-died", "internal-error", "unreadable", "bundle-damaged", "dataset"}
"""What `validate` itself establishes."""


def test_every_check_is_in_the_catalogue_and_every_entry_is_a_check() -> None:
    ids = [info.id for info in CATALOGUE]
    assert len(set(ids)) == len(ids)
    assert set(all_checks()) | WITHOUT_FUNCTION == set(ids)
    assert ids[-1] == "files-damaged"  # it reports what the others could not read


def test_every_check_has_its_page_and_every_page_its_check() -> None:
    texts = {path.stem: path.read_text("utf-8") for path in PAGES.glob("*.md")}
    index = texts.pop("README")
    assert texts == {info.id: page(info) for info in CATALOGUE}
    assert re.findall(r"\]\(([\w-]+)\.md\)", index) == [info.id for info in CATALOGUE]


@pytest.mark.parametrize("info", CATALOGUE, ids=lambda info: info.id)
def test_an_entry_says_what_holds_and_where_it_comes_from(info) -> None:  # type: ignore[no-untyped-def]
    assert re.fullmatch(r"[A-Za-z][A-Za-z0-9-]+", info.id)
    assert not info.title.endswith(".")
    assert info.explanation.endswith(".")
    assert "\n" not in info.explanation
    assert info.kinds
    assert explain(info.id) is info


def test_an_unknown_id_is_refused_with_the_nearest() -> None:
    with pytest.raises(FormatError, match=r"Did you mean K-naive\?"):
        explain("K-naiv")


def test_only_ids_that_are_near_are_suggested() -> None:
    for unknown, said in (("nosuch", None), ("x", None), ("bbox", "bbox-missing or bbox-damaged"),
                          ("k-NAIVE", "K-naive?"), ("a head", None)):  # fmt: skip
        with pytest.raises(FormatError) as caught:
            explain(unknown)
        assert "`uncrop validate --explain all` lists them." in caught.value.remedy
        assert ("Did you mean" in caught.value.remedy) == (said is not None), unknown
        assert (said or "") in caught.value.remedy
    assert [line.split()[0] for line in contents().splitlines()] == [i.id for i in CATALOGUE]


def test_every_defect_of_the_generator_has_a_check_in_the_catalogue() -> None:
    assert {d.check for d in DEFECTS} <= {info.id for info in CATALOGUE}


def test_each_check_is_one_function_that_says_what_holds() -> None:
    for name, function in all_checks().items():
        assert (function.__doc__ or "").strip(), name


def test_results_come_in_the_order_of_the_catalogue(fixtures_dir: Path) -> None:
    order = [info.id for info in CATALOGUE]
    results = [r.check for r in validate(fixtures_dir / "sample").results]
    assert results == [c for c in order if c in results]
    assert set(results) == {info.id for info in CATALOGUE if "track" in info.kinds}


def test_the_checks_know_no_ids_of_their_own() -> None:
    """Findings are made without an id: there is one place for it."""
    for path in (REPOSITORY / "converter" / "validation" / "checks").glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            is_call = isinstance(node, ast.Call) and isinstance(node.func, ast.Name)
            assert not (is_call and node.func.id == "Finding"), path  # type: ignore[attr-defined]
