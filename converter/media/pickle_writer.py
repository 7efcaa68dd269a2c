"""Writes the pickle streams of torch.save: protocol 2, the same bytes for the same content.

Arrays are written as numpy 1.x does (``numpy.core.multiarray._reconstruct``), which numpy 2 reads
as well, while numpy <= 1.24 cannot read the names of numpy 2. Tensors are written as torch has
done since 1.6. What the memo does follows CPython's ``pickle.Pickler``, so that the streams of
real writers are met byte for byte (equal text is shared, as interned text is there).
"""

from __future__ import annotations

import struct
from typing import Any

import numpy as np
from numpy.typing import NDArray

from converter.errors import OutputError
from converter.media.limits import DEFAULT_LIMITS

_BATCH = 1000
"""Items per SETITEMS or APPENDS, as in CPython."""

_RECONSTRUCT = b"numpy.core.multiarray\n_reconstruct"
_REBUILD = b"torch._utils\n_rebuild_tensor_v2"

_STORAGES = {
    "f2": b"HalfStorage",
    "f4": b"FloatStorage",
    "f8": b"DoubleStorage",
    "i1": b"CharStorage",
    "i2": b"ShortStorage",
    "i4": b"IntStorage",
    "i8": b"LongStorage",
    "u1": b"ByteStorage",
    "b1": b"BoolStorage",
}
_NUMPY_NAMES = frozenset(_STORAGES) | {"u2", "u4", "u8"}


class StreamWriter:
    """One stream, and the storages that its tensors refer to.

    Parameters
    ----------
    where
        What error messages call the file.
    tensors
        Whether arrays become CPU tensors instead of numpy arrays.

    """

    def __init__(self, where: object, tensors: bool) -> None:
        self.where = where
        self.tensors = tensors
        self.storages: list[bytes] = []
        self._out: list[bytes] = [b"\x80\x02"]
        self._memo: dict[tuple[str, object], int] = {}
        self._n_put = 0

    def stream(self, content: object) -> bytes:
        """The whole stream for ``content``; raises OutputError if it is not plain data."""
        self._value(content, 0)
        return b"".join([*self._out, b"."])

    def _value(self, value: object, depth: int) -> None:
        if depth > DEFAULT_LIMITS.nesting:
            raise self._refused(f"at most {DEFAULT_LIMITS.nesting} levels of nesting", "more")
        if isinstance(value, np.generic):
            value = value.item()
        if value is None:
            self._out.append(b"N")
        elif isinstance(value, bool):
            self._out.append(b"\x88" if value else b"\x89")
        elif isinstance(value, int):
            self._int(value)
        elif isinstance(value, float):
            self._out.append(b"G" + struct.pack(">d", value))
        elif isinstance(value, str):
            self._text(value)
        elif isinstance(value, np.ndarray):
            self._array(value)
        elif isinstance(value, dict):
            self._dict(value, depth)
        elif isinstance(value, list):
            self._list(value, depth)
        elif isinstance(value, tuple):
            self._tuple(value, depth)
        else:
            raise self._refused(
                "numbers, text, arrays, lists, tuples and dicts", type(value).__name__
            )

    def _refused(self, expected: str, found: str) -> OutputError:
        return OutputError(self.where, expected, found)

    def _put(self, key: tuple[str, object] | None = None) -> None:
        """Number the object on top of the stack, as every real writer does, used or not."""
        n = self._n_put
        self._n_put += 1
        self._out.append(struct.pack("<sB", b"q", n) if n < 256 else struct.pack("<sI", b"r", n))
        if key is not None:
            self._memo[key] = n

    def _got(self, key: tuple[str, object]) -> bool:
        """Recall an object by its number, if it has one."""
        n = self._memo.get(key)
        if n is None:
            return False
        self._out.append(struct.pack("<sB", b"h", n) if n < 256 else struct.pack("<sI", b"j", n))
        return True

    def _int(self, value: int) -> None:
        if 0 <= value < 2**8:
            self._out.append(struct.pack("<sB", b"K", value))
        elif 0 <= value < 2**16:
            self._out.append(struct.pack("<sH", b"M", value))
        elif -(2**31) <= value < 2**31:
            self._out.append(struct.pack("<si", b"J", value))
        else:
            n_bytes = value.bit_length() // 8 + 1
            if n_bytes > 255:
                raise self._refused("whole numbers of at most 255 bytes", "a larger one")
            raw = value.to_bytes(n_bytes, "little", signed=True)
            if value < 0 and raw.endswith(b"\xff") and raw[-2] & 0x80:
                raw = raw[:-1]  # -2**(8 n - 1) fits n bytes
            self._out.append(struct.pack("<sB", b"\x8a", len(raw)) + raw)

    def _text(self, text: str) -> None:
        if not self._got(("text", text)):
            self._fresh_text(text, ("text", text))

    def _fresh_text(self, text: str, key: tuple[str, object] | None = None) -> None:
        try:
            raw = text.encode()
        except UnicodeEncodeError:
            raise self._refused("text that UTF-8 can hold", "an unpaired surrogate") from None
        self._out += (b"X", struct.pack("<I", len(raw)), raw)
        self._put(key)

    def _global(self, name: bytes) -> None:
        if not self._got(("global", name)):
            self._out.append(b"c" + name + b"\n")
            self._put(("global", name))

    def _bytes(self, raw: bytes, key: tuple[str, object] | None = None) -> None:
        """Bytes as protocol 2 has to write them: by ``_codecs.encode(text, "latin1")``."""
        self._global(b"_codecs\nencode")
        if key is None:
            self._fresh_text(raw.decode("latin-1"))
        else:
            self._text(raw.decode("latin-1"))
        self._text("latin1")
        self._close_tuple(2)
        self._out.append(b"R")
        self._put(key)

    def _open_tuple(self, n_items: int) -> None:
        if n_items > 3:
            self._out.append(b"(")

    def _close_tuple(self, n_items: int) -> None:
        self._out.append((b")", b"\x85", b"\x86", b"\x87")[n_items] if n_items <= 3 else b"t")
        if n_items:
            self._put()

    def _tuple(self, items: tuple[object, ...], depth: int = 0) -> None:
        self._open_tuple(len(items))
        for item in items:
            self._value(item, depth + 1)
        self._close_tuple(len(items))

    def _list(self, items: list[Any], depth: int) -> None:
        self._out.append(b"]")
        self._put()
        for begin in range(0, len(items), _BATCH):
            batch = items[begin : begin + _BATCH]
            self._out.append(b"(" if len(batch) > 1 else b"")
            for item in batch:
                self._value(item, depth + 1)
            self._out.append(b"e" if len(batch) > 1 else b"a")

    def _dict(self, items: dict[Any, Any], depth: int) -> None:
        self._out.append(b"}")
        self._put()
        pairs = list(items.items())
        for begin in range(0, len(pairs), _BATCH):
            batch = pairs[begin : begin + _BATCH]
            self._out.append(b"(" if len(batch) > 1 else b"")
            for key, item in batch:
                if type(key) not in (str, int) or (type(key) is int and abs(key) >= 2**31):
                    raise self._refused("text or small whole numbers as keys", f"{key!r}"[:100])
                self._value(key, depth)
                self._value(item, depth + 1)
            self._out.append(b"u" if len(batch) > 1 else b"s")

    def _array(self, array: NDArray[Any]) -> None:
        name = array.dtype.str[1:]
        if array.dtype.hasobject or name not in (_STORAGES if self.tensors else _NUMPY_NAMES):
            kind = "tensors" if self.tensors else "arrays"
            raise self._refused(f"{kind} of plain numbers", f"dtype {array.dtype}")
        raw = array.astype(array.dtype.newbyteorder("<"), order="C").tobytes()
        if self.tensors:
            self._tensor(name, array.shape, raw)
        else:
            self._numpy_array(name, array.shape, raw)

    def _numpy_array(self, name: str, shape: tuple[int, ...], raw: bytes) -> None:
        self._global(_RECONSTRUCT)
        self._global(b"numpy\nndarray")
        self._tuple((0,))
        if not self._got(("bytes", b"b")):
            self._bytes(b"b", ("bytes", b"b"))
        self._close_tuple(3)
        self._out.append(b"R")
        self._put()
        self._out.append(b"(K\x01")
        self._tuple(shape)
        self._dtype(name)
        self._out.append(b"\x89")  # not in Fortran order
        self._bytes(raw)
        self._close_tuple(5)
        self._out.append(b"b")

    def _dtype(self, name: str) -> None:
        if self._got(("dtype", name)):
            return
        self._global(b"numpy\ndtype")
        self._fresh_text(name)
        self._out.append(b"\x89\x88")  # align, copy
        self._close_tuple(3)
        self._out.append(b"R")
        self._put(("dtype", name))
        self._out.append(b"(K\x03")
        self._text("|" if name in ("b1", "i1", "u1") else "<")
        self._out.append(b"NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00")
        self._close_tuple(8)
        self._out.append(b"b")

    def _tensor(self, name: str, shape: tuple[int, ...], raw: bytes) -> None:
        n_elements = len(raw) // int(name[1:])
        self._global(_REBUILD)
        self._out.append(b"((")
        self._text("storage")
        self._global(b"torch\n" + _STORAGES[name])
        self._text(str(len(self.storages)))
        self._text("cpu")
        self._int(n_elements)
        self._close_tuple(5)
        self._out.append(b"QK\x00")  # the storage, from its first element on
        self._tuple(shape)
        self._tuple(_strides(shape))
        self._out.append(b"\x89")  # needs no gradient
        self._global(b"collections\nOrderedDict")
        self._out.append(b")R")
        self._put()
        self._close_tuple(6)
        self._out.append(b"R")
        self._put()
        self.storages.append(raw)


def _strides(shape: tuple[int, ...]) -> tuple[int, ...]:
    """Strides of a C-contiguous tensor, in elements."""
    return tuple(int(np.prod([max(n, 1) for n in shape[axis + 1 :]])) for axis in range(len(shape)))
