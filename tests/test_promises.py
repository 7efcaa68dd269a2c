"""SECURITY.md says only what tests keep: promises name tests that exist, and all are named."""

from __future__ import annotations

import ast
import re
from functools import lru_cache

import pytest

from tests.conftest import REPOSITORY

ROW = re.compile(r"^\| (\d+) \| (.+?) \| (`.+`) \| (.+?) \|$", re.MULTILINE)
TEST = re.compile(r"`(tests/[\w/]+\.py)(?:::(\w+)(?:\[\w+\])?)?`")
N_PROMISES = 14


@lru_cache
def text(name: str) -> str:
    return (REPOSITORY / name).read_text(encoding="utf-8")


@lru_cache
def functions(path: str) -> set[str]:
    tree = ast.parse(text(path))
    return {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}


def promises() -> list[tuple[int, str, str, str]]:
    return [(int(n), said, kept, measured) for n, said, kept, measured in ROW.findall(
        text("SECURITY.md"))]  # fmt: skip


def test_all_promises_are_there() -> None:
    assert [number for number, _, _, _ in promises()] == list(range(1, N_PROMISES + 1))
    assert all(measured.strip() for _, _, _, measured in promises())


@pytest.mark.parametrize("number", range(1, N_PROMISES + 1))
def test_every_promise_has_a_test_that_exists(number: int) -> None:
    kept = next(kept for n, _, kept, _ in promises() if n == number)
    tests = TEST.findall(kept)
    assert len(tests) == kept.count("`") // 2 > 0
    for path, name in tests:
        assert (REPOSITORY / path).is_file(), path
        assert not name or name in functions(path), f"{path}::{name}"
        assert name.startswith("test_") or not name


@pytest.mark.parametrize("folder", ["hostile", "faults", "fuzz"])
def test_every_test_of_trust_is_named(folder: str) -> None:
    """What is tested is also said, here or in docs/security.md."""
    said = text("SECURITY.md") + text("docs/security.md")
    files = [p.name for p in (REPOSITORY / "tests" / folder).glob("test_*.py")]
    assert files
    assert [name for name in files if f"tests/{folder}/{name}" not in said] == []


def test_what_is_not_promised_is_said_too() -> None:
    assert "## Not promised" in text("SECURITY.md")
    assert "## Reporting" in text("SECURITY.md")
    assert "(SECURITY.md)" in text("README.md")


def test_the_limits_that_are_named_are_the_defaults() -> None:
    from converter.media.limits import Limits

    limits = Limits()
    said = next(measured for n, _, _, measured in promises() if n == 12)
    for part in (
        f"file {limits.file_bytes >> 20} MiB", f"member {limits.member_bytes >> 20} MiB",
        f"ratio {limits.member_ratio}", f"nesting {limits.nesting}",
        f"{limits.elements / 1e6:g}e6 elements", f"{limits.image_pixels / 1e6:g} MP",
        f"{limits.frames / 1e6:g}e6 frames",
    ):  # fmt: skip
        assert part in said


def test_fuzz_figures_are_of_all_readers() -> None:
    from tests.fuzz.targets import TARGETS

    rows = re.findall(
        r"^\| `(\w+)` \| ([\d,]+) \| (\d+) \|", text("docs/security.md"), re.MULTILINE
    )
    assert sorted(name for name, _, _ in rows) == sorted(TARGETS)
    total = sum(int(n.replace(",", "")) for _, n, _ in rows)
    crashes = sum(int(n) for _, _, n in rows)
    said = next(measured for n, _, _, measured in promises() if n == 13)
    assert said == f"{total:,} inputs, {crashes} crashes"
