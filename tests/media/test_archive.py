"""Zip archives: structure and limits are checked before any member is read."""

from __future__ import annotations

import io
import struct
import zipfile
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from converter.errors import FormatError, UncropError
from converter.errors import UnsafeFileError as Unsafe
from converter.media.archive import open_archive, zip_bytes
from converter.media.limits import Limits
from converter.media.torchfile import parse_torch

MIB = 2**20


def zipped(
    *members: tuple[str, bytes], method: int = zipfile.ZIP_STORED, comment: bytes = b""
) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", method) as archive:
        for name, content in members:
            archive.writestr(name, content)
        archive.comment = comment
    return buffer.getvalue()


class Pipe(io.RawIOBase):
    """A file that cannot seek, for which zipfile writes sizes after the data."""

    def __init__(self) -> None:
        self.written = b""

    def writable(self) -> bool:
        return True

    def write(self, data: bytes) -> int:  # type: ignore[override]
        self.written += bytes(data)
        return len(data)


def piped(*members: tuple[str, bytes], method: int, zip64: bool) -> bytes:
    pipe = Pipe()
    with zipfile.ZipFile(pipe, "w", method) as archive:  # type: ignore[call-overload]
        for name, content in members:
            with archive.open(name, "w", force_zip64=zip64) as stream:
                stream.write(content)
    return pipe.written


GOOD = (("x/a", b"first"), ("x/b", b""), ("x/ä 日", b"third" * 100))


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


def doubled() -> bytes:
    data = zipped(("x/data.pkl", b"a"), ("x/data.pkm", b"b"))
    return data.replace(b"x/data.pkm", b"x/data.pkl")


def end_patched(data: bytes, offset: int, form: str, value: int) -> bytes:
    """With one field of the end record replaced."""
    patched = bytearray(data)
    struct.pack_into(form, patched, len(data) - 22 + offset, value)
    return bytes(patched)


def central_patched(data: bytes, offset: int, form: str, value: int) -> bytes:
    """With one field of the first directory entry replaced."""
    patched = bytearray(data)
    struct.pack_into(form, patched, data.index(b"PK\x01\x02") + offset, value)
    return bytes(patched)


def local_patched(data: bytes, offset: int, form: str, value: int) -> bytes:
    patched = bytearray(data)
    struct.pack_into(form, patched, offset, value)
    return bytes(patched)


def both_patched(data: bytes, local: int, central: int, form: str, value: int) -> bytes:
    return local_patched(central_patched(data, central, form, value), local, form, value)


def overlapping() -> bytes:
    """Two names for the same bytes, as in overlapping zip bombs."""
    data = zipped(("x/a", b"data"), ("x/b", b"data"))
    second = data.rindex(b"PK\x01\x02")
    patched = bytearray(data)
    struct.pack_into("<I", patched, second + 42, 0)
    return bytes(patched)


def prefixed() -> bytes:
    """A zip behind other bytes, with all offsets right."""
    buffer = io.BytesIO(b"12345")
    with zipfile.ZipFile(buffer, "a") as archive:
        archive.writestr("x/data.pkl", b"N.")
    return buffer.getvalue()


PLAIN = zipped(("x/data.pkl", b"\x80\x02N."), ("x/version", b"3\n"))
BROKEN: dict[str, tuple[Callable[[], bytes], type[UncropError], str]] = {
    "duplicate": (doubled, Unsafe, "two of this name"),
    "prefix": (lambda: b"#!/bin/sh\n" + PLAIN, FormatError, "gap"),
    "prefix, told": (prefixed, Unsafe, "at byte 0, found one at byte 5"),
    "suffix": (lambda: PLAIN + b"junk", FormatError, "last 22 bytes"),
    "comment": (lambda: zipped(*GOOD, comment=b"junk"), FormatError, "last 22 bytes"),
    "comment, cut": (lambda: end_patched(PLAIN, 20, "<H", 4), FormatError, "a comment"),
    "short": (lambda: PLAIN[:-1], FormatError, "last 22 bytes"),
    "empty": (lambda: b"", FormatError, "last 22 bytes"),
    "disk": (lambda: end_patched(PLAIN, 4, "<H", 1), FormatError, "one zip archive"),
    "first disk": (lambda: end_patched(PLAIN, 6, "<H", 1), FormatError, "one zip archive"),
    "count here": (lambda: end_patched(PLAIN, 8, "<H", 1), FormatError, "one zip archive"),
    "count low": (
        lambda: end_patched(end_patched(PLAIN, 8, "<H", 1), 10, "<H", 1),
        Unsafe,
        "no member",
    ),
    "count high": (
        lambda: end_patched(end_patched(PLAIN, 8, "<H", 3), 10, "<H", 3),
        FormatError,
        "directory entry|cut short",
    ),
    "zip64 count": (
        lambda: end_patched(end_patched(PLAIN, 8, "<H", 0xFFFF), 10, "<H", 0xFFFF),
        FormatError,
        "zip64",
    ),
    "zip64 start": (lambda: end_patched(PLAIN, 16, "<I", 0xFFFFFFFF), FormatError, "zip64"),
    "zip64 size": (lambda: end_patched(PLAIN, 12, "<I", 0xFFFFFFFF), FormatError, "zip64"),
    "start": (lambda: end_patched(PLAIN, 16, "<I", 0), FormatError, "gap"),
    "zip64 member": (lambda: central_patched(PLAIN, 24, "<I", 0xFFFFFFFF), FormatError, "zip64"),
    "zip64 stored": (lambda: central_patched(PLAIN, 20, "<I", 0xFFFFFFFF), FormatError, "zip64"),
    "encrypted": (lambda: both_patched(PLAIN, 6, 8, "<H", 1), Unsafe, "encrypted"),
    "masked": (lambda: both_patched(PLAIN, 6, 8, "<H", 0x2000), Unsafe, "encrypted"),
    "method": (lambda: both_patched(PLAIN, 8, 10, "<H", 14), FormatError, "method 14"),
    "size": (lambda: central_patched(PLAIN, 24, "<I", 3), FormatError, "stored bytes"),
    "local size": (lambda: local_patched(PLAIN, 22, "<I", 3), Unsafe, "zip directory"),
    "local crc": (lambda: local_patched(PLAIN, 14, "<I", 3), Unsafe, "zip directory"),
    "local zip64 lie": (
        lambda: local_patched(PLAIN, 18, "<Q", 0xFFFFFFFFFFFFFFFF),
        Unsafe,
        "zip directory",
    ),
    "local method": (lambda: local_patched(PLAIN, 8, "<H", 8), Unsafe, "zip directory"),
    "local flags": (lambda: local_patched(PLAIN, 6, "<H", 0x800), Unsafe, "zip directory"),
    "local name": (lambda: PLAIN.replace(b"data.pkl", b"data.pkm", 1), Unsafe, "zip directory"),
    "local extra": (lambda: local_patched(PLAIN, 28, "<H", 1), Unsafe, "zip directory|at byte"),
    "local signature": (lambda: local_patched(PLAIN, 0, "<I", 0), Unsafe, "zip directory"),
    "descriptor": (
        lambda: local_patched(piped(*GOOD, method=8, zip64=False), 30 + 3 + 7 + 4, "<I", 1),
        Unsafe,
        "zip directory",
    ),
    "no descriptor": (lambda: both_patched(PLAIN, 6, 8, "<H", 8), Unsafe, "zip directory"),
    "overlap": (overlapping, Unsafe, "member at byte"),
    "offset": (lambda: central_patched(PLAIN, 42, "<I", 2**31), Unsafe, "member at byte"),
    "member disk": (lambda: central_patched(PLAIN, 34, "<H", 1), FormatError, "directory entry"),
    "name length": (lambda: central_patched(PLAIN, 28, "<H", 9999), FormatError, "entry"),
    "extra length": (lambda: central_patched(PLAIN, 30, "<H", 1), FormatError, "entry"),
    "path up": (lambda: zipped(("x/../../etc/passwd", b"a")), Unsafe, "folder/name"),
    "path absolute": (lambda: zipped(("/etc/passwd", b"a")), Unsafe, "folder/name"),
    "path drive": (lambda: zipped(("x/c:\\a", b"a")).replace(b"c:/", b"c:\\"), Unsafe, "folder"),
    "path dot": (lambda: zipped(("./a", b"a")), Unsafe, "folder/name"),
    "folder": (lambda: zipped(("x/", b"")), Unsafe, "folder/name"),
    "name NUL": (lambda: zipped(("x/a1b", b"a")).replace(b"a1b", b"a\0b"), Unsafe, "folder/name"),
    "name UTF-8": (
        lambda: zipped(("x/\u00e4", b"a")).replace(b"\xc3\xa4", b"\xff\xff"),
        FormatError,
        "UTF-8",
    ),
}


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
