"""A track that several targets are tried with."""

from __future__ import annotations

from typing import Any

import pytest

from converter import registry
from converter.registry import ReadOptions
from converter.track import Track
from tests.conftest import MakeTrack

SPEC: dict[str, Any] = {
    "principal_512": (240.0, 275.0), "begin_frames": 1, "lost_landmarks": (3,), "n_frames": 10,
}  # fmt: skip
"""Off-centre principal point, non-square source frames, frame i is image i + 2."""


@pytest.fixture(scope="session")
def made(make_track: MakeTrack) -> tuple[Track, Any]:
    """Make that track: as it is read, and what is true of it."""
    folder, truth = make_track(**SPEC)
    return registry.read_track(folder, ReadOptions(hash_inputs=False)), truth
