"""The names that ``import converter`` offers."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import converter


def test_every_public_name_is_there_and_they_are_few() -> None:
    assert len(converter.__all__) <= 15
    for name in converter.__all__:
        assert getattr(converter, name) is not None
    assert set(converter.__all__) <= set(dir(converter))
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        converter.nothing  # noqa: B018


def test_names_are_imported_only_when_asked_for() -> None:
    code = "import sys, converter; sys.exit('numpy' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_read_write_check_in_three_lines(fixtures_dir: Path, tmp_path: Path) -> None:
    track = converter.read_track(fixtures_dir / "sample")
    written = converter.write_track(track, "bundle", tmp_path / "track.h5")
    assert converter.check_dataset("bundle", written.path) == []
    again = converter.read_track(written.path)
    np.testing.assert_array_equal(again.w2c.R, track.w2c.R)


def test_a_trainers_name_leads_to_the_target_it_reads(fixtures_dir: Path, tmp_path: Path) -> None:
    track = converter.read_track(fixtures_dir / "sample")
    with pytest.raises(converter.UncropError, match="Did you mean flame_params"):
        converter.write_track(track, "IMavatar", tmp_path / "out")


def test_a_written_dataset_names_the_track_inside(fixtures_dir: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    converter.write_track(converter.read_track(fixtures_dir / "sample"), "colmap", out)
    with pytest.raises(converter.UncropError, match="Give .*track.h5, the track that this"):
        converter.read_track(out)
    assert len(converter.read_track(out / "track.h5")) == 36
