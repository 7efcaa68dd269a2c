"""A reader of the pickle streams that torch.save writes, which runs nothing and imports nothing.

A pickle is a program. Python's interpreter of it calls whatever the file names, and numpy's
``__setstate__`` can be made to crash by forged array states even if only numpy's own names are
allowed. So this is an interpreter of the few operations that torch.save needs, with a closed table
of names that stand for themselves: they are never imported, and "calling" one means building the
described array from bytes whose number has been checked.

Operations: CPython's Lib/pickletools.py. States of arrays and dtypes: ``ndarray.__reduce__`` and
``dtype.__reduce__`` of numpy 1.x and 2.x (state versions 1 and 3). Tensors:
``torch._utils._rebuild_tensor_v2`` with the persistent ids of ``torch.serialization``.

Work and memory are bounded by the length of the file: at most ``limits.opcodes`` operations, no
operation that costs more than its own bytes, and a budget on what is copied out of shared bytes.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import repeat
from math import prod
from types import NoneType
from typing import Any, ClassVar, Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

from converter.errors import FormatError, UnsafeFileError
from converter.media.limits import Limits

Content: TypeAlias = (
    "dict[str | int, Content] | list[Content] | tuple[Content, ...] "
    "| str | int | float | bool | None | NDArray[Any]"
)
"""What a file can hold: containers of numbers, text and arrays, nothing else."""

_DAMAGED = "Copy or write it again: it is cut short or damaged."
_ONLY_DATA = "arrays, numbers, text, lists and dicts"
_NOT_TORCH_LOAD = "do not open it with torch.load. Ask its author for a file of plain arrays."
_RAISE = "If it is genuine, raise the limit."

Operation: TypeAlias = "Callable[[Machine, int], int]"
"""An operation: (machine, byte after it) -> byte after its argument."""

DTYPES = {
    order + name: np.dtype(order + name)
    for order, names in (
        ("<", ("f2", "f4", "f8", "i2", "i4", "i8", "u2", "u4", "u8")),
        (">", ("f2", "f4", "f8", "i2", "i4", "i8", "u2", "u4", "u8")),
        ("|", ("b1", "i1", "u1")),
    )
    for name in names
}
"""Every dtype that is ever built from a file, by byte order and name."""

NATIVE = {dtype: dtype.newbyteorder("=") for dtype in DTYPES.values()}
"""The dtype in which an array of a dtype of `DTYPES` is handed out."""

_STORAGE_DTYPES = {
    "HalfStorage": "f2",
    "FloatStorage": "f4",
    "DoubleStorage": "f8",
    "CharStorage": "i1",
    "ShortStorage": "i2",
    "IntStorage": "i4",
    "LongStorage": "i8",
    "ByteStorage": "u1",
    "BoolStorage": "b1",
}

_MAX_NDIM = 32
COPY_FLOOR = 16 * 2**20
"""Bytes that may be copied out of shared bytes whatever the size of the file."""


class StorageSource(Protocol):
    """Where the numbers of tensors come from; differs between zip and legacy files."""

    def __call__(self, key: str, dtype_name: str, n_elements: int) -> tuple[bytes, str] | None:
        """Bytes of a storage and their byte order ("<" or ">"); None if they follow later."""


@dataclass(frozen=True)
class Symbol:
    """A global name of the closed table. Stands for itself."""

    name: str
    reduce: Callable[[Machine, tuple[Any, ...]], Any] | None = None
    """What REDUCE does with it; None if it is only ever an argument."""
    dtype_name: str = ""


@dataclass(frozen=True)
class Storage:
    """The numbers that tensors share; None: they follow later in the file."""

    dtype_name: str
    source: tuple[bytes, str] | None


class Unbuilt:
    """An array or a dtype whose state has not come yet; the memo refers to it by identity."""

    __slots__ = ("built", "dtype_name")

    def __init__(self, dtype_name: str = "") -> None:
        self.dtype_name = dtype_name  # empty for an array
        self.built: Any = None


class Machine:
    """One interpretation of one or more consecutive streams in ``code``.

    Parameters
    ----------
    code
        The bytes that hold the streams.
    where
        What error messages call them.
    limits
        Bounds on operations, nesting and elements.
    storages
        Source of the numbers of tensors.
    n_bytes
        Size of the whole file, uncompressed: the bound on what may be copied out of it.

    """

    __slots__ = ("budget", "code", "limits", "marks", "memo", "stack", "storages", "where")

    operations: ClassVar[Sequence[Operation]]
    """What each byte does; `OPERATIONS`, unless a subclass watches some of them."""
    leaves: ClassVar[frozenset[type]]
    """What content may hold besides containers."""

    def __init__(
        self, code: bytes, where: object, limits: Limits, storages: StorageSource, n_bytes: int
    ) -> None:
        self.code = code
        self.where = where
        self.limits = limits
        self.storages = storages
        self.budget = 2 * n_bytes + COPY_FLOOR  # once as bytes, once as numbers
        self.stack: list[Any] = []
        self.marks: list[list[Any]] = []
        self.memo: dict[int, Any] = {}

    def run(self, here: int = 0) -> tuple[Content, int]:
        """Interpret the stream that begins at byte ``here``.

        Returns
        -------
        content
            What it describes.
        end
            The byte after it.

        Raises
        ------
        UnsafeFileError
            If it asks for anything but data, or for more than the limits allow.
        FormatError
            If it is damaged.

        """
        self.stack, self.marks, self.memo = [], [], {}
        code, memo, operations = self.code, self.memo, self.operations
        try:
            for _ in repeat(None, self.limits.opcodes):
                operation = code[here]
                if operation == 0x71:  # BINPUT, the most frequent one
                    memo[code[here + 1]] = self.stack[-1]
                    here += 2
                elif operation == 0x2E:  # STOP
                    return self._finished(), here + 1
                else:
                    here = operations[operation](self, here + 1)
        except (IndexError, struct.error):
            # Reading past the end, or taking from an empty stack.
            raise self.damaged("a whole pickle stream", "one cut short") from None
        raise UnsafeFileError(
            self.where, f"at most {self.limits.opcodes} operations", "more", _RAISE
        )

    def _finished(self) -> Content:
        if len(self.stack) != 1 or self.marks:
            raise self.damaged("one object", f"{len(self.stack)}, or an open list")
        content = self.stack.pop()
        self._require_plain(content)
        return content  # type: ignore[no-any-return]

    def _require_plain(self, content: object) -> None:
        """Raise unless ``content`` is `Content`: no cycle, no leftover symbol, not too deep.

        Goes level by level, and visits shared containers as often as a reader of the result
        would, so that short files cannot describe huge trees.
        """
        level: list[Any] = [content]
        n_visited = 1
        for _ in range(self.limits.nesting + 1):
            deeper: list[Any] = []
            for value in level:
                kind = type(value)
                if kind is dict:
                    deeper += value.values()
                elif kind is list or kind is tuple:
                    deeper += value
                elif kind not in self.leaves:
                    raise self.unsafe(_ONLY_DATA, _described(value))
                if n_visited + len(deeper) > self.limits.opcodes:
                    raise self.unsafe(f"at most {self.limits.opcodes} values", "more", _RAISE)
            if not deeper:
                return
            level = deeper
            n_visited += len(level)
        raise self.unsafe(f"at most {self.limits.nesting} levels of nesting", "more", _RAISE)

    def unsafe(self, expected: str, found: str, remedy: str = "") -> UnsafeFileError:
        """The error for what no data file needs."""
        return UnsafeFileError(
            self.where, expected, found, remedy or f"To be safe, {_NOT_TORCH_LOAD}"
        )

    def damaged(self, expected: str, found: str) -> FormatError:
        """The error for what is merely wrong."""
        return FormatError(self.where, expected, found, _DAMAGED)

    def spend(self, n_bytes: int) -> None:
        """Account for bytes that are about to be copied."""
        self.budget -= n_bytes
        if self.budget < 0:
            found = "the same bytes again and again"
            raise self.unsafe("data that are used once", found, _NOT_EXPANDED)

    def pop_mark(self) -> list[Any]:
        """What has been pushed since the last MARK."""
        items, self.stack = self.stack, self.marks.pop()
        return items

    def shaped(self, raw: bytes, shape: Any, dtype: np.dtype[Any], fortran: bool) -> NDArray[Any]:
        """Array of its own, C-contiguous and native, from exactly the bytes that it needs."""
        n_elements = self.count(shape)
        if n_elements * dtype.itemsize != len(raw):
            raise self.damaged(f"{n_elements * dtype.itemsize} bytes of {dtype}", f"{len(raw)}")
        self.spend(len(raw))
        flat = np.frombuffer(raw, dtype)
        if dtype.kind == "b" and flat.view(np.uint8).max(initial=0) > 1:
            raise self.damaged("truth values 0 and 1", "another")
        shaped: NDArray[Any] = flat.reshape(shape[::-1]).T if fortran else flat.reshape(shape)
        return shaped.copy() if dtype.isnative else shaped.astype(NATIVE[dtype], order="C")

    def count(self, shape: Any) -> int:
        """Number of elements of an array of ``shape``; raises if it is no shape or is too large."""
        if type(shape) is not tuple or len(shape) > _MAX_NDIM:
            raise self.unsafe(f"a shape of at most {_MAX_NDIM} numbers", "something else")
        for extent in shape:
            if type(extent) is not int or not 0 <= extent <= self.limits.elements:
                found = f"{extent}" if type(extent) is int else "no number"
                raise self.unsafe(
                    f"array extents from 0 to {self.limits.elements}", _short(found), _RAISE
                )
        n_elements = prod(shape)
        # numpy also refuses shapes like (0, 2**40, 2**40), by a ValueError.
        reach = n_elements or prod(extent or 1 for extent in shape)
        if reach > self.limits.elements:
            found = _short(f"{reach}")
            raise self.unsafe(f"at most {self.limits.elements} elements", found, _RAISE)
        return n_elements


_NOT_EXPANDED = "Save each array or tensor once."
LEAVES: frozenset[type] = frozenset({str, int, float, bool, NoneType, np.ndarray})


def _short(text: str) -> str:
    return text if len(text) <= 100 else f"{text[:100]}..."


def _described(value: object) -> str:
    if type(value) is Symbol:
        return value.name
    if type(value) is Unbuilt:
        return "an array or a dtype without a state"
    kinds = {bytes: "raw bytes", Storage: "a bare storage"}
    return kinds.get(type(value), "a dtype")


# --- operations: (machine, byte after the operation) -> byte after its argument -----------------
# An argument cut short by the end of the stream needs no check: there is no STOP behind it.


def _protocol(vm: Machine, here: int) -> int:
    if vm.code[here] > 5:
        raise vm.damaged("a pickle protocol up to 5", f"{vm.code[here]}")
    return here + 1


def _frame(_: Machine, here: int) -> int:
    return here + 8  # a hint for buffered readers


def _empty_dict(vm: Machine, here: int) -> int:
    vm.stack.append({})
    return here


def _empty_list(vm: Machine, here: int) -> int:
    vm.stack.append([])
    return here


def _empty_tuple(vm: Machine, here: int) -> int:
    vm.stack.append(())
    return here


def _none(vm: Machine, here: int) -> int:
    vm.stack.append(None)
    return here


def _true(vm: Machine, here: int) -> int:
    vm.stack.append(True)
    return here


def _false(vm: Machine, here: int) -> int:
    vm.stack.append(False)
    return here


def _mark(vm: Machine, here: int) -> int:
    # Three more than the content: an array in it, its dtype, a tensor's storage.
    if len(vm.marks) > vm.limits.nesting + 3:
        raise vm.unsafe(f"at most {vm.limits.nesting} levels of nesting", "more", _RAISE)
    vm.marks.append(vm.stack)
    vm.stack = []
    return here


def _tuple(vm: Machine, here: int) -> int:
    items = vm.pop_mark()
    vm.stack.append(tuple(items))
    return here


def _tuple1(vm: Machine, here: int) -> int:
    vm.stack[-1] = (vm.stack[-1],)
    return here


def _tuple2(vm: Machine, here: int) -> int:
    second = vm.stack.pop()
    vm.stack[-1] = (vm.stack[-1], second)
    return here


def _tuple3(vm: Machine, here: int) -> int:
    third, second = vm.stack.pop(), vm.stack.pop()
    vm.stack[-1] = (vm.stack[-1], second, third)
    return here


def _long_binput(vm: Machine, here: int) -> int:
    vm.memo[_UINT32.unpack_from(vm.code, here)[0]] = vm.stack[-1]
    return here + 4


def _memoize(vm: Machine, here: int) -> int:
    vm.memo[len(vm.memo)] = vm.stack[-1]
    return here


def _binget(vm: Machine, here: int) -> int:
    value = recalled(vm, vm.code[here])
    if value is _RECONSTRUCT:
        after = _usual_array(vm, here + 1)
        if after:
            return after
    vm.stack.append(value)
    return here + 1


def _long_binget(vm: Machine, here: int) -> int:
    vm.stack.append(recalled(vm, _UINT32.unpack_from(vm.code, here)[0]))
    return here + 4


def recalled(vm: Machine, index: int) -> Any:
    """What BINPUT stored under ``index``: an array or dtype itself, once it is built."""
    try:
        value = vm.memo[index]
    except KeyError:
        raise vm.damaged("a stored object", f"none under number {index}") from None
    if type(value) is Unbuilt and value.built is not None:
        return value.built
    return value


def _usual_array(vm: Machine, here: int) -> int:
    """Read at once the 25 operations by which each array but the first is written.

    Gives what the single operations give, in a third of the time. Returns 0, with nothing done,
    if these are other operations or if anything about them is unusual.
    """
    code, memo = vm.code, vm.memo
    head = _USUAL_HEAD.match(code, here)
    if head is None:
        return 0
    head_end = head.end()
    shape_end = head_end - 9
    text_at = head_end + 4
    text_end: int = text_at + _UINT32.unpack_from(code, head_end)[0]
    if not USUAL_TAIL.match(code, text_end):
        return 0
    shape = _extents(code[here + 18 : shape_end])
    dtype: Any = memo.get(code[shape_end + 4])
    if type(dtype) is Unbuilt:
        dtype = dtype.built
    usual = (
        memo.get(code[here + 1]) is _NDARRAY
        and isinstance(dtype, np.dtype)
        and memo.get(code[shape_end + 7]) is ENCODE
        and is_latin1(memo.get(code[text_end + 3]))
        and len(shape) == code[shape_end] - 0x84  # TUPLE1 to TUPLE3
        # What is recalled is not what these operations themselves have stored before.
        and {
            code[here + 6],
            code[here + 11],
            code[here + 14],
            code[shape_end + 2],
            code[text_end + 1],
        }.isdisjoint((code[shape_end + 4], code[shape_end + 7], code[text_end + 3]))
    )
    if not usual:
        return 0
    try:
        text = code[text_at:text_end].decode()
        raw = text.encode("latin-1")
    except UnicodeError:
        return 0
    vm.spend(len(raw))
    fortran = code[shape_end + 5] == 0x88
    array = vm.shaped(raw, shape, dtype, fortran)
    memo[code[here + 6]] = (0,)
    memo[code[here + 11]] = (_NDARRAY, (0,), memo.get(code[here + 8]))
    memo[code[shape_end + 2]] = shape
    memo[code[text_end + 1]] = text
    memo[code[text_end + 6]] = (text, "latin1")
    memo[code[text_end + 9]] = raw
    memo[code[text_end + 12]] = (1, shape, dtype, fortran, raw)
    memo[code[here + 14]] = array
    vm.stack.append(array)
    return text_end + 14


def is_latin1(value: object) -> bool:
    """Whether it is the name of the one encoding in which arrays are written."""
    # The type first: an array would compare itself element by element.
    return type(value) is str and value == "latin1"


@lru_cache(maxsize=256)
def _extents(operations: bytes) -> tuple[int, ...]:
    """The numbers that a run of BININT1 and BININT2 pushes."""
    extents = []
    here = 0
    while here < len(operations):
        wide = operations[here] == 0x4D
        extents.append(int.from_bytes(operations[here + 1 : here + 2 + wide], "little"))
        here += 2 + wide
    return tuple(extents)


def _binint(vm: Machine, here: int) -> int:
    vm.stack.append(_INT32.unpack_from(vm.code, here)[0])
    return here + 4


def _binint1(vm: Machine, here: int) -> int:
    vm.stack.append(vm.code[here])
    return here + 1


def _binint2(vm: Machine, here: int) -> int:
    vm.stack.append(vm.code[here] | vm.code[here + 1] << 8)
    return here + 2


def _long1(vm: Machine, here: int) -> int:
    begin, end = here + 1, here + 1 + vm.code[here]
    vm.stack.append(int.from_bytes(vm.code[begin:end], "little", signed=True))
    return end


def _binfloat(vm: Machine, here: int) -> int:
    vm.stack.append(_FLOAT64.unpack_from(vm.code, here)[0])
    return here + 8


def _short_binunicode(vm: Machine, here: int) -> int:
    return _text(vm, here + 1, here + 1 + vm.code[here])


def _binunicode(vm: Machine, here: int) -> int:
    return _text(vm, here + 4, here + 4 + _UINT32.unpack_from(vm.code, here)[0])


def _text(vm: Machine, begin: int, end: int) -> int:
    try:
        vm.stack.append(vm.code[begin:end].decode())
    except UnicodeDecodeError:
        raise vm.damaged("text in UTF-8", "other bytes") from None
    return end


def _short_binbytes(vm: Machine, here: int) -> int:
    return _raw(vm, here + 1, here + 1 + vm.code[here])


def _binbytes(vm: Machine, here: int) -> int:
    return _raw(vm, here + 4, here + 4 + _UINT32.unpack_from(vm.code, here)[0])


def _raw(vm: Machine, begin: int, end: int) -> int:
    vm.stack.append(vm.code[begin:end])
    return end


def _setitem(vm: Machine, here: int) -> int:
    value, key = vm.stack.pop(), vm.stack.pop()
    _update(vm, vm.stack[-1], [key], [value])
    return here


def _setitems(vm: Machine, here: int) -> int:
    items = vm.pop_mark()
    if len(items) % 2:
        raise vm.damaged("keys and values in pairs", f"{len(items)} items")
    _update(vm, vm.stack[-1], items[::2], items[1::2])
    return here


def _update(vm: Machine, target: Any, keys: list[Any], values: list[Any]) -> None:
    if type(target) is not dict:
        raise vm.unsafe("a dict to put items into", "something else")
    for key in keys:
        # Larger numbers can be chosen to collide, which makes a dict quadratically slow.
        if type(key) is not str and not (type(key) is int and -(2**31) <= key < 2**31):
            raise vm.unsafe("text or small whole numbers as keys of dicts", "another key")
    target.update(zip(keys, values, strict=True))


def _append(vm: Machine, here: int) -> int:
    value = vm.stack.pop()
    _extend(vm, vm.stack[-1], [value])
    return here


def _appends(vm: Machine, here: int) -> int:
    items = vm.pop_mark()
    _extend(vm, vm.stack[-1], items)
    return here


def _extend(vm: Machine, target: Any, values: list[Any]) -> None:
    if type(target) is not list:
        raise vm.unsafe("a list to append to", "something else")
    target += values


def _global(vm: Machine, here: int) -> int:
    module_end = vm.code.find(b"\n", here)
    end = vm.code.find(b"\n", module_end + 1)
    if module_end < 0 or end < 0:
        raise vm.damaged("a global name", "one cut short")
    vm.stack.append(_symbol(vm, vm.code[here:end]))
    return end + 1


def _stack_global(vm: Machine, here: int) -> int:
    name, module = vm.stack.pop(), vm.stack.pop()
    if type(module) is not str or type(name) is not str:
        raise vm.unsafe("a global name as text", "something else")
    vm.stack.append(_symbol(vm, f"{module}\n{name}".encode()))
    return here


def _symbol(vm: Machine, key: bytes) -> Symbol:
    symbol = SYMBOLS.get(key)
    if symbol is None:
        name = _short(key[:200].decode(errors="replace").replace("\n", "."))
        raise vm.unsafe(
            f"{_ONLY_DATA} only",
            f"the name {name}",
            f"It asks Python to run {name}; {_NOT_TORCH_LOAD}",
        )
    return symbol


def _reduce(vm: Machine, here: int) -> int:
    arguments = vm.stack.pop()
    symbol = vm.stack[-1]
    if type(symbol) is not Symbol or symbol.reduce is None or type(arguments) is not tuple:
        raise vm.unsafe(f"{_ONLY_DATA} only", "a call of something else")
    vm.stack[-1] = symbol.reduce(vm, arguments)
    return here


def _build(vm: Machine, here: int) -> int:
    state = vm.stack.pop()
    target = vm.stack[-1]
    if type(target) is not Unbuilt:
        raise vm.unsafe("the state of a new array", "one for something else")
    target.built = _built_dtype(vm, target, state) if target.dtype_name else _built_array(vm, state)
    vm.stack[-1] = target.built
    return here


def _built_dtype(vm: Machine, target: Unbuilt, state: Any) -> np.dtype[Any]:
    # Types first: comparing values of unchecked types could run their comparison.
    if type(state) is tuple and tuple(map(type, state)) == _DTYPE_STATE_TYPES:
        dtype = DTYPES.get(state[1] + target.dtype_name)
        if dtype is not None and state == (3, state[1], None, None, None, -1, -1, 0):
            return dtype
    raise vm.unsafe("the state of a number type", "another dtype state")


def _built_array(vm: Machine, state: Any) -> NDArray[Any]:
    if type(state) is not tuple or len(state) != 5:
        raise vm.unsafe("the five parts of an array", "something else")
    version, shape, dtype, fortran, raw = state
    if not isinstance(dtype, np.dtype):
        raise vm.unsafe("the dtype of an array", "something else")
    if type(version) is not int or version != 1 or type(fortran) is not bool:
        raise vm.unsafe("the state of an array, version 1", "another")
    if type(raw) is not bytes:
        raise vm.unsafe("the numbers of an array as bytes", "something else")
    return vm.shaped(raw, shape, dtype, fortran)


def _persistent_id(vm: Machine, here: int) -> int:
    identity = vm.stack[-1]
    # Legacy files add a sixth item, which is None unless the storage is a view of another.
    if type(identity) is not tuple or tuple(map(type, identity))[:5] != _STORAGE_TYPES:
        raise vm.unsafe("the identity of a tensor's storage", "something else")
    tag, symbol, key, _location, n_elements = identity[:5]
    is_view = len(identity) > 6 or (len(identity) == 6 and identity[5] is not None)
    if tag != "storage" or not symbol.dtype_name or is_view:
        raise vm.unsafe("the identity of a tensor's storage", "another persistent id")
    if not 0 <= n_elements <= vm.limits.file_bytes:
        raise vm.unsafe(f"at most {vm.limits.file_bytes} elements", _short(f"{n_elements}"), _RAISE)
    source = vm.storages(key, symbol.dtype_name, n_elements)
    vm.stack[-1] = Storage(symbol.dtype_name, source)
    return here


def _refused(vm: Machine, here: int) -> int:
    operation = vm.code[here - 1]
    name = _FOREIGN.get(operation)
    if name is None:
        raise vm.damaged("a pickle operation", f"byte 0x{operation:02x}")
    raise vm.unsafe("operations that torch.save writes", f"{name}")


# --- calls: (machine, arguments) -> what they describe ------------------------------------------


def _new_array(vm: Machine, arguments: tuple[Any, ...]) -> Unbuilt:
    if len(arguments) != 3 or arguments[0] is not _NDARRAY:
        raise vm.unsafe("a new numpy.ndarray", "something else")
    return Unbuilt()


def _new_dtype(vm: Machine, arguments: tuple[Any, ...]) -> Unbuilt:
    name = arguments[0] if arguments else None
    if type(name) is not str or name not in _DTYPE_NAMES:
        found = f"dtype {_short(name)!r}" if type(name) is str else "no dtype"
        remedy = "Save plain numbers: arrays of objects, text or records are not read."
        raise vm.unsafe("an array of plain numbers", found, remedy)
    return Unbuilt(name)


def _scalar(vm: Machine, arguments: tuple[Any, ...]) -> Any:
    if len(arguments) != 2 or not isinstance(arguments[0], np.dtype):
        raise vm.unsafe("a number of a known dtype", "something else")
    dtype, raw = arguments
    if type(raw) is not bytes:
        raise vm.unsafe("a number as bytes", "something else")
    return vm.shaped(raw, (), dtype, fortran=False).item()


def _encode(vm: Machine, arguments: tuple[Any, ...]) -> bytes:
    if tuple(map(type, arguments)) != (str, str) or arguments[1] != "latin1":
        raise vm.unsafe("bytes written as latin1 text", "another encoding")
    text = arguments[0]
    vm.spend(len(text))
    try:
        return text.encode("latin-1")  # type: ignore[no-any-return]
    except UnicodeEncodeError:
        raise vm.damaged("bytes written as latin1 text", "other characters") from None


def _no_bytes(vm: Machine, arguments: tuple[Any, ...]) -> bytes:
    if arguments != ():
        raise vm.unsafe("empty bytes", "a call of bytes")
    return b""


def _ordered_dict(vm: Machine, arguments: tuple[Any, ...]) -> dict[str | int, Any]:
    if arguments != ():
        raise vm.unsafe("an empty OrderedDict", "one with arguments")
    return {}


def _tensor(vm: Machine, arguments: tuple[Any, ...]) -> NDArray[Any]:
    if len(arguments) != 6 or type(arguments[0]) is not Storage:
        raise vm.unsafe("a dense tensor", "something else")
    storage, offset, shape, strides, _requires_grad, hooks = arguments
    if type(hooks) is not dict or hooks:
        raise vm.unsafe("a tensor without hooks", "one with hooks")
    n_elements = vm.count(shape)
    if type(offset) is not int or offset < 0 or not _is_contiguous(shape, strides):
        remedy = "Save it with .contiguous()."
        raise vm.unsafe("a contiguous tensor", "one with other strides", remedy)
    if storage.source is None:
        return np.empty(0)
    raw, order = storage.source
    dtype = DTYPES[("|" if storage.dtype_name in _BYTE_NAMES else order) + storage.dtype_name]
    begin, n_bytes = offset * dtype.itemsize, n_elements * dtype.itemsize
    return vm.shaped(raw[begin : begin + n_bytes], shape, dtype, fortran=False)


def _is_contiguous(shape: tuple[int, ...], strides: Any) -> bool:
    """Whether the strides, in elements, are those of a C-contiguous tensor."""
    if type(strides) is not tuple or len(strides) != len(shape):
        return False
    if any(type(stride) is not int for stride in strides):
        return False
    step = 1
    for extent, stride in zip(reversed(shape), reversed(strides), strict=True):
        if extent > 1 and stride != step:
            return False
        step *= max(extent, 1)
    return True


_UINT32, _INT32, _FLOAT64 = struct.Struct("<I"), struct.Struct("<i"), struct.Struct(">d")
_DTYPE_STATE_TYPES = (int, str, NoneType, NoneType, NoneType, int, int, int)
_STORAGE_TYPES = (str, Symbol, str, str, int)
_BYTE_NAMES = ("b1", "i1", "u1")
_DTYPE_NAMES = frozenset(name[1:] for name in DTYPES)
_NDARRAY = Symbol("numpy.ndarray")

_RECONSTRUCT = Symbol("numpy._reconstruct", _new_array)
ENCODE = Symbol("_codecs.encode", _encode)

# After recalling _reconstruct: recall ndarray, 0, TUPLE1, store, recall b"b", TUPLE3, store,
# REDUCE, store; MARK, 1, [extents], TUPLEn, store, recall dtype, [order], recall encode, text.
_USUAL_HEAD = re.compile(
    rb"h.K\x00\x85q.h.\x87q.Rq.\(K\x01(?:K.|M..){1,3}[\x85-\x87]q.h.[\x88\x89]h.X(?=....)",
    re.DOTALL,
)
# After the text: store, recall "latin1", TUPLE2, store, REDUCE, store, TUPLE, store, BUILD.
USUAL_TAIL = re.compile(rb"q.h.\x86q.Rq.tq.b", re.DOTALL)

SYMBOLS = {
    b"numpy.core.multiarray\n_reconstruct": _RECONSTRUCT,
    b"numpy._core.multiarray\n_reconstruct": _RECONSTRUCT,
    b"numpy.core.multiarray\nscalar": Symbol("numpy.scalar", _scalar),
    b"numpy._core.multiarray\nscalar": Symbol("numpy.scalar", _scalar),
    b"numpy\nndarray": _NDARRAY,
    b"numpy\ndtype": Symbol("numpy.dtype", _new_dtype),
    b"_codecs\nencode": ENCODE,
    # How protocol 2 writes b"", the numbers of an empty array.
    b"__builtin__\nbytes": Symbol("bytes", _no_bytes),
    b"collections\nOrderedDict": Symbol("collections.OrderedDict", _ordered_dict),
    b"torch._utils\n_rebuild_tensor_v2": Symbol("torch._rebuild_tensor_v2", _tensor),
} | {
    f"torch\n{name}".encode(): Symbol(f"torch.{name}", dtype_name=dtype_name)
    for name, dtype_name in _STORAGE_DTYPES.items()
}

_NAMED: dict[int, Operation] = {
    0x80: _protocol,
    0x95: _frame,
    ord("}"): _empty_dict,
    ord("]"): _empty_list,
    ord(")"): _empty_tuple,
    ord("N"): _none,
    0x88: _true,
    0x89: _false,
    ord("("): _mark,
    ord("t"): _tuple,
    0x85: _tuple1,
    0x86: _tuple2,
    0x87: _tuple3,
    ord("r"): _long_binput,
    0x94: _memoize,
    ord("h"): _binget,
    ord("j"): _long_binget,
    ord("J"): _binint,
    ord("K"): _binint1,
    ord("M"): _binint2,
    0x8A: _long1,
    ord("G"): _binfloat,
    0x8C: _short_binunicode,
    ord("X"): _binunicode,
    ord("C"): _short_binbytes,
    ord("B"): _binbytes,
    ord("s"): _setitem,
    ord("u"): _setitems,
    ord("a"): _append,
    ord("e"): _appends,
    ord("c"): _global,
    0x93: _stack_global,
    ord("R"): _reduce,
    ord("b"): _build,
    ord("Q"): _persistent_id,
}
OPERATIONS = tuple(_NAMED.get(operation, _refused) for operation in range(256))
Machine.operations = OPERATIONS
Machine.leaves = LEAVES

_FOREIGN = {
    ord("i"): "INST",
    ord("o"): "OBJ",
    0x81: "NEWOBJ",
    0x92: "NEWOBJ_EX",
    0x82: "EXT1",
    0x83: "EXT2",
    0x84: "EXT4",
    ord("P"): "PERSID",
    0x8B: "LONG4",
    0x8D: "BINUNICODE8",
    0x8E: "BINBYTES8",
    0x96: "BYTEARRAY8",
    0x97: "NEXT_BUFFER",
    0x98: "READONLY_BUFFER",
    0x8F: "EMPTY_SET",
    0x90: "ADDITEMS",
    0x91: "FROZENSET",
    ord("0"): "POP",
    ord("1"): "POP_MARK",
    ord("2"): "DUP",
    ord("d"): "DICT",
    ord("l"): "LIST",
    ord("p"): "PUT",
    ord("g"): "GET",
    ord("F"): "FLOAT",
    ord("I"): "INT",
    ord("L"): "LONG",
    ord("S"): "STRING",
    ord("T"): "BINSTRING",
    ord("U"): "SHORT_BINSTRING",
    ord("V"): "UNICODE",
}
"""Operations that exist, but that torch.save with numbers and arrays does not write."""
