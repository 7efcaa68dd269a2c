"""What the tests of the metrical-tracker source share."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from converter.registry import ReadOptions, detect_source
from converter.track import Track

SMALL: dict[str, Any] = {"source_size": (240, 180), "crop_size": 128, "oversample": 1}


def read(path: Path | str, **options: Any) -> Track:
    """Read a track as the command line does, without hashing its inputs."""
    path = Path(path)
    options.setdefault("hash_inputs", False)
    return detect_source(path).read(path, ReadOptions(**options))


def checks(track: Track) -> set[str]:
    """Ids of the findings, but for those of severity info."""
    return {f.check for f in track.findings if f.severity != "info"}


def offset(track: Track) -> int:
    """Position of frame 0's image in the source sequence."""
    assert track.source_indices is not None
    return int(track.source_indices[0] - track.frame_ids[0])
