"""Pickles of head models (FLAME, SMPL): dicts of arrays, chumpy arrays and sparse matrices.

They were written by Python 2 or 3 with ``pickle.dump``, and are opened elsewhere by running them.
Here nothing is run or imported: `converter.media.pickle_stream` interprets the stream, and this
module adds the few names that such files use, each of which only describes an array:

- ``chumpy.ch.Ch`` (https://github.com/mattloper/chumpy, chumpy/ch.py): the array is its ``x``;
- ``scipy.sparse`` csc and csr matrices: data, indices, indptr and shape;
- texts of Python 2, which are bytes;
- sets, of which nothing is read;
- arrays of objects with one element, as ``numpy.save`` writes a dict (.npy files);
- tensors whose storage is a nested torch.save, as ``pickle.dump`` writes them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from converter.errors import FormatError, UncropError, UnsafeFileError
from converter.media.files import read_bytes
from converter.media.limits import DEFAULT_LIMITS, Limits
from converter.media.pickle_stream import (
    LEAVES,
    OPERATIONS,
    SYMBOLS,
    Machine,
    Operation,
    Storage,
    Symbol,
    Unbuilt,
)
from converter.media.torchfile import LegacyStream

MODEL_LIMITS = replace(
    DEFAULT_LIMITS, file_bytes=2**27, member_bytes=2**27, elements=2**24, member_ratio=2000
)
"""FLAME's shapedirs are 5023 x 3 x 400, which is 48 MB; a reader needs four times the file."""

_MOST_DENSE = 2**24
"""Elements of all sparse matrices of a file together; the files hold few, but can repeat them."""
_NO_PICKLE = (
    "To be safe, do not open it with pickle or numpy. Where you trust it, save its arrays with "
    "numpy.savez."
)


@dataclass(eq=False)
class _Shell:
    """An object of a known class, of which only the state matters."""

    kind: str
    state: dict[str, Any] = field(default_factory=dict)


def read_model_pickle(path: Path | str, limits: Limits = MODEL_LIMITS) -> dict[str, Any]:
    """Read a pickled dict of arrays without running anything in it; .npy files of a dict as well.

    Returns
    -------
    content
        Names to arrays, numbers, texts, or lists of them. chumpy arrays and sparse matrices come
        as plain arrays; entries that are anything else come as None.

    Raises
    ------
    MissingInputError
        If it does not exist.
    UnsafeFileError
        If it names anything that is not data, or exceeds a limit.
    FormatError
        If it is damaged, or holds no dict.

    """
    data = read_bytes(path, limits)
    begin = 0
    if data.startswith(b"\x93NUMPY"):
        begin = _object_header_end(data, path)
    elif not data.startswith(b"\x80"):
        raise FormatError(
            path,
            "a binary pickle (protocol 2 or later) or a .npz",
            "an empty file" if not data else "another format",
            "Save its arrays with numpy.savez where it can be opened.",
        )
    machine = _ModelMachine(data, path, limits, _no_storages(path), len(data))
    content, end = machine.run(begin)
    if end != len(data):
        raise FormatError(path, "one pickle stream", "bytes after it", "Download it again.")
    if not isinstance(content, dict):
        raise FormatError(path, "a dict of arrays", type(content).__name__)
    room = [_MOST_DENSE]
    return {str(name): _plain(value, f"{path}: {name}", room) for name, value in content.items()}


def _object_header_end(data: bytes, path: Path | str) -> int:
    """Where the pickle of a .npy file of one object begins (numpy.lib.format)."""
    n_length = 2 if data[6:7] == b"\x01" else 4
    begin = 8 + n_length
    end = begin + int.from_bytes(data[8:begin], "little")
    header = data[begin : min(end, begin + 200)].replace(b" ", b"")
    if b"'descr':'|O'" not in header or b"'shape':()" not in header or end >= len(data):
        raise FormatError(
            path, "a .npy file of one dict", "another array", "Is it a landmark embedding?"
        )
    return end


def _no_storages(path: Path | str) -> Any:
    def refuse(key: str, dtype_name: str, n_elements: int) -> tuple[bytes, str]:
        raise UnsafeFileError(path, "tensors with their own numbers", "others", _NO_PICKLE)

    return refuse


# --- what comes out -----------------------------------------------------------------------------


def _plain(value: Any, where: str, room: list[int], depth: int = 4) -> Any:
    """Arrays as they are; shells as the arrays that they stand for; None for what is neither.

    ``room`` holds the number of elements that sparse matrices may still unfold to.
    """
    if depth == 0:
        return None
    if isinstance(value, _Shell):
        if value.kind == "chumpy":
            return _plain(value.state.get("x"), where, room, depth - 1)
        return _dense(value, where, room) if value.kind in ("csc", "csr") else None
    if isinstance(value, bytes):
        return value.decode("latin-1") if len(value) < 1000 else None
    if isinstance(value, list | tuple):
        return [_plain(v, where, room, depth - 1) for v in value[:10_000]]
    return None if isinstance(value, dict) else value


def _dense(sparse: _Shell, where: str, room: list[int]) -> NDArray[Any]:
    """A sparse matrix as an array; every index is checked."""
    parts = [sparse.state.get(name) for name in ("data", "indices", "indptr")]
    shape = sparse.state.get("_shape", sparse.state.get("shape"))
    expected = "a sparse matrix: data, indices, indptr and shape"
    if not all(isinstance(p, np.ndarray) and p.ndim == 1 for p in parts):
        raise FormatError(where, expected, "other parts")
    data, indices, pointers = (np.asarray(p) for p in parts)
    sides = [int(n) for n in shape if isinstance(n, int)] if isinstance(shape, tuple) else []
    if len(sides) != 2 or not all(0 < n <= _MOST_DENSE for n in sides):
        raise FormatError(where, expected, "another shape")
    room[0] -= sides[0] * sides[1]
    if room[0] < 0:
        raise UnsafeFileError(where, f"at most {_MOST_DENSE} elements", f"{sides[0]} x {sides[1]}")
    major = sides[1] if sparse.kind == "csc" else sides[0]
    minor = sides[0] if sparse.kind == "csc" else sides[1]
    whole = pointers.dtype.kind in "iu" and indices.dtype.kind in "iu" and data.dtype.kind in "fiu"
    fits = (
        whole
        and len(pointers) == major + 1
        and len(indices) == len(data)
        and pointers[0] == 0
        and pointers[-1] == len(data)
        and bool((np.diff(pointers.astype(np.int64)) >= 0).all())
        and (not len(indices) or (indices.min() >= 0 and indices.max() < minor))
    )
    if not fits:
        raise FormatError(where, expected, "indices that do not fit")
    rows = np.repeat(np.arange(major), [int(n) for n in np.diff(pointers.astype(np.int64))])
    dense = np.zeros((major, minor), data.dtype)
    np.add.at(dense, (rows, indices.astype(np.int64)), data)
    return np.ascontiguousarray(dense.T) if sparse.kind == "csc" else dense


# --- the operations beyond those of torch.save --------------------------------------------------


class _ModelMachine(Machine):
    """Knows the names of model files."""

    __slots__ = ()
    operations: ClassVar[Sequence[Operation]]
    leaves = LEAVES | {bytes, _Shell}


_SET = Symbol("set")
_OBJECT = Symbol("object")
_RECONSTRUCTOR = Symbol("copyreg._reconstructor")
_LOAD_STORAGE = Symbol("torch.storage._load_from_bytes")
_FROM_BUFFER = Symbol("numpy._frombuffer")
_CHUMPY, _CSC, _CSR = Symbol("chumpy"), Symbol("csc"), Symbol("csr")
_OBJECT_DTYPE = "O"

_MODEL_SYMBOLS = {
    b"chumpy.ch\nCh": _CHUMPY,
    b"scipy.sparse.csc\ncsc_matrix": _CSC,
    b"scipy.sparse._csc\ncsc_matrix": _CSC,
    b"scipy.sparse.csr\ncsr_matrix": _CSR,
    b"scipy.sparse._csr\ncsr_matrix": _CSR,
    b"__builtin__\nset": _SET,
    b"builtins\nset": _SET,
    b"__builtin__\nobject": _OBJECT,
    b"builtins\nobject": _OBJECT,
    b"copy_reg\n_reconstructor": _RECONSTRUCTOR,
    b"copyreg\n_reconstructor": _RECONSTRUCTOR,
    b"torch.storage\n_load_from_bytes": _LOAD_STORAGE,
    b"numpy.core.numeric\n_frombuffer": _FROM_BUFFER,
    b"numpy._core.numeric\n_frombuffer": _FROM_BUFFER,
}


def _text(value: Any) -> Any:
    """Texts of Python 2 are bytes."""
    return value.decode("ascii", "replace") if type(value) is bytes and len(value) < 1000 else value


def _short_binstring(vm: Machine, here: int) -> int:
    end = here + 1 + vm.code[here]
    vm.stack.append(vm.code[here + 1 : end])
    return end


def _binstring(vm: Machine, here: int) -> int:
    end = here + 4 + int.from_bytes(vm.code[here : here + 4], "little")
    if end > len(vm.code):
        raise vm.damaged("a text", "one cut short")
    vm.spend(end - here)
    vm.stack.append(vm.code[here + 4 : end])
    return end


def _global(vm: Machine, here: int) -> int:
    module_end = vm.code.find(b"\n", here, here + 200)
    end = vm.code.find(b"\n", module_end + 1, module_end + 201)
    if module_end < 0 or end < 0:
        raise vm.damaged("a global name", "one cut short")
    vm.stack.append(_symbol(vm, vm.code[here:end]))
    return end + 1


def _stack_global(vm: Machine, here: int) -> int:
    name, module = _text(vm.stack.pop()), _text(vm.stack.pop())
    if type(module) is not str or type(name) is not str:
        raise vm.unsafe("a global name as text", "something else", _NO_PICKLE)
    vm.stack.append(_symbol(vm, f"{module}\n{name}".encode()))
    return here


def _symbol(vm: Machine, key: bytes) -> Symbol:
    symbol = _MODEL_SYMBOLS.get(key) or SYMBOLS.get(key)
    if symbol is None:
        name = key[:100].decode(errors="replace").replace("\n", ".")
        hint = "Save its arrays with numpy.savez where chumpy is installed."
        known = name.startswith("chumpy.")
        raise vm.unsafe(
            "arrays, chumpy arrays and sparse matrices only",
            f"the name {name}",
            hint if known else f"It asks Python to run {name}. {_NO_PICKLE}",
        )
    return symbol


def _new_object(vm: Machine, here: int) -> int:
    arguments, symbol = vm.stack.pop(), vm.stack.pop()
    if not _is_shell(symbol) or type(arguments) is not tuple or arguments:
        raise vm.unsafe("a chumpy array or a sparse matrix", "another object", _NO_PICKLE)
    vm.stack.append(_Shell(symbol.name))
    return here


def _reduce(vm: Machine, here: int) -> int:
    arguments, symbol = vm.stack[-1], vm.stack[-2]
    if type(arguments) is not tuple or type(symbol) is not Symbol:
        raise vm.unsafe("a call of a known name", "something else", _NO_PICKLE)
    if symbol is _SET:
        _replace_call(vm, [])
    elif symbol is _RECONSTRUCTOR:
        if len(arguments) != 3 or not _is_shell(arguments[0]) or arguments[1] is not _OBJECT:
            raise vm.unsafe("a chumpy array or a sparse matrix", "another object", _NO_PICKLE)
        _replace_call(vm, _Shell(arguments[0].name))
    elif symbol is _LOAD_STORAGE:
        _replace_call(vm, _nested_storage(vm, arguments))
    elif symbol is _FROM_BUFFER:
        _replace_call(vm, _from_buffer(vm, arguments))
    elif symbol.name == "numpy.dtype" and _is_object_dtype(arguments):
        _replace_call(vm, Unbuilt(_OBJECT_DTYPE))
    else:
        vm.stack[-1] = tuple(_text(a) for a in arguments) if symbol.name in _TEXTUAL else arguments
        return OPERATIONS[ord("R")](vm, here)
    return here


_TEXTUAL = ("numpy.dtype",)


def _is_object_dtype(arguments: tuple[Any, ...]) -> bool:
    name = _text(arguments[0]) if arguments else None
    return type(name) is str and name in ("O", "O8")


def _is_shell(symbol: Any) -> bool:
    """By identity: comparing values of unchecked types could run their comparison."""
    return symbol is _CHUMPY or symbol is _CSC or symbol is _CSR


def _from_buffer(vm: Machine, arguments: tuple[Any, ...]) -> NDArray[Any]:
    """Arrays of pickle protocol 5, numbers in line: ``numpy.core.numeric._frombuffer``."""
    kinds = (bytes, np.dtype, tuple, str)
    if len(arguments) != 4 or not all(
        isinstance(a, k) for a, k in zip(arguments, kinds, strict=True)
    ):
        raise vm.unsafe("an array as bytes, dtype, shape and order", "something else", _NO_PICKLE)
    raw, dtype, shape, order = arguments
    return vm.shaped(raw, shape, dtype, order == "F")


def _replace_call(vm: Machine, result: Any) -> None:
    vm.stack.pop()
    vm.stack[-1] = result


def _build(vm: Machine, here: int) -> int:
    state, target = vm.stack[-1], vm.stack[-2]
    if type(target) is _Shell:
        if type(state) is not dict:
            raise vm.unsafe("the state of an array as a dict", "something else", _NO_PICKLE)
        target.state = vm.stack.pop()
        return here
    if type(target) is Unbuilt and target.dtype_name == _OBJECT_DTYPE:
        vm.stack.pop()
        vm.stack[-1] = target  # stays as it is: arrays ask for it by its name
        return here
    if type(target) is Unbuilt and target.dtype_name and type(state) is tuple:
        vm.stack[-1] = tuple(_text(v) for v in state)
    if type(target) is Unbuilt and not target.dtype_name and _is_one_object(state):
        vm.stack.pop()
        target.built = vm.stack[-1] = state[4][0]
        return here
    return OPERATIONS[ord("b")](vm, here)


def _is_one_object(state: Any) -> bool:
    """Whether it is the state of an array of objects with one element and no axes."""
    return (
        type(state) is tuple
        and len(state) == 5
        and type(state[2]) is Unbuilt
        and state[2].dtype_name == _OBJECT_DTYPE
        and type(state[4]) is list
        and len(state[4]) == 1
        and type(state[1]) is tuple
        and not state[1]
    )


def _setitem(vm: Machine, here: int) -> int:
    vm.stack[-2] = _text(vm.stack[-2])
    return OPERATIONS[ord("s")](vm, here)


def _setitems(vm: Machine, here: int) -> int:
    vm.stack[::2] = [_text(key) for key in vm.stack[::2]]
    return OPERATIONS[ord("u")](vm, here)


def _bytearray(vm: Machine, here: int) -> int:
    end = here + 8 + int.from_bytes(vm.code[here : here + 8], "little")
    if end > len(vm.code):
        raise vm.damaged("bytes", "some cut short")
    vm.spend(end - here)
    vm.stack.append(vm.code[here + 8 : end])
    return end


def _empty_set(vm: Machine, here: int) -> int:
    vm.stack.append([])
    return here


class _StorageMachine(Machine):
    """Of a torch.save that holds a bare storage."""

    __slots__ = ()
    leaves = LEAVES | {Storage}


class _StorageFile(LegacyStream):
    def _machine(self) -> Machine:
        return _StorageMachine(self.data, self.where, self.limits, self._storage, len(self.data))


def _nested_storage(vm: Machine, arguments: tuple[Any, ...]) -> Storage:
    if len(arguments) != 1 or type(arguments[0]) is not bytes:
        raise vm.unsafe("a storage as bytes", "something else", _NO_PICKLE)
    vm.spend(len(arguments[0]))
    try:
        content: Any = _StorageFile(arguments[0], f"{vm.where}: tensor", vm.limits).parse().content
    except UncropError:
        raise
    except RecursionError:
        raise vm.unsafe("a storage", "storages inside storages", _NO_PICKLE) from None
    if type(content) is not Storage or content.source is None:
        raise vm.unsafe("a storage", "something else", _NO_PICKLE)
    return content


_OWN: dict[int, Operation] = {
    ord("U"): _short_binstring,
    ord("T"): _binstring,
    ord("c"): _global,
    0x93: _stack_global,
    0x81: _new_object,
    ord("R"): _reduce,
    ord("b"): _build,
    ord("s"): _setitem,
    ord("u"): _setitems,
    0x96: _bytearray,
    0x8F: _empty_set,
    0x90: OPERATIONS[ord("e")],
}
_ModelMachine.operations = tuple(_OWN.get(k, plain) for k, plain in enumerate(OPERATIONS))
