"""Tracks that defects are put into."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from fixtures.defects import TrackCopy
from tests.conftest import MakeTrack

SPEC: dict[str, Any] = {
    "source_size": (480, 360),
    "crop_size": 192,
    "n_frames": 24,
    "oversample": 1,
    "begin_frames": 1,
    "depth": True,
}
BASES: dict[str, dict[str, Any]] = {
    "square": SPEC,
    "unpadded": {**SPEC, "crop_mode": "unpadded", "bbox": (90, 346, 30, 330)},
}
CopyOf = Callable[[str], TrackCopy]


@pytest.fixture
def copy_of(make_track: MakeTrack, tmp_path: Path) -> CopyOf:
    """A copy of one of `BASES`, free to be damaged; each time a fresh one."""

    def make(base: str) -> TrackCopy:
        folder, _ = make_track(**BASES[base])
        return TrackCopy.of(folder, tmp_path / f"copy{len(list(tmp_path.iterdir()))}")

    return make
