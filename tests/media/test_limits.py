"""Every limit can be raised and lowered, and is refused one above it."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import fields
from pathlib import Path

import pytest

from converter.errors import ConventionError
from converter.media.limits import Limits, limits_from
from tests.conftest import REPOSITORY


def test_nothing_said_is_the_default() -> None:
    assert limits_from("") == limits_from(" , ") == Limits()


@pytest.mark.parametrize("name", [field.name for field in fields(Limits)])
def test_every_limit_can_be_set(name: str) -> None:
    assert getattr(limits_from(f"{name}=7"), name) == 7
    assert getattr(limits_from(f"frames=5,{name} = 2e9"), name) == 2_000_000_000


@pytest.mark.parametrize(
    "text", ["frame=3", "frames", "frames=", "frames=0", "frames=-1", "frames=nan", "frames=inf",
             "frames=1e16", "=3", "frames=3;x", "frames=0x10"],
)  # fmt: skip
def test_nonsense_is_refused(text: str) -> None:
    with pytest.raises(ConventionError, match="UNCROP_LIMITS") as caught:
        limits_from(text)
    assert "image_pixels" in str(caught.value)


@pytest.mark.parametrize(
    ("limits", "code", "said"),
    [
        ("", 0, ""),
        ("file_bytes=100", 3, "00000.frame: expected at most 100 bytes"),
        ("frames=2", 3, "at most 2 frames"),
        ("frames=37", 0, ""),  # as many as the video has
        ("image_pixels=100", 3, "megapixels"),
        ("frams=3", 3, "UNCROP_LIMITS"),
    ],
)
def test_the_command_line_obeys_them(limits: str, code: int, said: str, tmp_path: Path) -> None:
    from fixtures.hostile.abuse import small_track

    track = small_track(tmp_path / "track")
    done = subprocess.run(
        [sys.executable, "-m", "converter.cli.main", "inspect", str(track)],
        env={**os.environ, "UNCROP_LIMITS": limits}, cwd=REPOSITORY,
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == code, done.stderr
    assert said in done.stderr
    assert "Traceback" not in done.stderr
