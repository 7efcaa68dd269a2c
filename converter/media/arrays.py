"""numpy's .npy and .npz files, read under limits and without ever unpickling.

numpy's own reader allocates what a header asks for, and parses headers as Python. Here the header
is matched against the one form that ``numpy.lib.format.write_array_header_*`` gives it, the shape
times the item size has to be the rest of the file to the byte, and only then an array is made.

Format: numpy.lib.format, versions 1.0 to 3.0.
"""

from __future__ import annotations

import os
import re
from collections.abc import Collection
from math import prod
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from converter.errors import FormatError, OutputError, UnsafeFileError
from converter.media.archive import open_archive
from converter.media.files import read_bytes
from converter.media.limits import DEFAULT_LIMITS, Limits
from converter.media.pickle_stream import DTYPES, NATIVE

_MAGIC = b"\x93NUMPY"
_MAX_HEADER_BYTES = 10_000
_MAX_NDIM = 32
_MAX_KNOWN = 64
_KNOWN: dict[str, tuple[np.dtype[Any], bool, tuple[int, ...]]] = {}
"""Headers that passed: thousands of landmark files share one."""

# One "key: value" of the header, up to the comma or before the closing brace. Values are text, a
# truth value or a tuple of whole numbers; Python 2 wrote those as 68L.
_ITEM = re.compile(
    r"\s*'(descr|fortran_order|shape)'\s*:\s*('[^']*'|True|False|\([0-9L, ]*\))\s*(?:,|(?=\}))"
)

_DAMAGED = "Copy or write it again: it is cut short or damaged."
_PLAIN = "Save plain numbers: arrays of objects, text or records are not read."
_RESAVE = "Save it again with numpy.save."


def read_npy(path: Path | str, limits: Limits = DEFAULT_LIMITS) -> NDArray[Any]:
    """Read an array of plain numbers from a .npy file.

    Returns
    -------
    array
        C-contiguous, in native byte order, owning its data.

    Raises
    ------
    MissingInputError
        If it does not exist.
    UnsafeFileError
        If it is a pickle, holds objects, text or records, or exceeds a limit.
    FormatError
        If it is damaged, or no .npy file.

    """
    return parse_npy(read_bytes(path, limits), path)


def parse_npy(data: bytes, where: object) -> NDArray[Any]:
    """As `read_npy`, for the bytes of a file that messages call ``where``."""
    header, begin = _header_of(data, where)
    layout = _KNOWN.get(header)
    if layout is None:
        layout = _layout_of(header, where)
        if len(_KNOWN) < _MAX_KNOWN:
            _KNOWN[header] = layout
    dtype, fortran, shape = layout
    n_bytes = prod(shape) * dtype.itemsize
    if n_bytes != len(data) - begin:
        found = f"{len(data) - begin}"
        raise FormatError(where, f"{n_bytes} bytes for shape {shape} {dtype}", found, _DAMAGED)
    flat = np.frombuffer(data, dtype, offset=begin)
    if dtype.kind == "b" and flat.view(np.uint8).max(initial=0) > 1:
        raise FormatError(where, "truth values 0 and 1", "another", _DAMAGED)
    shaped = flat.reshape(shape[::-1]).T if fortran else flat.reshape(shape)
    return shaped.astype(NATIVE[dtype], order="C")


def read_npz(
    path: Path | str,
    limits: Limits = DEFAULT_LIMITS,
    *,
    only: Collection[str] | None = None,
) -> dict[str, NDArray[Any]]:
    """Read the arrays of a .npz file by name, in file order.

    Parameters
    ----------
    path, limits
        As in `read_npy`.
    only
        Names to read; the others are not decompressed. Names that are absent are left out.

    Raises
    ------
    MissingInputError, UnsafeFileError, FormatError
        As `read_npy`, for the file or any array that is read.

    """
    archive = open_archive(read_bytes(path, limits), path, limits)
    arrays = {}
    for member in archive.members:
        name, suffix = os.path.splitext(member)
        if suffix != ".npy":
            raise FormatError(f"{path}: {member}", "an array in .npy format", "another", _RESAVE)
        if only is None or name in only:
            arrays[name] = parse_npy(archive.read(member), f"{path}: {member}")
    return arrays


def write_npy(path: Path | str | BinaryIO, array: NDArray[Any]) -> None:
    """Write an array of plain numbers as .npy; the same array gives the same bytes.

    Raises
    ------
    OutputError
        If it is not an array of plain numbers, or the disk refuses.

    """
    where = getattr(path, "name", path) if not isinstance(path, str | Path) else path
    dtype = array.dtype.newbyteorder("<")
    if dtype not in NATIVE:
        raise OutputError(where, "an array of plain numbers", f"dtype {array.dtype}")
    plain = array.astype(dtype, order="C")
    try:
        if isinstance(path, str | Path):
            with open(path, "wb") as stream:
                np.lib.format.write_array(stream, plain, version=(1, 0), allow_pickle=False)
        else:
            np.lib.format.write_array(path, plain, version=(1, 0), allow_pickle=False)
    except OSError as error:
        raise OutputError(where, "a file to write to", error.strerror or str(error)) from None


def _header_of(data: bytes, where: object) -> tuple[str, int]:
    """The header's text, and the byte at which the numbers begin."""
    if not data.startswith(_MAGIC) or len(data) < 10:
        raise _foreign(data, where)
    major, minor = data[6], data[7]
    if (major, minor) not in ((1, 0), (2, 0), (3, 0)):
        raise FormatError(where, "npy version 1.0, 2.0 or 3.0", f"{major}.{minor}", _RESAVE)
    n_length = 2 if major == 1 else 4
    begin = 8 + n_length
    n_header = int.from_bytes(data[8:begin], "little")
    if n_header > _MAX_HEADER_BYTES:
        raise UnsafeFileError(
            where, f"a header of at most {_MAX_HEADER_BYTES} bytes", f"{n_header}", _PLAIN
        )
    if begin + n_header > len(data):
        raise FormatError(where, f"a header of {n_header} bytes", "a shorter file", _DAMAGED)
    raw = data[begin : begin + n_header]
    if not raw.isascii():
        raise FormatError(where, "a header in ASCII", "other bytes", _DAMAGED)
    return raw.decode("ascii"), begin + n_header


def _foreign(data: bytes, where: object) -> FormatError | UnsafeFileError:
    """The error for a file that does not begin like .npy."""
    if data.startswith(b"\x80"):
        remedy = f"Do not open it with numpy.load or pickle. {_RESAVE}"
        found = "a bare pickle, which runs code when it is opened"
        return UnsafeFileError(where, "a .npy file", found, remedy)
    found = "a zip (.npz or torch.save)" if data.startswith(b"PK") else "another format"
    return FormatError(where, "a .npy file", found if data else "an empty file", _RESAVE)


def _layout_of(header: str, where: object) -> tuple[np.dtype[Any], bool, tuple[int, ...]]:
    """Dtype, Fortran order and shape, from the text of the header."""
    items = _items_of(header, where)
    descr, order, extents = items["descr"], items["fortran_order"], items["shape"]
    dtype = DTYPES.get(descr.strip("'"))
    if dtype is None:
        raise UnsafeFileError(where, "an array of plain numbers", f"dtype {descr[:100]}", _PLAIN)
    numbers = [part.strip().removesuffix("L") for part in extents.strip("()").split(",")]
    if numbers[-1] == "":
        numbers.pop()  # (68,) and ()
    # Thirteen digits are more than any file has bytes, and no work to convert.
    fine = all(number.isdigit() and len(number) < 13 for number in numbers)
    if order not in ("True", "False") or not extents.startswith("(") or len(numbers) > _MAX_NDIM:
        fine = False
    shape = tuple(map(int, numbers)) if fine else ()
    # numpy refuses shapes like (0, 2**40, 2**40) by a ValueError.
    if not fine or prod(extent or 1 for extent in shape) >= 2**40:
        raise FormatError(where, "a shape that fits the file", extents[:100], _DAMAGED)
    return dtype, order == "True", shape


def _items_of(header: str, where: object) -> dict[str, str]:
    if re.match(r"\s*\{.*'descr'\s*:\s*\[", header, re.DOTALL):
        raise UnsafeFileError(where, "an array of plain numbers", "one of records", _PLAIN)
    items: dict[str, str] = {}
    here = 1
    while item := _ITEM.match(header, here):
        key, value = item.groups()
        if key in items:
            break
        items[key] = value
        here = item.end()
    rest = header[here:].strip()
    if not header.startswith("{") or rest != "}" or len(items) != 3:
        expected = "a header with descr, fortran_order and shape only"
        raise FormatError(where, expected, repr(header[:100]), _RESAVE)
    return items
