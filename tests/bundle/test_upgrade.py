"""Other schema versions: read and written anew, or refused with the right advice."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import h5py
import pytest

from converter.bundle.read import check_bundle, read_bundle
from converter.bundle.schema import SCHEMA, VERSION
from converter.bundle.upgrade import upgrade_bundle
from converter.errors import BundleVersionError, OutputError
from converter.track import Track
from fixtures.hostile.bundles import put_text, reseal
from tests.bundle.tools import assert_same, datasets, full_track

HERE = f"{VERSION[0]}.{VERSION[1]}"


def as_version(path: Path, version: tuple[int, int]) -> Path:
    """Make a bundle one of an older minor version: without what was added since."""
    with h5py.File(path, "r+") as file:
        for entry in SCHEMA:
            if entry.since > version and entry.path in file:
                del file[entry.path]
        if version < (1, 2):
            del file.attrs["content_sha256_1_1"]
        put_text(file, "format_version", f"{version[0]}.{version[1]}")
    reseal(path)
    return path


def first_track() -> Track:
    """What version 1.0 could hold of it."""
    return replace(full_track(), central=None)


@pytest.mark.parametrize("minor", range(VERSION[1] + 1))
def test_an_older_minor_version_is_read_and_upgraded(
    minor: int, bundle: Path, tmp_path: Path
) -> None:
    old = as_version(bundle, (VERSION[0], minor))
    before = old.read_bytes()
    assert check_bundle(old) == []
    track = read_bundle(old)
    upgrade_bundle(old, tmp_path / "new.h5")
    assert_same(read_bundle(tmp_path / "new.h5"), track)
    assert_same(track, first_track() if minor == 0 else full_track())
    assert check_bundle(tmp_path / "new.h5") == []
    with h5py.File(tmp_path / "new.h5") as file:
        assert file.attrs["format_version"].decode() == HERE
    assert old.read_bytes() == before


def test_the_command_upgrades(bundle: Path, tmp_path: Path) -> None:
    from converter.cli.main import main

    old, new = as_version(bundle, (1, 0)), tmp_path / "new.h5"
    assert main(["convert", str(old), "--to", "bundle", "-o", str(new), "--quiet"]) == 0
    with h5py.File(new) as file:
        assert file.attrs["format_version"].decode() == HERE
    assert check_bundle(new) == []


def test_an_upgrade_keeps_images(
    whole: Path, tmp_path: Path, copy_of: Callable[[Path], Path]
) -> None:
    old = as_version(copy_of(whole), (1, 0))
    upgrade_bundle(old, tmp_path / "new.h5")
    assert datasets(tmp_path / "new.h5") == datasets(old)


def test_an_upgrade_in_place_is_explicit(bundle: Path) -> None:
    as_version(bundle, (1, 0))
    before = bundle.read_bytes()
    with pytest.raises(OutputError, match="--overwrite"):
        upgrade_bundle(bundle, bundle)
    assert bundle.read_bytes() == before
    upgrade_bundle(bundle, bundle, overwrite=True)
    assert_same(read_bundle(bundle), first_track())


@pytest.mark.parametrize(
    ("version", "advice"),
    [
        (f"{VERSION[0] + 1}.0", "Update uncrop"),
        ("99.1", "Update uncrop"),
        ("0.9", "Convert the track again"),
        ("1", "Was this written by uncrop"),
        ("one", "Was this written by uncrop"),
        ("1.0.0", "Was this written by uncrop"),
        ("1.x", "Was this written by uncrop"),
        ("\u0661.0", "Was this written by uncrop"),
    ],
)
def test_other_versions_are_refused(version: str, advice: str, bundle: Path) -> None:
    with h5py.File(bundle, "r+") as file:
        put_text(file, "format_version", version)
    for function in (read_bundle, check_bundle):
        with pytest.raises(BundleVersionError, match=advice) as caught:
            function(bundle)
        assert str(bundle) in str(caught.value)
        assert f"expected format version {VERSION[0]}.x, found" in str(caught.value)
