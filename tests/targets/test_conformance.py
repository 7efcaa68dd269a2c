"""What every target promises, run over every file found in converter/targets."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from converter import registry
from converter.errors import OutputError, UncropError
from converter.registry import ReadOptions, no_progress
from converter.track import Track

TARGETS = registry.names("targets")


@pytest.fixture(scope="session")
def sample_track(fixtures_dir: Path) -> Track:
    return registry.source("metrical_tracker").read(fixtures_dir / "sample", ReadOptions())


def digest(path: Path) -> dict[str, str]:
    """SHA-256 of a file, or of every file of a folder."""
    files = sorted(p for p in path.rglob("*") if p.is_file()) if path.is_dir() else [path]
    return {str(p.relative_to(path)): hashlib.sha256(p.read_bytes()).hexdigest() for p in files}


def write(name: str, track: Track, out: Path, *, overwrite: bool = False) -> Any:
    target = registry.target(name)
    return target.write(track, out, target.options(), overwrite=overwrite, progress=no_progress)


@pytest.fixture(scope="session")
def written(sample_track: Track, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    made: dict[str, Path] = {}

    def make(name: str) -> Path:
        if name not in made:
            made[name] = tmp_path_factory.mktemp(name) / "out"
            write(name, sample_track, made[name])
        return made[name]

    return make


def test_registry_finds_the_targets() -> None:
    assert {"bundle", "gaussiantalker"} <= set(TARGETS)
    for name in TARGETS:
        target = registry.target(name)
        assert target.name == name
        assert target.summary


@pytest.mark.parametrize("name", TARGETS)
def test_check_is_clean_on_its_own_output(name: str, written: Callable[[str], Path]) -> None:
    findings = registry.target(name).check(written(name))
    assert [f for f in findings if f.severity == "error"] == []


@pytest.mark.parametrize("name", TARGETS)
def test_twice_gives_the_same_bytes(
    name: str, written: Callable[[str], Path], sample_track: Track, tmp_path: Path
) -> None:
    write(name, sample_track, tmp_path / "again")
    assert digest(tmp_path / "again") == digest(written(name))


@pytest.mark.parametrize("name", TARGETS)
def test_an_existing_output_is_kept_unless_overwrite(
    name: str, sample_track: Track, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    write(name, sample_track, out)
    before = digest(out)
    with pytest.raises(OutputError, match="overwrite"):
        write(name, sample_track, out)
    assert digest(out) == before
    write(name, sample_track, out, overwrite=True)
    assert digest(out) == before


@pytest.mark.parametrize("name", TARGETS)
def test_foreign_files_are_never_replaced(name: str, sample_track: Track, tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / "thesis.tex").write_text("years of work")
    with pytest.raises(OutputError):
        write(name, sample_track, out, overwrite=True)
    assert digest(out) == digest(out)
    assert (out / "thesis.tex").read_text() == "years of work"
    assert [p.name for p in tmp_path.iterdir()] == ["out"]


class Broken:
    """Images of which one cannot be read: a disk error in the middle of the work."""

    def __init__(self, frames: Any) -> None:
        self._frames = frames
        self.size, self.origin = frames.size, frames.origin

    def __len__(self) -> int:
        return len(self._frames)

    def name(self, index: int) -> str:
        return str(index)

    def read(self, index: int) -> Any:
        return self._frames.read(index)

    def stream(self, indices: Any) -> Any:
        for n, image in enumerate(self._frames.stream(indices)):
            if n == 5:
                raise OSError(5, "Input/output error")
            yield image


@pytest.mark.parametrize("name", [name for name in TARGETS if name != "bundle"])
def test_a_crash_midway_leaves_nothing(name: str, sample_track: Track, tmp_path: Path) -> None:
    broken = replace(
        sample_track,
        source_frames=Broken(sample_track.source_frames),
        crop_frames=Broken(sample_track.crop_frames),
    )
    with pytest.raises((OSError, UncropError)):
        write(name, broken, tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", [name for name in TARGETS if name != "bundle"])
def test_the_check_reprojects(name: str, written: Callable[[str], Path]) -> None:
    (found,) = [f for f in registry.target(name).check(written(name)) if f.check == "reprojection"]
    assert found.measured is not None
    assert found.measured <= 0.02


@pytest.mark.parametrize("name", [name for name in TARGETS if name != "bundle"])
def test_without_images_it_says_so_or_refuses_and_writes_nothing(
    name: str, sample_track: Track, tmp_path: Path
) -> None:
    bare = replace(sample_track, source_frames=None, crop_frames=None)
    refused, said = "", set()
    try:
        said = {f.check for f in write(name, bare, tmp_path / "out").findings}
    except UncropError as error:
        refused = str(error)
    assert "images" in refused or "images-missing" in said
    assert bool(refused) == (list(tmp_path.iterdir()) == [])


@pytest.mark.parametrize("name", TARGETS)
def test_any_flipped_byte_of_a_core_file_is_reported(
    name: str, sample_track: Track, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    write(name, sample_track, out)
    target = registry.target(name)
    rng = np.random.default_rng(0)
    for path in sorted([out] if out.is_file() else (p for p in out.iterdir() if p.is_file())):
        if path.name in ("proof.jpg",):
            continue
        data = bytearray(path.read_bytes())
        position = int(rng.integers(len(data) // 2, len(data)))
        data[position] ^= 0x10
        path.write_bytes(data)
        try:
            found = target.check(out)
        except UncropError:
            found = []
        else:
            changed = [f for f in found if f.severity in ("error", "warning")]
            if name != "bundle":  # a flip in HDF5 slack is no flip in data; see tests/bundle
                assert changed, path.name
        data[position] ^= 0x10
        path.write_bytes(data)
