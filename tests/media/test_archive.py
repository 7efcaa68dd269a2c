"""Zip archives: structure and limits are checked before any member is read."""

from __future__ import annotations

import io
import struct
import zipfile

import pytest
from hypothesis import given
from hypothesis import strategies as st

from converter.errors import FormatError, UncropError
from converter.errors import UnsafeFileError as Unsafe
from converter.media.archive import open_archive, zip_bytes
from converter.media.limits import Limits
from converter.media.torchfile import parse_torch
from fixtures.hostile.archives import BROKEN, GOOD, PLAIN, both_patched, piped, zipped

MIB = 2**20


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_reads_what_zipfile_writes(method: int) -> None:
    for data in (
        zipped(*GOOD, method=method),
        piped(*GOOD, method=method, zip64=False),
        piped(*GOOD, method=method, zip64=True),
    ):
        archive = open_archive(data, "x")
        assert {name: archive.read(name) for name in archive.members} == dict(GOOD)
        assert archive.total_bytes == 505


names = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="/\\\0"), min_size=1)
names = names.filter(lambda name: name not in (".", ".."))


@given(st.dictionaries(names.map("x/{}".format), st.binary(max_size=200)))
def test_written_archives_are_read_here_and_by_zipfile(members: dict[str, bytes]) -> None:
    data = zip_bytes(members.items())
    archive = open_archive(data, "x")
    assert {name: archive.read(name) for name in archive.members} == members
    assert all(member.start % 64 == 0 for member in archive.members.values())
    with zipfile.ZipFile(io.BytesIO(data)) as oracle:
        assert {info.orig_filename: oracle.read(info) for info in oracle.infolist()} == members


def test_a_missing_member_is_named() -> None:
    with pytest.raises(FormatError, match="x/z: expected this member"):
        open_archive(zipped(*GOOD), "f").read("x/z")


# --- limits -------------------------------------------------------------------------------------


def test_a_bomb_is_refused_by_its_directory() -> None:
    data = zipped(("x/data.pkl", bytes(60 * MIB)), method=zipfile.ZIP_DEFLATED)
    assert len(data) < 100_000
    with pytest.raises(Unsafe, match="at most 200-fold compression"):
        open_archive(data, "x")


@pytest.mark.parametrize("told", [1, 5 * MIB, 10 * MIB])
def test_a_bomb_that_lies_about_its_size_is_not_inflated(told: int) -> None:
    data = zipped(("x/data.pkl", bytes(9 * MIB)), method=zipfile.ZIP_DEFLATED)
    data = data.replace(struct.pack("<I", 9 * MIB), struct.pack("<I", told))
    archive = open_archive(data, "x", Limits(member_ratio=2000))
    with pytest.raises(FormatError, match=f"expected {told} bytes"):
        archive.read("x/data.pkl")


def test_limits_hold_at_the_limit_and_not_above() -> None:
    data = zipped(("x/a", bytes(100)), ("x/b", bytes(50)))
    open_archive(data, "x", Limits(member_bytes=100, members=2, file_bytes=150))
    with pytest.raises(Unsafe, match="at most 99 bytes, found 100"):
        open_archive(data, "x", Limits(member_bytes=99))
    with pytest.raises(Unsafe, match="at most 1 members, found 2"):
        open_archive(data, "x", Limits(members=1))
    with pytest.raises(Unsafe, match="at most 149 bytes in all"):
        open_archive(data, "x", Limits(file_bytes=149))


def test_the_ratio_holds_at_the_limit_and_not_above() -> None:
    data = zipped(("x/a", bytes(9 * MIB)), method=zipfile.ZIP_DEFLATED)
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        ratio = -(-9 * MIB // archive.infolist()[0].compress_size)
    open_archive(data, "x", Limits(member_ratio=ratio))
    with pytest.raises(Unsafe, match="compression"):
        open_archive(data, "x", Limits(member_ratio=ratio - 1))


def test_small_members_may_have_any_ratio() -> None:
    data = zipped(("x/a", bytes(8 * MIB)), method=zipfile.ZIP_DEFLATED)
    assert open_archive(data, "x").read("x/a") == bytes(8 * MIB)


def test_a_huge_directory_is_refused() -> None:
    data = zipped(*[(f"x/{i}", b"") for i in range(5000)])
    with pytest.raises(Unsafe, match="4096 members"):
        open_archive(data, "x")


# --- structure ----------------------------------------------------------------------------------


@pytest.mark.parametrize("key", BROKEN)
def test_a_broken_archive_is_refused(key: str) -> None:
    make, kind, message = BROKEN[key]
    with pytest.raises(kind, match=message) as caught:
        open_archive(make(), "x")
    assert type(caught.value) is kind
    with pytest.raises(UncropError):
        parse_torch(make(), "x")


def test_contents_are_checked_against_their_crc() -> None:
    archive = open_archive(PLAIN.replace(b"\x80\x02N.", b"\x80\x02]."), "f")
    with pytest.raises(FormatError, match="f: x/data.pkl: expected CRC-32"):
        archive.read("x/data.pkl")


def test_a_deflated_member_that_is_not_is_refused() -> None:
    archive = open_archive(both_patched(PLAIN, 8, 10, "<H", 8), "x")
    with pytest.raises(FormatError, match="deflated data|bytes"):
        archive.read("x/data.pkl")


def test_zip64_end_records_have_to_agree() -> None:
    """torch writes them though it needs none; a reader that trusts them must see the same."""
    start, end = PLAIN.index(b"PK\x01\x02"), len(PLAIN) - 22

    def with_records(n_members: int, directory: int) -> bytes:
        record = struct.pack(
            "<4sQ2H2I4Q", b"PK\x06\x06", 44, 45, 45, 0, 0, n_members, n_members,
            end - start, directory,
        )  # fmt: skip
        locator = struct.pack("<4sIQI", b"PK\x06\x07", 0, end, 1)
        return PLAIN[:end] + record + locator + PLAIN[end:]

    assert len(open_archive(with_records(2, start), "x").members) == 2
    for lie in (with_records(1, start), with_records(2, 0), with_records(2**40, start)):
        with pytest.raises(Unsafe, match="agree"):
            open_archive(lie, "x")


@pytest.mark.parametrize(
    ("members", "kind", "message"),
    [
        ([("x/data.pkl", b"N."), ("y/data.pkl", b"N.")], Unsafe, "one folder"),
        ([("x/data.pkl", b"N."), ("y/other", b"")], Unsafe, "one folder"),
        ([("x/other.pkl", b"N.")], FormatError, "data.pkl"),
        ([("data.pkl", b"N.")], FormatError, "data.pkl"),
        ([("x/y/data.pkl", b"N.")], FormatError, "data.pkl"),
        ([("a.npy", b"")], FormatError, "data.pkl"),
    ],
)
def test_a_torch_file_has_one_folder_with_data_pkl(
    members: list[tuple[str, bytes]], kind: type[UncropError], message: str
) -> None:
    with pytest.raises(kind, match=message):
        parse_torch(zipped(*members), "x")


@given(st.binary(max_size=300), st.booleans())
def test_arbitrary_bytes_are_no_crash(noise: bytes, framed: bool) -> None:
    data = PLAIN[:40] + noise + PLAIN[-60:] if framed else noise
    with pytest.raises(UncropError):
        parse_torch(data, "x")
