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

CANARY = "canary-was-here"


@pytest.fixture(autouse=True)
def nothing_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):  # type: ignore[no-untyped-def]
    monkeypatch.chdir(tmp_path)
    yield
    assert not Path(CANARY).exists()


# --- an assembler -------------------------------------------------------------------------------


def name(text: str) -> bytes:
    module, _, attribute = text.rpartition(".")
    return f"c{module}\n{attribute}\n".encode()


def text(value: str) -> bytes:
    raw = value.encode()
    return b"X" + struct.pack("<I", len(raw)) + raw


def number(value: int) -> bytes:
    n_bytes = value.bit_length() // 8 + 1
    return b"\x8a" + bytes([n_bytes]) + value.to_bytes(n_bytes, "little", signed=True)


def pack(*items: bytes) -> bytes:
    return b"(" + b"".join(items) + b"t"


def call(function: str, *arguments: bytes) -> bytes:
    return name(function) + pack(*arguments) + b"R"


def raw(value: bytes) -> bytes:
    return call("_codecs.encode", text(value.decode("latin-1")), text("latin1"))


def new_array() -> bytes:
    return call("numpy.core.multiarray._reconstruct", name("numpy.ndarray"), b"K\0\x85", raw(b"b"))


def dtype(kind: str = "f4", order: str = "<", *state: bytes) -> bytes:
    told = state or (b"K\3", text(order), b"N", b"N", b"N", number(-1), number(-1), b"K\0")
    return call("numpy.dtype", text(kind), b"\x89", b"\x88") + pack(*told) + b"b"


def array(
    shape: tuple[int, ...] = (2,),
    kind: bytes | None = None,
    data: bytes = b"\0" * 8,
    version: bytes = b"K\1",
    fortran: bytes = b"\x89",
) -> bytes:
    state = pack(version, pack(*map(number, shape)), kind or dtype(), fortran, raw(data))
    return new_array() + state + b"b"


def storage(kind: str = "FloatStorage", n_elements: int = 4, key: str = "0") -> bytes:
    return (
        pack(text("storage"), name(f"torch.{kind}"), text(key), text("cpu"), number(n_elements))
        + b"Q"
    )


def tensor(
    shape: tuple[int, ...] = (4,),
    strides: tuple[int, ...] = (1,),
    offset: int = 0,
    held: bytes | None = None,
    hooks: bytes | None = None,
) -> bytes:
    return call(
        "torch._utils._rebuild_tensor_v2",
        held or storage(),
        number(offset),
        pack(*map(number, shape)),
        pack(*map(number, strides)),
        b"\x89",
        hooks or call("collections.OrderedDict"),
    )


def in_zip(stream: bytes) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("x/data.pkl", stream)
        archive.writestr("x/version", b"3\n")
        archive.writestr("x/data/0", np.arange(4, dtype=np.float32).tobytes())
    return buffer.getvalue()


def in_legacy(stream: bytes, keys: object = (), storages: bytes = b"") -> bytes:
    parts = [0x1950A86A20F9469CFC6C, 1001, {"protocol_version": 1001, "little_endian": True}]
    head = b"".join(pickle.dumps(part, protocol=2) for part in parts)
    return head + stream + pickle.dumps(list(keys), protocol=2) + storages  # type: ignore[call-overload]


STORAGE_0 = struct.pack("<Q", 4) + np.arange(4, dtype=np.float32).tobytes()


def stream_of(*operations: bytes) -> bytes:
    return b"\x80\x02" + b"".join(operations) + b"."


def test_the_assembler_makes_good_files() -> None:
    for operations in (array(), tensor(), dict_of(array())):
        assert parse_torch(in_zip(stream_of(operations)), "x").content is not None
    assert parse_torch(in_legacy(stream_of(array())), "x").content is not None
    content = parse_torch(in_legacy(stream_of(tensor()), ["0"], STORAGE_0), "x").content
    np.testing.assert_array_equal(content, np.arange(4))  # type: ignore[arg-type]


def dict_of(value: bytes) -> bytes:
    return b"}" + text("a") + value + b"s"


# --- streams ------------------------------------------------------------------------------------

TOUCH = text(f"touch {CANARY}")
RUNS_CODE = {
    "reduce": (call("posix.system", TOUCH), "posix.system"),
    "reduce nt": (call("nt.system", TOUCH), "nt.system"),
    "eval": (call("builtins.eval", text(f"open('{CANARY}','w')")), "builtins.eval"),
    "python 2 eval": (call("__builtin__.eval", text("1")), "__builtin__.eval"),
    "import only": (name("subprocess.Popen"), "subprocess.Popen"),
    "stack_global": (text("os") + text("system") + b"\x93" + pack(TOUCH) + b"R", "os.system"),
    "inst": (b"(" + TOUCH + b"iposix\nsystem\n", "INST"),
    "obj": (b"(" + name("posix.system") + TOUCH + b"o", "posix.system"),
    "obj of ours": (b"(" + name("numpy.ndarray") + b"o", "OBJ"),
    "newobj": (name("numpy.ndarray") + pack(number(2)) + b"\x81", "NEWOBJ"),
    "newobj_ex": (name("numpy.ndarray") + b")" + b"}" + b"\x92", "NEWOBJ_EX"),
    "ext1": (b"\x82\x01", "EXT1"),
    "ext2": (b"\x83\x01\0", "EXT2"),
    "ext4": (b"\x84\x01\0\0\0", "EXT4"),
    "persid": (b"Pmodule\n", "PERSID"),
    "numpy load": (call("numpy.load", text("x")), "numpy.load"),
    "torch load": (call("torch.load", text("x")), "torch.load"),
    "codecs other": (call("_codecs.decode", text("x")), "_codecs.decode"),
    "submodule path": (
        text("numpy") + text("core.multiarray._reconstruct") + b"\x93",
        "numpy.core.multiarray._reconstruct",
    ),
    "call of text": (text("a") + b")R", "a call of something else"),
    "call of ndarray": (call("numpy.ndarray", number(2)), "a call of something else"),
    "call of a storage": (call("torch.FloatStorage", number(2**40)), "a call of something else"),
    "call with a list": (name("collections.OrderedDict") + b"]R", "a call of something else"),
    "sparse": (call("torch._utils._rebuild_sparse_tensor"), "_rebuild_sparse_tensor"),
    "bytearray": (call("__builtin__.bytearray", number(2**36)), "__builtin__.bytearray"),
    "bytes of a size": (call("__builtin__.bytes", number(2**36)), "a call of bytes"),
    "a class as a value": (b"}" + text("a") + name("numpy.ndarray") + b"s", "numpy.ndarray"),
    "a dtype as a value": (dict_of(dtype()), "a dtype"),
    "bytes as a value": (dict_of(raw(b"abc")), "raw bytes"),
    "a storage as a value": (dict_of(storage()), "a bare storage"),
    "an unbuilt array": (dict_of(new_array()), "without a state"),
    "build on a dict": (b"}" + b"}" + text("__class__") + text("x") + b"sb", "something else"),
    "build on text": (text("a") + b"}b", "something else"),
    "build twice": (
        new_array() + b"q\0" + array()[len(new_array()) :] + b"h\0" + b")b",
        "something else",
    ),
    "build an alias twice": (
        new_array() + b"q\0h\0" + array()[len(new_array()) :] + b"0",
        "POP",
    ),
}


def wrap(shape: bytes) -> bytes:
    return new_array() + pack(b"K\1", shape, dtype(), b"\x89", raw(b"")) + b"b"


FORGED = {
    "object dtype": array(kind=dtype("O8", "|"), data=b"\1" * 8),
    "object dtype by state": array(
        kind=dtype("f8", "<", b"K\3", text("|"), b"N", b"N", b"N", number(-1), number(-1), b"K\x3f")
    ),
    "short datetime": array(kind=dtype("M8", "<", b"K\4", text("<"), b"N", b"N", b"N")),
    "datetime": array(kind=dtype("M8")),
    "structured": array(
        kind=dtype(
            "V8",
            "|",
            b"K\3",
            text("|"),
            b"N",
            pack(text("a")),
            dict_of(pack(dtype(), number(2**20))),
            number(8),
            number(1),
            b"K\0",
        )
    ),
    "structured as f8": array(
        kind=dtype(
            "f8", "<", b"K\3", text("<"), b"N", pack(text("a")), b"}", number(8), number(1), b"K\0"
        )
    ),
    "void": array(kind=dtype("V2000000000", "|")),
    "text": array(kind=dtype("U500000000", "<")),
    "complex": array(kind=dtype("c8")),
    "long double": array(kind=dtype("f16")),
    "order =": array(kind=dtype("f4", "=")),
    "order of bytes": array(kind=dtype("u1", "<")),
    "item size": array(
        kind=dtype("f4", "<", b"K\3", text("<"), b"N", b"N", b"N", number(2**30), number(1), b"K\0")
    ),
    "dtype of a number": call("numpy.dtype", number(4)),
    "dtype of nothing": call("numpy.dtype"),
    "dtype state of arrays": array(
        kind=dtype(
            "f4", "<", array(), array(), array(), array(), array(), array(), array(), array()
        )
    ),
    "dtype unbuilt": array(kind=call("numpy.dtype", text("f4"), b"\x89", b"\x88")),
    "no dtype": array(kind=b"N"),
    "huge shape": array(shape=(2**40,)),
    "huge shape, no elements": array(shape=(0, 2**62, 2**62), data=b""),
    "huge product": array(shape=(10**6, 10**6, 10**6), data=b""),
    "product of zero": array(shape=(0, 10**6, 10**6), data=b""),
    "overflowing shape": array(shape=(2**32, 2**32), data=b""),
    "negative shape": array(shape=(-1,)),
    "two negative": array(shape=(-2, -1)),
    "many dimensions": array(shape=(1,) * 33, data=b"\0" * 4),
    "shape too large": array(shape=(3,)),
    "shape too small": array(shape=(1,)),
    "shape of truths": wrap(b"\x88\x85"),
    "shape of floats": wrap(b"G" + struct.pack(">d", 2.0) + b"\x85"),
    "shape of arrays": wrap(array() + b"\x85"),
    "shape a list": wrap(b"]"),
    "shape nothing": wrap(b"N"),
    "bits not bytes": new_array()
    + pack(b"K\1", pack(number(2)), dtype(), b"\x89", text("12345678"))
    + b"b",
    "list not bytes": new_array() + pack(b"K\1", pack(number(2)), dtype(), b"\x89", b"]") + b"b",
    "version": array(version=b"K\2"),
    "fortran a number": array(fortran=b"K\1"),
    "truth of 2": array(shape=(1,), kind=dtype("b1", "|"), data=b"\2"),
    "state too short": new_array() + b")b",
    "state a dict": new_array() + b"}b",
    "a subclass": call(
        "numpy.core.multiarray._reconstruct", name("numpy.dtype"), b"K\0\x85", raw(b"b")
    ),
    "scalar of an object": call(
        "numpy.core.multiarray.scalar", call("numpy.dtype", text("O8")), raw(b"\1" * 8)
    ),
    "scalar too short": call("numpy.core.multiarray.scalar", dtype(), raw(b"abc")),
    "scalar of text": call("numpy.core.multiarray.scalar", dtype(), text("abcd")),
    "scalar alone": call("numpy.core.multiarray.scalar"),
    "encode other": call("_codecs.encode", text("abc"), text("rot13")),
    "encode beyond": call("_codecs.encode", text("\u20ac"), text("latin1")),
    "encode bytes": call("_codecs.encode", raw(b"abc"), text("latin1")),
    "ordered dict of pairs": call("collections.OrderedDict", b"]"),
    "tensor strides 0": tensor((4, 4), (0, 0)),
    "tensor transposed": tensor((2, 2), (1, 2)),
    "tensor strides missing": tensor((2, 2), (2,)),
    "tensor strides negative": tensor((4,), (-1,)),
    "tensor huge": tensor((2**36,), (1,)),
    "tensor beyond": tensor((5,), (1,)),
    "tensor before": tensor((4,), (1,), offset=-1),
    "tensor moved": tensor((4,), (1,), offset=1),
    "tensor far": tensor((4,), (1,), offset=2**63),
    "tensor hooks": tensor(hooks=dict_of(text("f"))),
    "tensor hooks nothing": tensor(hooks=b"N"),
    "tensor of text": tensor(held=text("a")),
    "tensor of six Nones": call("torch._utils._rebuild_tensor_v2", *[b"N"] * 6),
    "storage numel": tensor(held=storage(n_elements=2**40)),
    "storage numel negative": tensor(held=storage(n_elements=-4)),
    "storage numel wrong": tensor(held=storage(n_elements=3)),
    "storage kind wrong": tensor(held=storage("DoubleStorage")),
    "storage missing": tensor(held=storage(key="1")),
    "storage elsewhere": tensor(held=storage(key="../version")),
    "storage of no kind": tensor(held=pack(text("storage"), name("numpy.ndarray")) + b"Q"),
    "storage class wrong": tensor(
        held=pack(text("storage"), name("numpy.ndarray"), text("0"), text("cpu"), number(4)) + b"Q"
    ),
    "module id": pack(text("module"), name("torch.FloatStorage"), text("0"), text("c"), b"K\4")
    + b"Q",
    "id a view": tensor(
        held=pack(
            text("storage"), name("torch.FloatStorage"), text("0"), text("cpu"), b"K\4", array()
        )
        + b"Q"
    ),
    "id text": text("0") + b"Q",
}


def laughs(n: int) -> bytes:
    """A list of two lists of two lists ...: short here, 2**n for whoever walks through it."""
    step = b"".join(
        b"](h" + bytes([i]) + b"h" + bytes([i]) + b"eq" + bytes([i + 1]) for i in range(n)
    )
    return b"](]q\0" + step + b"e"


EXHAUSTING = {
    "memo 2^32-1 read": b"j\xff\xff\xff\xff",
    "memo of nothing": b"h\x07",
    "store of nothing": b"q\0",
    "binbytes8 2^40": b"\x8e" + struct.pack("<Q", 2**40),
    "bytearray8 2^40": b"\x96" + struct.pack("<Q", 2**40),
    "binunicode8 2^40": b"\x8d" + struct.pack("<Q", 2**40),
    "binbytes 2^32-1": b"B\xff\xff\xff\xff",
    "binunicode 2^32-1": b"X\xff\xff\xff\xff",
    "long4 huge": b"\x8b" + struct.pack("<i", 2**31 - 1),
    "long4 negative": b"\x8b" + struct.pack("<i", -1),
    "long1 short": b"\x8a\xff",
    "frame beyond": b"\x95" + struct.pack("<Q", 2**63),
    "protocol 9": b"\x80\x09N",
    "nested marks": b"(" * 100_000,
    "nested lists": b"](" * 100_000,
    "nested lists, built": b"]" * 40 + b"a" * 39,
    "nested tuples": b")" + b"\x85" * 100_000,
    "nested dicts": (b"}" + text("a")) * 40 + b"N" + b"s" * 40,
    "a list in itself": b"]q\0h\0a",
    "a dict in itself": b"}q\0" + text("a") + b"h\0s",
    "a list in itself, aside": b"]q\0](h\0h\0eah\0",
    "many laughs": laughs(30),
    "too many operations": b"N\x85" * 600_000,
    "key a list": b"}]Ns",
    "key a dict": b"}}Ns",
    "key a tuple of a list": b"}]\x85Ns",
    "key nothing": b"}NNs",
    "key a truth": b"}\x88Ns",
    "key a float": b"}G" + bytes(8) + b"Ns",
    "key an array": b"}" + array() + b"Ns",
    "key large": b"}" + number(2**61 - 1) + b"Ns",
    "odd items": b"}(" + text("a") + b"u",
    "item of a list": b"]" + text("a") + b"Ns",
    "item of an array": array() + text("a") + b"Ns",
    "append to a dict": b"}Na",
    "append to text": text("a") + b"Na",
    "append to an array": array() + b"Na",
    "appends to a tuple": b")(NNe",
    "tuple without a mark": b"NNt",
    "tuple2 of one": b"N\x86",
    "nothing": b"",
    "two objects": b"NN",
    "an open mark": b"N(",
    "pop": b"NN0",
    "dup": b"N2",
    "unknown operation": b"\xff",
    "text not UTF-8": b"X\2\0\0\0\xff\xfe",
    "name not UTF-8": b"c\xff\xfe\n\xff\n",
    "name without an end": b"c" + b"a" * 1000,
    "name very long": b"c" + b"a" * 100_000 + b"\nb\n",
    "set": b"\x8f",
    "frozenset": b"(\x91",
    "string": b"S'a'\n",
    "int text": b"I" + b"9" * 10_000 + b"\n",
    "long text": b"L" + b"9" * 10_000 + b"L\n",
    "next buffer": b"\x97",
    "control bytes": name("\x1b[31m.red"),
    "stack global of numbers": b"K\1K\2\x93",
    "stack global of nothing": b"\x93",
}
STREAMS = {
    **{key: operations for key, (operations, _) in RUNS_CODE.items()},
    **FORGED,
    **EXHAUSTING,
}


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
