"""Every flipped bit of data and every truncation is known; other damage never goes unnoticed."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from converter import registry
from converter.bundle.read import check_bundle, read_bundle
from converter.bundle.schema import SCHEMA
from converter.bundle.write import write_bundle
from converter.errors import FormatError, UncropError
from fixtures.hostile.bundles import put, put_text, reseal
from tests.bundle.tools import assert_same, datasets, flip, full_track, spans

PLAIN = [e.path for e in SCHEMA if not e.path.startswith("/images/")]
IMAGES = ["/images/crop/data", "/images/crop/offsets", "/images/video"]


def is_damage_found(path: Path) -> bool:
    """Whether the check says so, and says where, or refuses the file."""
    try:
        findings = check_bundle(path)
    except UncropError as error:
        return str(path) in str(error)
    assert all(f.severity == "error" and str(path) in f.where for f in findings)
    return bool(findings)


def test_a_whole_bundle_has_no_findings(bundle: Path, whole: Path) -> None:
    assert sorted(datasets(bundle)) == sorted(PLAIN)
    assert set(IMAGES) <= set(datasets(whole))
    assert check_bundle(bundle) == check_bundle(whole) == []
    assert registry.target("bundle").check(bundle) == []


@pytest.mark.parametrize("dataset", PLAIN)
def test_a_flipped_bit_is_found(dataset: str, bundle: Path) -> None:
    position, length = spans(bundle, dataset)[-1]
    flip(bundle, position + length // 2)
    findings = check_bundle(bundle)
    assert [f.where for f in findings] == [f"{bundle}:{dataset}"]
    if dataset == "/mesh/vertices":
        with pytest.raises(FormatError, match="mesh/vertices"):
            read_bundle(bundle).meshes.vertices(2)  # type: ignore[union-attr]
    else:
        with pytest.raises(FormatError, match=dataset):
            read_bundle(bundle)


@pytest.mark.parametrize("dataset", IMAGES)
def test_a_flipped_bit_in_images_is_found(
    dataset: str, whole: Path, copy_of: Callable[[Path], Path]
) -> None:
    copy = copy_of(whole)
    position, length = spans(copy, dataset)[0]
    flip(copy, position + length // 2)
    assert [f.where for f in check_bundle(copy)] == [f"{copy}:{dataset}"]


@pytest.fixture(scope="module")
def lent(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle that each example damages and then restores."""
    path = tmp_path_factory.mktemp("lent") / "t.h5"
    write_bundle(full_track(), path)
    return path


@settings(max_examples=60)
@given(st.data())
def test_any_flipped_bit_of_data_is_found(lent: Path, data: st.DataObject) -> None:
    raw = [span for dataset in PLAIN for span in spans(lent, dataset)]
    position, length = data.draw(st.sampled_from(raw))
    place = position + data.draw(st.integers(0, length - 1))
    bit = data.draw(st.integers(0, 7))
    flip(lent, place, bit)
    try:
        assert is_damage_found(lent)
    finally:
        flip(lent, place, bit)


@settings(max_examples=80)
@given(st.data())
def test_a_flipped_bit_anywhere_is_found_or_harmless(lent: Path, data: st.DataObject) -> None:
    """Names, addresses, attributes, padding: refused, reported, or the same track comes out."""
    place = data.draw(st.integers(0, lent.stat().st_size - 1))
    bit = data.draw(st.integers(0, 7))
    flip(lent, place, bit)
    try:
        if not is_damage_found(lent):
            assert_same(read_bundle(lent), full_track())
    finally:
        flip(lent, place, bit)


@pytest.mark.parametrize("part", range(20))
def test_every_truncation_is_refused(part: int, bundle: Path) -> None:
    data = bundle.read_bytes()
    bundle.write_bytes(data[: len(data) * part // 20 or 1] if part < 19 else data[:-1])
    for function in (read_bundle, check_bundle):
        with pytest.raises(FormatError) as caught:
            function(bundle)
        assert str(bundle) in str(caught.value)
        assert "\n" not in str(caught.value)


# ------------------------------------------------------------------ parts, marks, versions
@pytest.mark.parametrize(
    "key", ["/flame/jaw", "/landmarks/face68", "/mesh/vertices", "/camera/K_source", "/crop/bbox"]
)
def test_a_lost_part_is_known(key: str, bundle: Path) -> None:
    with h5py.File(bundle, "r+") as file:
        del file[key]
    assert is_damage_found(bundle)
    with pytest.raises(FormatError):
        read_bundle(bundle)


def test_an_added_part_is_known(bundle: Path) -> None:
    with h5py.File(bundle, "r+") as file:
        added = put(file, "/images/video", np.zeros(9, np.uint8))
        put_text(added, "sha256", "0" * 64)
    assert is_damage_found(bundle)
    with pytest.raises(FormatError, match="added"):
        read_bundle(bundle)


@pytest.mark.parametrize(
    ("holder", "name", "value"),
    [
        ("/", "fps", 25.0),
        ("/", "name", "bob"),
        ("/", "image_space", "source"),
        ("/crop", "crop_size", [256, 256]),
        ("/crop", "source_size", [1280, 720]),
        ("/camera/K_source", "image_size", [1280, 720]),
        ("/", "n_frames", 2),
    ],
)
def test_a_changed_attribute_is_known(holder: str, name: str, value: object, bundle: Path) -> None:
    with h5py.File(bundle, "r+") as file:
        if isinstance(value, str):
            put_text(file[holder], name, value)
        else:
            file[holder].attrs.create(name, value)
    assert is_damage_found(bundle)
    with pytest.raises(FormatError):
        read_bundle(bundle)


@pytest.mark.parametrize(
    "name",
    ["complete", "content_sha256", "content_sha256_1_1", "n_frames", "file_format",
     "format_version"],
)  # fmt: skip
def test_a_missing_mark_is_refused(name: str, bundle: Path) -> None:
    with h5py.File(bundle, "r+") as file:
        del file.attrs[name]
    with pytest.raises(FormatError, match="cut off" if name == "complete" else name):
        read_bundle(bundle)


def _lost(bundle: Path) -> None:
    with h5py.File(bundle, "r+") as file:
        del file["central"]


def _renamed(bundle: Path) -> None:
    """One bit of the group's name in the file, so that nobody finds it by its name."""
    data = bytearray(bundle.read_bytes())
    place = data.index(b"central\0")
    data[place] ^= 1
    bundle.write_bytes(data)


def _resized(bundle: Path) -> None:
    with h5py.File(bundle, "r+") as file:
        file["central/K"].attrs["image_size"] = [640, 361]


@pytest.mark.parametrize("damage", [_lost, _renamed, _resized])
def test_what_later_versions_added_is_covered_too(
    damage: Callable[[Path], None], bundle: Path
) -> None:
    damage(bundle)
    with pytest.raises(FormatError):
        read_bundle(bundle)
    assert is_damage_found(bundle)


@pytest.mark.parametrize("value", [0, 2])
def test_complete_is_one(value: int, bundle: Path) -> None:
    with h5py.File(bundle, "r+") as file:
        file.attrs["complete"] = value
    with pytest.raises(FormatError, match="complete"):
        read_bundle(bundle)


def test_a_newer_minor_version_is_read(bundle: Path) -> None:
    """With datasets, groups and attributes that nobody knew yet."""
    with h5py.File(bundle, "r+") as file:
        put_text(file, "format_version", "1.7")
        file.create_dataset("/flame/tongue", data=np.zeros((3, 5)))
        file.create_dataset("/audio/features", data=np.zeros((3, 5)))
        file.attrs["mood"] = "good"
    assert_same(read_bundle(bundle), full_track())
    assert check_bundle(bundle) == []


def test_the_hashes_are_what_the_document_says(bundle: Path) -> None:
    """`reseal` was written after docs/bundle.md: on a whole bundle it changes nothing."""

    def hashes() -> list[str]:
        with h5py.File(bundle) as file:
            found = [file[name].attrs["sha256"] for name in sorted(datasets(bundle))]
            return [*found, file.attrs["content_sha256"], file.attrs["content_sha256_1_1"]]

    before = hashes()
    reseal(bundle)
    assert hashes() == before
    assert check_bundle(bundle) == []


def test_a_repacked_bundle_is_still_whole(bundle: Path) -> None:
    """Other chunks and other compression are the same data."""
    with h5py.File(bundle, "r+") as file:
        for name, rows in (("/landmarks/face68", 2), ("/flame/light", 1)):
            put(file, name, file[name][()], chunks=(rows, *file[name].shape[1:]),
                compression="gzip", compression_opts=9)  # fmt: skip
        put(file, "/flame/jaw", file["/flame/jaw"][()], chunks=(2, 6))
        put(file, "/flame/eyes", file["/flame/eyes"][()], chunks=(3, 12), shuffle=True)
        # A chunk that no filter makes shorter is stored as it is, and says so.
        light = file["/flame/light"]
        light.id.write_direct_chunk((1, 0, 0), light[1].tobytes(), filter_mask=1)
    assert check_bundle(bundle) == []
    assert_same(read_bundle(bundle), full_track())
