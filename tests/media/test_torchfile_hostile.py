"""torch.save files made to run code, to crash numpy or to exhaust memory: refused, one error each.

Every stream goes through both containers. Streams that would run something name `CANARY`, whose
effect is looked for afterwards.
"""

from __future__ import annotations

import io
import os
import pickle
import re
import struct
import zipfile
from pathlib import Path

import numpy as np
import pytest

from converter.errors import FormatError, UncropError
from converter.errors import UnsafeFileError as Unsafe
from converter.media.limits import Limits
from converter.media.torchfile import parse_torch, read_torch
from fixtures.hostile.streams import (
    CANARY,
    RUNS_CODE,
    STORAGE_0,
    STREAMS,
    array,
    call,
    dict_of,
    dtype,
    in_legacy,
    in_zip,
    laughs,
    name,
    new_array,
    number,
    pack,
    raw,
    storage,
    stream_of,
    tensor,
    text,
)


@pytest.fixture(autouse=True)
def nothing_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):  # type: ignore[no-untyped-def]
    monkeypatch.chdir(tmp_path)
    yield
    assert not Path(CANARY).exists()


def test_the_assembler_makes_good_files() -> None:
    for operations in (array(), tensor(), dict_of(array())):
        assert parse_torch(in_zip(stream_of(operations)), "x").content is not None
    assert parse_torch(in_legacy(stream_of(array())), "x").content is not None
    content = parse_torch(in_legacy(stream_of(tensor()), ["0"], STORAGE_0), "x").content
    np.testing.assert_array_equal(content, np.arange(4))  # type: ignore[arg-type]


# --- streams ------------------------------------------------------------------------------------


@pytest.mark.parametrize("key", RUNS_CODE)
def test_code_is_named_and_not_run(key: str) -> None:
    operations, found = RUNS_CODE[key]
    with pytest.raises(Unsafe, match=found.replace(".", r"\.")):
        parse_torch(in_zip(stream_of(operations)), "x")


def test_the_message_says_what_the_file_asks_for_and_what_to_do(tmp_path: Path) -> None:
    path = tmp_path / "00000.frame"
    path.write_bytes(in_zip(stream_of(RUNS_CODE["reduce"][0])))
    with pytest.raises(Unsafe) as caught:
        read_torch(path)
    assert str(path) in str(caught.value)
    assert "asks Python to run posix.system; do not open it with torch.load" in str(caught.value)


WHY = {
    "'O8'": array(kind=dtype("O8", "|"), data=b"\1" * 8),
    "a new numpy.ndarray": call(
        "numpy.core.multiarray._reconstruct", name("numpy.dtype"), b"K\0\x85", raw(b"b")
    )
    + array()[len(new_array()) :],
    "another encoding": new_array()
    + pack(
        b"K\1",
        pack(number(1)),
        dtype(),
        b"\x89",
        call("_codecs.encode", text("AAAA"), text("utf8")),
    )
    + b"b",
    "contiguous": tensor((4,), (1,), offset=-4),
    "16 bytes of float32, found 12": tensor((4,), (1,), offset=1),
    "another persistent id": tensor(
        held=pack(text("module"), name("torch.FloatStorage"), text("0"), text("cpu"), b"K\4") + b"Q"
    ),
    "levels of nesting": b"(" * 100,
    "a whole pickle stream": text("abc")[:-1],
    "at most 1000000 values": laughs(30),
}


@pytest.mark.parametrize("reason", WHY)
def test_the_reason_is_told(reason: str) -> None:
    with pytest.raises(UncropError, match=reason):
        parse_torch(
            in_zip(b"\x80\x02" + WHY[reason] + b"." * (reason != "a whole pickle stream")), "x"
        )


def two_arrays() -> tuple[bytes, int]:
    """A stream of two arrays, and where the second begins, which is read by the shortcut."""
    stream = pickle.dumps([np.arange(4.0), np.arange(3.0)], protocol=2)
    return stream, stream.rindex(b"K\0\x85") - 4


@pytest.mark.parametrize("at", [0, 2, 25, 28, 62])
def test_the_shortcut_for_usual_arrays_checks_what_it_skips(at: int) -> None:
    """Each number by which the second array refers back is replaced by every other one."""
    stream, second = two_arrays()
    assert stream[second + at : second + at + 1] == b"h"
    for other in set(range(stream.count(b"q"))) - {stream[second + at + 1]}:
        patched = bytearray(stream)
        patched[second + at + 1] = other
        with pytest.raises(UncropError):
            parse_torch(in_zip(bytes(patched)), "x")


@pytest.mark.parametrize("at", [0, 2, 25, 28, 62])
def test_the_shortcut_for_usual_arrays_does_not_compare_arrays(at: int) -> None:
    """What an array read by the shortcut is compared with would be compared with each number."""
    stream = pickle.dumps([np.arange(4.0), np.arange(3.0), np.arange(3.0)], protocol=2)
    second, third = (match.start() for match in re.finditer(rb"h.h.K\0\x85", stream, re.DOTALL))
    patched = bytearray(stream)
    patched[third + at + 1] = patched[second + 16]  # where the second array is stored
    with pytest.raises(UncropError):
        parse_torch(in_zip(bytes(patched)), "x")


def test_the_shortcut_for_usual_arrays_checks_the_shape() -> None:
    stream, second = two_arrays()
    shape = stream.index(b"K\3\x85", second) + 2
    for wrong in (b"\x86", b"\x87", b")"):
        with pytest.raises(UncropError):
            parse_torch(in_zip(stream[:shape] + wrong + stream[shape + 1 :]), "x")


def test_the_shortcut_for_usual_arrays_keeps_the_text() -> None:
    """A pickler recalls one-letter text, which CPython shares with the bytes of an array."""
    arrays = [np.array([i], np.uint8) for i in (7, 97)]
    stream = pickle.dumps([*arrays, "a"], protocol=2)
    before, _, after = stream.rpartition(b"X\1\0\0\0a")
    if b"X\1\0\0\0aq" in before:  # a CPython that does not share it
        stored = before[before.rindex(b"X\1\0\0\0aq") + 7]
        stream = before + b"h" + bytes([stored]) + after
    content = parse_torch(in_zip(stream), "x").content
    assert content[2] == "a"  # type: ignore[index, call-overload]


def test_the_shortcut_for_usual_arrays_keeps_all_that_it_stores() -> None:
    """Recalled or not, later operations find what the single operations would have stored."""
    stream, second = two_arrays()
    shape = stream[second:].index(b"K\3\x85") + second + 4
    for at, wanted in ((second + 8, (0,)), (shape, (3,))):
        assert stream[at - 1 : at] == b"q"
        recalled = stream[:-2] + b"h" + stream[at : at + 1] + b"e."
        content = parse_torch(in_zip(recalled), "x").content
        assert content[2] == wanted  # type: ignore[index]


@pytest.mark.parametrize("key", STREAMS)
def test_a_hostile_stream_is_refused(key: str) -> None:
    stream = stream_of(STREAMS[key])
    for data in (in_zip(stream), in_legacy(stream), in_legacy(stream, ["0"], STORAGE_0)):
        with pytest.raises(UncropError) as caught:
            parse_torch(data, "x")
        assert type(caught.value) in (Unsafe, FormatError)
        assert str(caught.value).isprintable()
        assert len(str(caught.value)) < 500


def test_the_canary_works(tmp_path: Path) -> None:
    """The streams that should run something do run it where they are run."""
    pickle.loads(stream_of(RUNS_CODE["reduce"][0]))  # noqa: TID251 - the point of the test
    assert Path(CANARY).exists()
    os.remove(CANARY)


def test_copies_of_shared_bytes_are_bounded() -> None:
    once = text("a" * 2**20) + b"q\0" + name("_codecs.encode") + b"q\1" + text("latin1") + b"q\2"
    again = b"h\1h\0h\2\x86R"
    with pytest.raises(Unsafe, match="again and again"):
        parse_torch(in_zip(stream_of(b"(" + once + again * 100 + b"t")), "x")


def test_copies_of_a_storage_are_bounded() -> None:
    stream = stream_of(b"](" + tensor((4,), (1,)) * 1000 + b"e")
    parse_torch(in_zip(stream), "x")
    big = np.zeros(10**6)
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        one = tensor(big.shape, (1,), held=storage("DoubleStorage", big.size))
        archive.writestr("x/data.pkl", stream_of(b"](" + one * 20 + b"e"))
        archive.writestr("x/data/0", big.tobytes())
    with pytest.raises(Unsafe, match="again and again"):
        parse_torch(buffer.getvalue(), "x")


def test_bytes_after_the_stream_are_refused() -> None:
    with pytest.raises(FormatError, match="bytes after it"):
        parse_torch(in_zip(stream_of(b"N") + b"N."), "x")


# --- the legacy container -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("keys", "storages", "message"),
    [
        ([], b"", "list of the storages"),
        (["0", "0"], STORAGE_0 * 2, "list of the storages"),
        (["1"], STORAGE_0, "list of the storages"),
        ([0], STORAGE_0, "list of the storages"),
        (["0"], b"", "another count"),
        (["0"], STORAGE_0[:-1], "bytes, found"),
        (["0"], STORAGE_0 + b"\0", "more bytes"),
        (["0"], struct.pack("<Q", 2**36) + STORAGE_0[8:], "another count"),
    ],
)
def test_legacy_storages_have_to_fit(keys: object, storages: bytes, message: str) -> None:
    with pytest.raises(FormatError, match=message):
        parse_torch(in_legacy(stream_of(tensor()), keys, storages), "x")


def test_a_short_legacy_file_cannot_declare_512_gib() -> None:
    n_elements = 2**36
    stream = stream_of(tensor((4,), held=storage("DoubleStorage", n_elements)))
    with pytest.raises(Unsafe, match="elements"):
        parse_torch(in_legacy(stream, ["0"], struct.pack("<Q", n_elements)), "x")
    stream = stream_of(tensor((4,), held=storage("DoubleStorage", 2**27)))
    with pytest.raises(FormatError, match="bytes"):
        parse_torch(in_legacy(stream, ["0"], struct.pack("<Q", 2**27)), "x")


def test_legacy_storages_have_one_description() -> None:
    two = b"](" + tensor() + tensor((2,), held=storage("DoubleStorage", 2)) + b"e"
    with pytest.raises(FormatError, match="two that differ"):
        parse_torch(in_legacy(stream_of(two), ["0"], STORAGE_0), "x")


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (b"M\xe9\x03.", b"M\xea\x03.", "protocol"),
        (b"\x88", b"\x89", "little-endian"),
        (b"\x80\x02\x8a\x0a\x6c\xfc", b"\x80\x02]0\x8a\x0a\x6c\xfc", "POP"),
    ],
)
def test_the_legacy_header_is_checked(old: bytes, new: bytes, message: str) -> None:
    data = in_legacy(stream_of(b"N")).replace(old, new, 1)
    with pytest.raises(UncropError, match=message):
        parse_torch(data, "x")


def test_file_size_is_limited(tmp_path: Path) -> None:
    path = tmp_path / "a.pt"
    data = in_zip(stream_of(b"N"))
    path.write_bytes(data)
    read_torch(path, Limits(file_bytes=len(data)))
    with pytest.raises(Unsafe, match=f"at most {len(data) - 1} bytes"):
        read_torch(path, Limits(file_bytes=len(data) - 1))
