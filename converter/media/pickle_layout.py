"""Pickle streams that differ only in their numbers: interpreted once, then compared and refilled.

Files of one series (the .frame files of a track) hold the same operations around other numbers. A
`Layout` is learned while the interpreter of `converter.media.pickle_stream` reads one of them. It
consists of the literal bytes of that stream and of slots: the text that is the numbers of an array,
and texts or whole numbers that are values in a dict.

Why reading by a layout is as safe as interpreting. A stream is taken only if every byte outside the
slots equals a byte that has been interpreted and accepted, and if each slot holds an argument of
the same kind; so the interpreter would perform the same operations on it. While learning, what came
out of a slot is an opaque object on the stack, which every operation that looks into its arguments
refuses; so neither what the operations do nor where the slots end up can depend on what the slots
hold. What remains to be checked is the slots themselves, as the interpreter does: UTF-8, latin1,
and exactly as many bytes as the array has. Any doubt gives None, and the caller interprets.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import prod
from typing import Any

import numpy as np

from converter.errors import FormatError, UncropError
from converter.media.limits import Limits
from converter.media.pickle_stream import (
    COPY_FLOOR,
    ENCODE,
    LEAVES,
    OPERATIONS,
    USUAL_TAIL,
    Content,
    Machine,
    Unbuilt,
    is_latin1,
    recalled,
)

_TEXT, _BINGET = ord("X"), ord("h")
_INT32, _UINT8, _UINT16 = ord("J"), ord("K"), ord("M")
_N_TAIL = 14  # operations after the numbers of an array, in bytes
_MAX_NESTING = 32  # `_filled` goes down level by level on the stack of Python


class _Slot:
    """Stands for what a file of the series holds at one place; never looked into."""

    __slots__ = ("index",)

    def __init__(self, index: int) -> None:
        self.index = index


@dataclass(frozen=True, slots=True)
class _Array:
    """How the numbers of one array are to be understood.

    Attributes
    ----------
    index
        Of its slot.
    offset, n_bytes
        Its part of the numbers of all arrays, laid one after the other.
    shape, strides, dtype
        As numpy has them.

    """

    index: int
    offset: int
    n_bytes: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]
    dtype: np.dtype[Any]


_Step = tuple[bytes, int, bool, int]
"""Literal bytes, their number, whether a text follows, bytes of the array it holds (-1: none)."""


@dataclass(frozen=True, slots=True)
class Layout:
    """What all streams of a series have in common; made by `learn`."""

    steps: tuple[_Step, ...]
    end: bytes
    """Literal bytes after the last slot."""
    arrays: tuple[_Array, ...]
    template: Any
    """The content, with slots in it."""

    def content(self, code: bytes) -> Content | None:
        """The content of a stream of this layout; None for any other stream.

        The result is what `Machine.run` gives, except that None may also mean that it raises.
        """
        values: list[Any] = []
        texts: list[str] = []
        here = 0
        try:
            for literal, n_literal, is_text, n_bytes in self.steps:
                if not code.startswith(literal, here):
                    return None
                here += n_literal
                if is_text:
                    begin = here + 4
                    here = begin + int.from_bytes(code[begin - 4 : begin], "little")
                    value: Any = code[begin:here].decode()
                    if n_bytes >= 0:
                        if len(value) != n_bytes:
                            return None
                        texts.append(value)
                else:
                    value, here = _whole(code, here)
                values.append(value)
            if code[here:] != self.end:
                return None
            numbers = "".join(texts).encode("latin-1")
        except (IndexError, UnicodeError):
            return None
        for array in self.arrays:
            values[array.index] = np.ndarray(
                array.shape, array.dtype, numbers, array.offset, array.strides
            ).copy()
        return _filled(self.template, values)  # type: ignore[no-any-return]


def _whole(code: bytes, here: int) -> tuple[int, int]:
    """Value and end of BININT1, BININT2 or BININT; IndexError for anything else."""
    operation = code[here]
    if operation == _UINT16:
        return code[here + 1] | code[here + 2] << 8, here + 3
    if operation == _UINT8:
        return code[here + 1], here + 2
    if operation != _INT32:
        raise IndexError
    return int.from_bytes(code[here + 1 : here + 5], "little", signed=True), here + 5


def _filled(template: Any, values: list[Any]) -> Any:
    kind = type(template)
    if kind is _Slot:
        return values[template.index]
    if kind is dict:
        return {key: _filled(value, values) for key, value in template.items()}
    if kind is list or kind is tuple:
        return kind([_filled(value, values) for value in template])
    return template.copy() if kind is np.ndarray else template


def learn(code: bytes, limits: Limits) -> Layout | None:
    """The layout of a stream that has been read without errors; None if it has no simple one."""
    shallow = replace(limits, nesting=min(limits.nesting, _MAX_NESTING))
    learner = _Learner(code, "", shallow, _no_tensors, 0)
    try:
        template, end = learner.run()
    except UncropError:
        return None  # it uses what is in a slot for something else than as a value
    is_tree = _is_tree(template, set())
    if not is_tree or end != len(code) or not learner.spans or learner.n_copied > COPY_FLOOR:
        return None
    steps = []
    here = 0
    arrays = {array.index: array for array in learner.arrays}
    for index, (begin, after, is_text) in enumerate(learner.spans):
        literal = code[here:begin]
        n_bytes = arrays[index].n_bytes if index in arrays else -1
        steps.append((literal, len(literal), is_text, n_bytes))
        here = after
    return Layout(tuple(steps), code[here:], tuple(learner.arrays), template)


def _no_tensors(key: str, dtype_name: str, n_elements: int) -> tuple[bytes, str]:
    raise FormatError("", "arrays", "tensors")  # their numbers are in other members of the archive


def _is_tree(template: Any, seen: set[int]) -> bool:
    """Whether no container appears twice: refilling it would make two of one."""
    if type(template) not in (dict, list, tuple) or not template:
        return True
    if id(template) in seen:
        return False
    seen.add(id(template))
    items = template.values() if type(template) is dict else template
    return all(_is_tree(item, seen) for item in items)


class _Learner(Machine):
    """The interpreter, which also notes where the slots are."""

    __slots__ = ("arrays", "n_copied", "spans")

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.spans: list[tuple[int, int, bool]] = []
        self.arrays: list[_Array] = []
        self.n_copied = 0

    def slot(self, begin: int, end: int, is_text: bool) -> _Slot:
        """A new slot for bytes ``begin`` to ``end``: with its operation, if that may change."""
        self.spans.append((begin, end, is_text))
        return _Slot(len(self.spans) - 1)

    def expects_value(self) -> bool:
        """Whether what is pushed next is the value that belongs to a key of a dict."""
        return (
            bool(self.marks and self.marks[-1])
            and type(self.marks[-1][-1]) is dict
            and len(self.stack) % 2 == 1
            and type(self.stack[-1]) is str
        )

    def expects_numbers(self, tail: int) -> bool:
        """Whether what is pushed next, stored before byte ``tail``, is the numbers of an array."""
        if not USUAL_TAIL.match(self.code, tail) or not (self.marks and self.marks[-1]):
            return False
        target = self.marks[-1][-1]
        stored, encoding = self.code[tail + 1], self.code[tail + 3]
        return (
            type(target) is Unbuilt
            and not target.dtype_name
            and len(self.stack) == 5
            and (type(self.stack[0]), self.stack[0]) == (int, 1)
            and isinstance(self.stack[2], np.dtype)
            and type(self.stack[3]) is bool
            and self.stack[4] is ENCODE
            and stored != encoding
            and is_latin1(self.memo.get(encoding))
        )


def _text(vm: Machine, here: int) -> int:
    begin = here + 4
    end = begin + int.from_bytes(vm.code[here:begin], "little")
    if isinstance(vm, _Learner):
        if vm.expects_numbers(end) and _add_array(vm, here, end):
            return end + _N_TAIL
        if vm.expects_value():
            vm.stack.append(vm.slot(here, end, True))
            return end
    return OPERATIONS[_TEXT](vm, here)


def _add_array(vm: _Learner, here: int, end: int) -> bool:
    """Perform the operations up to BUILD on numbers that are not looked at."""
    _, shape, dtype, fortran, _ = vm.stack
    n_bytes = vm.count(shape) * dtype.itemsize
    if not dtype.isnative or dtype.kind == "b":
        return False  # booleans: 0 and 1 only, which the interpreter checks
    slot = vm.slot(here, end, True)
    extents = shape[::-1] if fortran else shape
    strides = tuple(prod(extents[i + 1 :]) * dtype.itemsize for i in range(len(extents)))
    offset = sum(array.n_bytes for array in vm.arrays)
    strides = strides[::-1] if fortran else strides
    vm.arrays.append(_Array(slot.index, offset, n_bytes, shape, strides, dtype))
    vm.n_copied += 2 * n_bytes
    for at in (1, 6, 9, 12):  # text, tuple, bytes, state: nobody may look into them either
        vm.memo[vm.code[end + at]] = _OPAQUE
    vm.stack = vm.marks.pop()
    vm.stack[-1].built = slot
    vm.stack[-1] = slot
    return True


def _whole_value(vm: Machine, here: int) -> int:
    operation = vm.code[here - 1]
    if isinstance(vm, _Learner) and vm.expects_value():
        end = here + {_UINT8: 1, _UINT16: 2, _INT32: 4}[operation]
        vm.stack.append(vm.slot(here - 1, end, False))
        return end
    return OPERATIONS[operation](vm, here)


def _binget(vm: Machine, here: int) -> int:
    vm.stack.append(recalled(vm, vm.code[here]))
    return here + 1


_OPAQUE = object()
_WATCHED = {
    _TEXT: _text,
    _BINGET: _binget,
    **dict.fromkeys((_UINT8, _UINT16, _INT32), _whole_value),
}
_Learner.operations = tuple(_WATCHED.get(i, operation) for i, operation in enumerate(OPERATIONS))
_Learner.leaves = LEAVES | {_Slot}
