"""Golden trees: which files every target writes for the same two frames.

``UNCROP_GOLDEN=write`` writes them afresh; docs/targets/NAME.md explains every one.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from converter import registry
from converter.registry import ReadOptions, no_progress
from tests.conftest import MakeTrack

GOLDEN = Path(__file__).resolve().parent.parent / "golden" / "trees"
TARGETS = [name for name in registry.names("targets") if name != "bundle"]


@pytest.mark.parametrize("name", TARGETS)
def test_the_tree_is_the_golden_one(name: str, make_track: MakeTrack, tmp_path: Path) -> None:
    golden = GOLDEN / f"{name}.txt"
    folder, _ = make_track(n_frames=2, begin_frames=1)
    track = registry.read_track(folder, ReadOptions(hash_inputs=False))
    target = registry.target(name)
    target.write(track, tmp_path / "out", target.options(), overwrite=False, progress=no_progress)
    files = sorted(
        p.relative_to(tmp_path / "out").as_posix()
        for p in (tmp_path / "out").rglob("*")
        if p.is_file()
    )
    tree = "\n".join(files) + "\n"
    if os.environ.get("UNCROP_GOLDEN") == "write":
        golden.parent.mkdir(parents=True, exist_ok=True)
        golden.write_text(tree)
    if not golden.is_file():
        pytest.skip(f"there is no golden tree of {name} yet: UNCROP_GOLDEN=write makes it")
    assert tree == golden.read_text()
