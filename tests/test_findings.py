"""Texts of findings and messages: one of a thing is not several."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from converter.findings import counted

REPOSITORY = Path(__file__).resolve().parent.parent
SEVERAL = re.compile(r" (faces|files|frames|images|tracks|windows)\b")
OF_MANY = re.compile(r"\b(of|all|at most|a second|the) $|[x/=]$")
"""Before a number that says how many there are to choose from, or is none of things."""
NOT_COUNTED = {
    "float(self._rate)",  # per second
    "rate",
    "space",  # "crop images"
    "crop.source",  # "1920x1080 frames"
    "best",  # "-1 images away"
    "_THEIR_TEST",  # of another project, far above one
    "len(meshes.faces)",
    "int(audio_ids[-1]) + 1",
    "n",  # in convert: several tracks
}


@pytest.mark.parametrize(
    ("n", "said"), [(0, "0 frames"), (1, "1 frame"), (2, "2 frames"), (75, "75 frames")]
)
def test_one_is_not_several(n: int, said: str) -> None:
    assert counted(n, "frame") == said


def uncounted(source: str) -> Iterator[str]:
    """Numbers in the texts of a module that are followed by a plural, whatever they are."""
    for text in ast.walk(ast.parse(source)):
        if not isinstance(text, ast.JoinedStr):
            continue
        before = ""
        for part, after in zip(text.values, [*text.values[1:], None], strict=True):
            if isinstance(part, ast.Constant):
                before = str(part.value)
                continue
            number = ast.unparse(part.value) if isinstance(part, ast.FormattedValue) else ""
            plural = isinstance(after, ast.Constant) and SEVERAL.match(str(after.value))
            if plural and not OF_MANY.search(before):
                yield number
            before = ""


def test_a_plural_after_a_number_is_found() -> None:
    assert list(uncounted('f"{len(lost)} frames without"')) == ["len(lost)"]
    assert list(uncounted('f"{n} of {len(lost)} frames"')) == []


def test_no_message_says_1_frames() -> None:
    wrong = {
        f"{path.relative_to(REPOSITORY)}: {number}"
        for path in (REPOSITORY / "converter").rglob("*.py")
        for number in uncounted(path.read_text(encoding="utf-8"))
        if number not in NOT_COUNTED
    }
    assert not wrong, "use converter.findings.counted"
