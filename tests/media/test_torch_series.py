"""A series of torch.save files reads as each file by itself: same content, same refusals."""

from __future__ import annotations

import io
import pickle
import struct
import zipfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from converter.errors import FormatError, MissingInputError, UncropError
from converter.errors import UnsafeFileError as Unsafe
from converter.media.limits import DEFAULT_LIMITS, Limits
from converter.media.pickle_layout import Layout, learn
from converter.media.torch_series import TorchSeries
from converter.media.torchfile import TorchFile, parse_torch, read_torch, torch_bytes

FIXTURES = Path(__file__).resolve().parents[2] / "fixtures"
FILES = sorted((FIXTURES / "torch_files").glob("*.[fp]*t*"))
FRAMES = sorted((FIXTURES / "sample").rglob("*.frame"))[:12]


def assert_same(found: object, wanted: object) -> None:
    """Equal in types, bits and what `TorchFile` promises about arrays."""
    assert type(found) is type(wanted)
    if isinstance(found, np.ndarray) and isinstance(wanted, np.ndarray):
        assert found.dtype == wanted.dtype
        assert found.shape == wanted.shape
        assert found.flags.c_contiguous
        assert found.flags.owndata
        assert found.flags.writeable
        assert found.flags.aligned
        assert found.tobytes() == wanted.tobytes()
    elif isinstance(found, dict) and isinstance(wanted, dict):
        assert list(found) == list(wanted)
        for key in wanted:
            assert_same(found[key], wanted[key])
    elif isinstance(found, list | tuple) and isinstance(wanted, list | tuple):
        assert len(found) == len(wanted)
        for one, other in zip(found, wanted, strict=True):
            assert_same(one, other)
    else:
        assert found == wanted or (found != found and wanted != wanted)


def outcome(parse: Any, data: bytes) -> TorchFile | tuple[type[Exception], str]:
    try:
        return parse(data, "x")  # type: ignore[no-any-return]
    except UncropError as error:
        return type(error), str(error)


def assert_equal_outcome(series: TorchSeries, data: bytes) -> None:
    found, wanted = outcome(series.parse, data), outcome(parse_torch, data)
    if isinstance(wanted, TorchFile):
        assert isinstance(found, TorchFile)
        assert found.stem == wanted.stem
        assert_same(found.content, wanted.content)
    else:
        assert found == wanted


def frame(seed: int = 0, **more: Any) -> dict[str, Any]:
    rng = np.random.default_rng(seed)

    def numbers(*shape: int) -> Any:
        return rng.normal(size=shape).astype(np.float32)

    return {
        "flame": {"exp": numbers(1, 20), "sh": numbers(1, 9, 3), "none": np.zeros((1, 0))},
        "opencv": {"R": np.asfortranarray(numbers(1, 3, 3)), "t": numbers(1, 3), "n": numbers()},
        "flag": np.array([seed % 2 == 0]),
        "img_size": np.array([512, 512]),
        "frame_id": f"{seed:05d}",
        "global_step": seed,
    } | more


def written(content: Any, stem: str = "00000") -> bytes:
    return torch_bytes(content, stem=stem, tensors=False)


def by_torch(content: Any, path: Path) -> bytes:
    torch = pytest.importorskip("torch")
    torch.save(content, path)
    return path.read_bytes()


def stream_in(data: bytes) -> bytes:
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        return archive.read(archive.namelist()[0])


def with_stream(data: bytes, stream: bytes) -> bytes:
    """The file with another stream of the same length, its checksums right."""
    old = stream_in(data)
    assert len(old) == len(stream)
    assert data.count(old) == 1
    data = data.replace(old, stream)
    old_crc, crc = (struct.pack("<I", zlib.crc32(code)) for code in (old, stream))
    assert data.count(old_crc) == 2
    return data.replace(old_crc, crc)


def learned(stream: bytes) -> Layout:
    layout = learn(stream, DEFAULT_LIMITS)
    assert layout is not None
    return layout


# --- equal to reading one by one ----------------------------------------------------------------


def test_all_fixtures_read_alike_in_any_order() -> None:
    series = TorchSeries()
    assert len(FRAMES) > 3
    assert len(FILES) > 10
    for path in (*FILES, *FRAMES, *reversed(FILES), *FRAMES):
        found, wanted = series.read(path), read_torch(path)
        assert found.stem == wanted.stem
        assert_same(found.content, wanted.content)


@pytest.mark.shared
def test_all_shared_files_read_alike(shared_data: Path) -> None:
    paths = [
        path for suffix in ("frame", "pt") for path in sorted(shared_data.rglob(f"*.{suffix}"))
    ]
    assert len(paths) > 100
    series = TorchSeries()
    for path in paths * 2:
        assert_equal_outcome(series, path.read_bytes())


def test_mixed_writers_missing_keys_and_sizes_in_one_folder(tmp_path: Path) -> None:
    series = TorchSeries()
    files = []
    for i in range(12):
        without_step = {k: v for k, v in frame(i).items() if k != "global_step"}
        wider = frame(i, flame={"exp": np.full((1, 50), i, np.float32)})
        for j, content in enumerate((frame(i), without_step, wider)):
            files.append(written(content, f"{i:05d}"))
            files.append(by_torch(content, tmp_path / f"{i:0{4 + j}d}.frame"))
    for data in files:
        assert_equal_outcome(series, data)


def test_numbers_whose_operations_differ_in_length() -> None:
    series = TorchSeries()
    for step in (0, 1, 255, 256, 65535, 65536, 2**31 - 1, -1, -(2**31), 2**31, 2**70, None, 1.5):
        for name in ("00000", "", "é日", "0" * 300):
            assert_equal_outcome(series, written(frame(3, global_step=step, frame_id=name)))


def test_more_layouts_than_are_kept() -> None:
    series = TorchSeries()
    for i in range(20):
        assert_equal_outcome(series, written(frame(i, extra={str(i): np.arange(4)})))
    for i in range(20):
        assert_equal_outcome(series, written(frame(i + 50, extra={str(i): np.arange(4)})))


def test_contents_are_not_shared_between_files() -> None:
    series = TorchSeries()
    contents: list[Any] = [series.parse(written(frame(3)), "x").content for _ in range(3)]
    contents[1]["flame"]["exp"][:] = 7
    contents[1]["flag"][:] = True
    contents[1]["opencv"]["extra"] = 1
    assert_same(contents[2], frame(3) | {"opencv": contents[0]["opencv"]})
    assert_same(series.parse(written(frame(3)), "x").content, contents[0])


def test_an_alias_stays_an_alias() -> None:
    array = np.arange(5.0)
    data = written({"a": array, "b": {"c": 1}})
    pickled = pickle.dumps({"a": array, "b": array, "c": [array, "x"]}, protocol=2)
    content: Any = learned(pickled).content(pickled)
    assert content["a"] is content["b"]
    assert content["a"] is content["c"][0]
    assert_equal_outcome(TorchSeries(), data)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(MissingInputError, match=r"00000\.frame"):
        TorchSeries().read(tmp_path / "00000.frame")


# --- what is learned ----------------------------------------------------------------------------


@pytest.mark.parametrize("writer", ["ours", "torch"])
def test_frames_are_taken_by_layout(writer: str, tmp_path: Path) -> None:
    """Otherwise nothing is gained; only the flag and empty arrays are literal."""
    files = [
        written(frame(i)) if writer == "ours" else by_torch(frame(i), tmp_path / f"{i:05d}.frame")
        for i in (2, 4, 6, 2000)
    ]
    layout = learned(stream_in(files[0]))
    for data in files:
        content = layout.content(stream_in(data))
        assert content is not None
        assert_same(content, parse_torch(data, "x").content)


TAIL = b"q\x14h\x02\x86q\x15Rq\x16tq\x17b"


def tailed(text: bytes) -> bytes:
    """An array of 4 bytes whose numbers are ``text``; it is stored under 20, and so on to 23."""
    head = b"h\x00h\x01K\x00\x85q\x0ah\x03\x87q\x0bRq\x0c(K\x01K\x04\x85q\x0dh\x04\x89h\x05"
    return head + b"X" + struct.pack("<I", len(text)) + text + TAIL


NEW_ARRAY = b"h\x00h\x01K\x00\x85h\x03\x87R"
DTYPE_STATE = b"(K\x03X\1\0\0\0|NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb"
NEW_ARRAY_STORED = b"h\x00h\x01K\x00\x85q\x0ah\x03\x87q\x0bRq\x0c"
Z = b"h\x05X\1\0\0\0zh\x02\x86R"
# Other things under 20 to 23, as arguments of a dtype that nobody looks at.
STALE = (
    b"X\1\0\0\0zq\x14X\1\0\0\0yX\1\0\0\0z\x86q\x15h\x05X\4\0\0\0zzzzh\x02\x86Rq\x16"
    b"(K\x01K\x04\x85h\x04\x89h\x16tq\x17"
)


PREAMBLE = (
    b"\x80\x02}q\x30(X\1\0\0\0pq\x31]q\x33("
    b"cnumpy.core.multiarray\n_reconstruct\nq\x00cnumpy\nndarray\nq\x01K\x00\x85"
    b"c_codecs\nencode\nq\x05X\1\0\0\0bX\6\0\0\0latin1q\x02\x86Rq\x03\x87R"
    b"(K\x01K\x01\x85cnumpy\ndtype\nX\2\0\0\0u1\x89\x88\x87R"
    + DTYPE_STATE
    + b"q\x04\x89"
    + Z
    + b"tb"
    + NEW_ARRAY
    + b"(K\x01K\x01\x85cnumpy\ndtype\n(X\2\0\0\0u1"
    + STALE
    + b"tR"
    + DTYPE_STATE
    + b"\x89"
    + Z
    + b"tbeX\1\0\0\0aq\x32"
)


def in_zip(stream: bytes) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("00000/data.pkl", stream)
        archive.writestr("00000/version", b"3\n")
    return buffer.getvalue()


def test_the_assembler_makes_good_files() -> None:
    stream = PREAMBLE + tailed(b"abcd") + b"u."
    content: Any = parse_torch(in_zip(stream), "x").content
    assert content["a"].tobytes() == b"abcd"
    found: Any = learned(stream).content(stream.replace(b"abcd", b"efgh"))
    assert found["a"].tobytes() == b"efgh"


@pytest.mark.parametrize(
    "end",
    [
        b"X\1\0\0\0bh\x14u.",
        b"X\1\0\0\0bh\x15u.",
        b"h\x14K\1u.",
        b"X\1\0\0\0b(h\x14K\1tu.",
        b"X\1\0\0\0b]h\x14au.",
    ],
    ids=["as a value", "as a pair", "as a key", "in a tuple", "in a list"],
)
def test_numbers_used_again_as_text_are_not_learned(end: bytes) -> None:
    """What the text of an array says would decide about more than the array."""
    stream = PREAMBLE + tailed(b"abcd") + end
    parse_torch(in_zip(stream), "x")
    assert learn(stream, DEFAULT_LIMITS) is None
    series = TorchSeries()
    for text in (b"abcd", b"wxyz", b"ab\xc3\xbc", b"\xc3\xbcab"):
        assert_equal_outcome(series, in_zip(stream.replace(b"abcd", text)))


@pytest.mark.parametrize(
    "second",
    [
        NEW_ARRAY + b"(K\x01K\x04\x85h\x04\x89h\x16tb",
        NEW_ARRAY + b"h\x17b",
        NEW_ARRAY + b"(K\x01K\x04\x85h\x04\x89h\x05h\x14h\x02\x86Rtb",
        NEW_ARRAY + b"(K\x01K\x04\x85h\x04\x89h\x05h\x15Rtb",
    ],
    ids=["bytes", "state", "text", "arguments"],
)
def test_numbers_used_again_as_numbers_are_not_learned(second: bytes) -> None:
    stream = PREAMBLE + tailed(b"abcd") + b"X\1\0\0\0b" + second + b"u."
    content: Any = parse_torch(in_zip(stream), "x").content
    assert content["b"].tobytes() == b"abcd"
    assert learn(stream, DEFAULT_LIMITS) is None


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (b"(K\x01K\x04", b"(K\x02K\x04"),
        (b"(K\x01K\x04", b"(h\x50K\x04"),
        (b"(K\x01K\x04", b"(NK\x01K\x04"),
        (b"K\x04\x85", b"h\x50\x85"),
        (b"K\x04\x85", b"]"),
        (b"h\x04\x89", b"N\x89"),
        (b"h\x04\x89", b"h\x04K\x01"),
        (b"h\x05", b"h\x05h\x05"),
        (b"h\x05", b"h\x00"),
        (b"h\x05", b"h\x51"),
        (b"q\x14h\x02", b"q\x14h\x00"),
        (b"q\x14h\x02", b"q\x14h\x51"),
        (NEW_ARRAY_STORED, b"}"),
        (NEW_ARRAY_STORED, b""),
        (NEW_ARRAY_STORED, b"cnumpy\ndtype\nX\2\0\0\0u1\x89\x88\x87R"),
    ],
)
def test_other_states_of_arrays_are_not_learned(old: bytes, new: bytes) -> None:
    """Under 80 and 81: a number and a text, which may differ in the next file."""
    values = b"X\1\0\0\0nK\1q\x50X\1\0\0\0mX\6\0\0\0latin1q\x51X\1\0\0\0a"
    array = tailed(b"abcd")
    assert learn(PREAMBLE + array + values + array + b"u.", DEFAULT_LIMITS) is not None
    assert old in array
    patched = array.replace(old, new, 1)
    assert learn(PREAMBLE + array + values + patched + b"u.", DEFAULT_LIMITS) is None


def test_numbers_that_name_their_encoding_are_not_learned() -> None:
    array = tailed(b"latin1").replace(b"K\x04\x85", b"K\x06\x85")
    stream = PREAMBLE + array.replace(b"q\x14h\x02", b"q\x02h\x02") + b"u."
    parse_torch(in_zip(stream), "x")
    other = PREAMBLE + array.replace(b"latin1q\x14h\x02", b"cp1252q\x02h\x02") + b"u."
    series = TorchSeries()
    for code in (stream, other):
        assert_equal_outcome(series, in_zip(code))
    with pytest.raises(Unsafe, match="another encoding"):
        series.parse(in_zip(other), "x")


def test_an_array_with_another_tail_is_read() -> None:
    """As long as the usual one, but the last operations store the array over its shape."""
    array = tailed(b"abcd").replace(TAIL, b"q\x14h\x02\x86Rtq\x17bq\x0dq\x0d")
    stream = PREAMBLE + array + b"X\1\0\0\0bh\x0dX\1\0\0\0cK\1u."
    series = TorchSeries()
    for text in (b"abcd", b"abcd", b"efgh"):
        assert_equal_outcome(series, in_zip(stream.replace(b"abcd", text)))


@pytest.mark.parametrize(
    "stream",
    [
        PREAMBLE + tailed(b"abcd") + b"X\1\0\0\0bX\1\0\0\0vq\x18X\1\0\0\0cu}h\x18K\1su.",
        PREAMBLE + tailed(b"abcd") + b"X\1\0\0\0bX\5\0\0\0numpyX\7\0\0\0ndarray\x93u.",
        PREAMBLE + tailed(b"abcd") + b"X\1\0\0\0b]q\x19NaX\1\0\0\0ch\x19u.",
        PREAMBLE + tailed(b"abcd") + b"u..",
        b"\x80\x02K\1.",
        b"\x80\x02]K\1a.",
    ],
    ids=[
        "a value as a key",
        "a value as a name",
        "a list twice",
        "bytes after it",
        "a number",
        "a list",
    ],
)
def test_other_streams_are_not_learned(stream: bytes) -> None:
    assert learn(stream, DEFAULT_LIMITS) is None


def test_tensors_are_read_without_a_layout() -> None:
    content: Any = frame(3)
    data = torch_bytes(content, stem="00000", tensors=True)
    assert learn(stream_in(data), DEFAULT_LIMITS) is None
    series = TorchSeries()
    for _ in range(3):
        assert_equal_outcome(series, data)


# --- what a layout must not let through ---------------------------------------------------------


def arrays_of(stream: bytes) -> tuple[Layout, list[tuple[int, int]]]:
    """The layout of a stream, and where the texts of its arrays are."""
    places = []
    at = 0
    layout = learned(stream)
    for literal, n_literal, is_text, n_bytes in layout.steps:
        at = stream.index(literal, at) + n_literal
        if is_text:
            end = at + 4 + struct.unpack_from("<I", stream, at)[0]
            places += [(at + 4, end)] * (n_bytes >= 0)
            at = end
    return layout, places


def replaced(stream: bytes, place: tuple[int, int], text: bytes) -> bytes:
    begin, end = place
    return stream[: begin - 4] + struct.pack("<I", len(text)) + text + stream[end:]


TWO = {"a": np.frombuffer(b"abcd", np.uint8), "b": np.frombuffer(b"efgh", np.uint8)}


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (b"abc", b"efghi"),
        (b"abc\xc3", b"\xa4efg"),
        (b"abcd\xc3", b"\xa4fgh"),
        (b"abc\xc3", b"efgh"),
        (b"abcd", "efg€".encode()),
        (b"abcd", b"efg\xed\xa0\x80"),
        (b"abcd", b"efg\xc0\x80"),
        (b"", b"abcdefgh"),
    ],
)
def test_numbers_must_fit_each_array_by_itself(first: bytes, second: bytes) -> None:
    """Together these texts have the right length, or decode, or both."""
    stream = pickle.dumps(TWO, protocol=2)
    layout, places = arrays_of(stream)
    assert len(places) == 2
    mutated = replaced(replaced(stream, places[1], second), places[0], first)
    assert layout.content(mutated) is None
    series = TorchSeries()
    for code in (stream, mutated, stream):
        assert_equal_outcome(series, in_zip(code))
    with pytest.raises(UncropError):
        series.parse(in_zip(mutated), "x")


def test_numbers_of_two_bytes_in_utf_8_are_taken() -> None:
    stream = pickle.dumps(TWO, protocol=2)
    layout, places = arrays_of(stream)
    content: Any = layout.content(replaced(stream, places[0], "äöüß".encode()))
    assert content["a"].tobytes() == "äöüß".encode("latin-1")


def test_every_cut_and_extended_stream_is_left_to_the_interpreter() -> None:
    stream = stream_in(written(frame(3)))
    layout = learned(stream)
    for n_bytes in range(len(stream)):
        assert layout.content(stream[:n_bytes]) is None
    assert layout.content(stream + b".") is None
    assert layout.content(b"") is None


@pytest.mark.parametrize("step", [3, 300, 70_000])
def test_every_flipped_byte_of_a_stream_has_the_outcome_of_the_interpreter(step: int) -> None:
    data = written(frame(3, global_step=step))
    stream = stream_in(data)
    series = TorchSeries()
    series.parse(data, "x")
    for i in range(len(stream)):
        for bits in (1, 0x80) if step == 3 else (0x80,):
            flipped = bytearray(stream)
            flipped[i] ^= bits
            assert_equal_outcome(series, with_stream(data, bytes(flipped)))


@pytest.mark.parametrize("writer", ["ours", "torch", "zipfile"])
def test_every_flipped_byte_of_a_zip_has_the_outcome_of_the_archive(
    writer: str, tmp_path: Path
) -> None:
    small = {"a": np.arange(2.0), "b": 1}
    if writer == "ours":
        data = written(small)
    elif writer == "torch":
        data = by_torch(small, tmp_path / "00000.frame")
    else:
        data = in_zip(pickle.dumps(small, protocol=2))
    series = TorchSeries()
    series.parse(data, "x")
    for i in range(len(data)):
        for bits in (1, 4, 0x80):
            flipped = bytearray(data)
            flipped[i] ^= bits
            assert_equal_outcome(series, bytes(flipped))


@given(st.data())
def test_any_change_of_a_file_has_the_outcome_of_the_interpreter(data: st.DataObject) -> None:
    series, files = SERIES
    source = data.draw(st.sampled_from(files))
    edits = data.draw(st.lists(st.tuples(st.integers(0, len(source) - 1), st.integers(0, 255),
                                         st.sampled_from(["set", "insert", "delete"])),
                               min_size=1, max_size=3))  # fmt: skip
    fixed = data.draw(st.booleans())
    whole = bytearray(stream_in(source) if fixed else source)
    for at, value, kind in edits:
        at %= len(whole)
        if kind == "set" or fixed:
            whole[at] = value
        else:
            whole[at : at + (kind == "delete")] = bytes([value]) * (kind == "insert")
    changed = with_stream(source, bytes(whole)) if fixed else bytes(whole)
    assert_equal_outcome(series, changed)


def prepared() -> tuple[TorchSeries, list[bytes]]:
    series = TorchSeries()
    files = [path.read_bytes() for path in FRAMES] + [written(frame(i)) for i in range(3)]
    for data in files:
        series.parse(data, "x")
    return series, files


SERIES = prepared()


def copies(data: bytes, text: bytes) -> list[int]:
    found, at = [], data.find(text)
    while at >= 0:
        found.append(at)
        at = data.find(text, at + 1)
    return found


@pytest.mark.parametrize("writer", ["ours", "torch"])
def test_each_copy_of_the_name_has_to_agree(writer: str, tmp_path: Path) -> None:
    path = tmp_path / "00012.frame"
    data = written(frame(3), "00012") if writer == "ours" else by_torch(frame(3), path)
    series = TorchSeries()
    series.parse(data, "x")
    places = copies(data, b"00012/")
    assert len(places) >= 6
    for at in places:
        other = data[:at] + b"00013" + data[at + 5 :]
        with pytest.raises(Unsafe):
            series.parse(other, "x")
        assert_equal_outcome(series, other)
    renamed = data.replace(b"00012/", b"00345/")
    assert series.parse(renamed, "x").stem == "00345"


@pytest.mark.parametrize(
    "stem", [b"../ab", b"/abcd", b"a\\b/c", b"a\0b/c", b"\xff\xff\xff\xff\xff"]
)
def test_a_name_that_leads_elsewhere_is_refused(stem: bytes) -> None:
    data = written(frame(3), "00012")
    series = TorchSeries()
    series.parse(data, "x")
    forged = data.replace(b"00012/", stem + b"/")
    with pytest.raises(UncropError):
        series.parse(forged, "x")
    assert_equal_outcome(series, forged)


def test_a_name_with_a_dot_is_read() -> None:
    series = TorchSeries()
    for stem in ("00012", "0.012", "ab cd", "äbc", "xyzc", "00013"):
        assert_equal_outcome(series, written(frame(3), stem))


@pytest.mark.parametrize("writer", ["ours", "torch"])
def test_each_copy_of_each_checksum_has_to_agree(writer: str, tmp_path: Path) -> None:
    path = tmp_path / "00012.frame"
    data = written(frame(3), "00012") if writer == "ours" else by_torch(frame(3), path)
    series = TorchSeries()
    series.parse(data, "x")
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        checksums = [struct.pack("<I", member.CRC) for member in archive.infolist()]
    for checksum in checksums:
        assert data.count(checksum) == 2
        for at in copies(data, checksum):
            other = data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]
            with pytest.raises(UncropError):
                series.parse(other, "x")
            assert_equal_outcome(series, other)


def test_a_wrong_checksum_of_the_stream_is_found() -> None:
    data = written(frame(3))
    series = TorchSeries()
    series.parse(data, "x")
    crc = struct.pack("<I", zlib.crc32(stream_in(data)))
    with pytest.raises(FormatError, match="CRC-32"):
        series.parse(data.replace(crc, b"\1\2\3\4"), "x")


@pytest.mark.parametrize("content", [b"", b"x"])
def test_a_checksum_of_zero_is_a_checksum(content: bytes) -> None:
    """An empty member has the checksum 0, as one that is left open in front of the data."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("00000/data.pkl", pickle.dumps({"a": 1, "b": 2}, protocol=2))
        archive.writestr("00000/more", content)
    data = buffer.getvalue()
    series = TorchSeries()
    series.parse(data, "x")
    entry = data.rindex(b"PK\1\2")
    forged = data[: entry + 16] + b"\1\2\3\4" + data[entry + 20 :]
    with pytest.raises(Unsafe):
        series.parse(forged, "x")


def test_limits_hold_for_a_series() -> None:
    content = {"a": np.zeros(10), "b": [np.zeros(3)]}
    series = TorchSeries(Limits(elements=9))
    for _ in range(3):
        with pytest.raises(Unsafe, match="extents from 0 to 9"):
            series.parse(written(content), "x")
    narrow = TorchSeries(Limits(elements=10))
    for n_elements in (9, 10, 10):
        narrow.parse(written({"a": np.zeros(n_elements)}), "x")
    with pytest.raises(Unsafe, match="extents from 0 to 10"):
        narrow.parse(written({"a": np.zeros(11)}), "x")


def test_deep_content_is_read_where_the_limits_allow_it() -> None:
    depth = 5000
    stream = b"\x80\x02" + b"}(X\1\0\0\0a" * depth + b"K\1" + b"u" * depth + b"."
    series = TorchSeries(Limits(nesting=depth + 1))
    for _ in range(3):
        content: Any = series.parse(in_zip(stream), "x").content
        for _ in range(depth):
            content = content["a"]
        assert content == 1


def test_more_numbers_than_a_small_file_may_copy_are_not_learned() -> None:
    stream = pickle.dumps({"a": np.zeros(10**6), "b": np.zeros(10**5)}, protocol=2)
    assert learn(stream, DEFAULT_LIMITS) is None


def test_truth_values_are_0_and_1() -> None:
    stream = pickle.dumps({"a": np.array([True, False]), "b": 1}, protocol=2)
    series = TorchSeries()
    for text in (b"\1\0", b"\0\0", b"\2\0", b"\1\1"):
        assert_equal_outcome(series, in_zip(stream.replace(b"\1\0q", text + b"q")))


def test_a_deflated_stream_is_not_taken_for_a_stored_one() -> None:
    content: dict[str, Any] = {"a": np.arange(30.0), "b": 1, "c": "text"}
    stream = pickle.dumps(content, protocol=2)
    large = content | {"a": np.random.default_rng(0).normal(size=900)}
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("00000/data.pkl", pickle.dumps(large, protocol=2))
    data = buffer.getvalue()
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        stored, crc = archive.infolist()[0].compress_size, archive.infolist()[0].CRC
    padded = pickle.dumps(content | {"c": "t" * (stored - len(stream) + 4)}, protocol=2)
    assert len(padded) == stored
    begin = 30 + len("00000/data.pkl")
    forged = data[:begin] + padded + data[begin + stored :]
    forged = forged.replace(struct.pack("<I", crc), struct.pack("<I", zlib.crc32(padded)))
    series = TorchSeries()
    for file in (in_zip(stream), data, forged):
        assert_equal_outcome(series, file)
