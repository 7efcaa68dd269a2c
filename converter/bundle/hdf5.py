"""Reading HDF5 files of strangers: the library only says where data lie, the bytes are read here.

HDF5 does what a file asks for: it follows links into other files, looks for filter plugins, and
inflates a chunk to whatever size its stream unfolds to (1.5 MB became 1.5 GB). So objects are
opened by name through hard links only, types are compared and not converted, and chunks are read
and inflated by `Stored`, never to more than they declare. This also leaves nothing of the library
open, and lets many threads read.
"""

from __future__ import annotations

import os
import weakref
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from math import prod
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from converter.bundle.schema import MAGIC, Attribute, Entry, Value
from converter.errors import FormatError, UncropError, UnsafeFileError
from converter.media.files import open_regular
from converter.media.limits import DEFAULT_LIMITS, Limits

_BLOCK_BYTES = 1 << 22
_TEXT_ATTRIBUTE_BYTES = 4096
_DEFLATE, _SHUFFLE = 1, 2
_PIPELINES = ((), (_DEFLATE,), (_SHUFFLE,), (_SHUFFLE, _DEFLATE))


class InputBytes:
    """A regular file, open for reading at any position by any thread.

    It stays readable when another file takes its name, and is closed when nobody holds it any more.

    Raises
    ------
    MissingInputError, UnsafeFileError, FormatError
        As `converter.media.files.read_bytes`.

    """

    def __init__(self, path: Path | str) -> None:
        self.path = path
        self._descriptor = open_regular(path)
        weakref.finalize(self, os.close, self._descriptor)
        self.size = os.fstat(self._descriptor).st_size

    def __reduce__(self) -> tuple[type[InputBytes], tuple[Path | str]]:
        return InputBytes, (self.path,)

    def read(self, offset: int, n_bytes: int) -> bytearray:
        """Read bytes; raises FormatError where the file ends before."""
        data = bytearray(n_bytes)
        view, done = memoryview(data), 0
        while done < n_bytes:
            try:
                n = os.preadv(self._descriptor, [view[done:]], offset + done)
            except OSError as error:
                raise FormatError(self.path, "a readable file", str(error.strerror)) from None
            if n == 0:
                raise FormatError(self.path, f"{offset + n_bytes} bytes or more", "fewer")
            done += n
        return data


@dataclass(frozen=True, slots=True, eq=False)
class Stored:
    """Where the data of one dataset lie.

    Attributes
    ----------
    source, where
        The file, and the name of the dataset for messages.
    dtype, shape
        What it holds.
    chunk_rows
        Rows (along the first axis) per chunk; chunks hold whole rows.
    filters
        HDF5 filter codes, in the order of writing.
    chunks
        (n, 3) int64: position, stored bytes, and mask of the filters left out; one per chunk.

    """

    source: InputBytes
    where: str
    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    chunk_rows: int
    filters: tuple[int, ...]
    chunks: NDArray[np.int64]

    @property
    def row_bytes(self) -> int:
        """Bytes of one row."""
        return prod(self.shape[1:]) * self.dtype.itemsize

    @property
    def n_rows(self) -> int:
        """Length of the first axis; 1 for a scalar."""
        return self.shape[0] if self.shape else 1

    @property
    def n_bytes(self) -> int:
        """Bytes of all data."""
        return self.n_rows * self.row_bytes

    def read(self) -> NDArray[Any]:
        """Read everything."""
        return self.rows(0, self.n_rows).reshape(self.shape)

    def rows(self, begin: int, end: int) -> NDArray[Any]:
        """Read rows ``begin`` to ``end`` (exclusive).

        Raises
        ------
        FormatError
            If a chunk does not inflate to what it should be.

        """
        out = bytearray((end - begin) * self.row_bytes)
        if not out:
            return np.zeros((end - begin, *self.shape[1:]), self.dtype)
        step, width = self.chunk_rows, self.row_bytes
        for chunk in range(begin // step, -(-end // step)):
            first, last = max(begin, chunk * step), min(end, (chunk + 1) * step)
            data = self._chunk(chunk, (first - chunk * step) * width, (last - first) * width)
            out[(first - begin) * width : (last - begin) * width] = data
        return np.frombuffer(out, self.dtype).reshape(-1, *self.shape[1:])

    def blocks(self) -> Iterator[NDArray[Any]]:
        """Read everything, some rows at a time."""
        rows = max(1, _BLOCK_BYTES // max(1, self.row_bytes))
        if self.filters:
            rows = max(1, rows // self.chunk_rows) * self.chunk_rows
        for begin in range(0, self.n_rows, rows):
            yield self.rows(begin, min(begin + rows, self.n_rows))

    def _chunk(self, index: int, offset: int, n_bytes: int) -> bytes | bytearray | memoryview:
        """Read a part of one chunk, after inflating and unshuffling it."""
        position, stored, mask = (int(v) for v in self.chunks[index])
        if not self.filters:
            return self.source.read(position + offset, n_bytes)
        full = self.chunk_rows * self.row_bytes
        used = [code for i, code in enumerate(self.filters) if not mask >> i & 1]
        data: bytes | bytearray = self.source.read(position, stored)
        if _DEFLATE in used:
            data = self._inflate(data, full)
        if len(data) != full:
            raise FormatError(self.where, f"chunks of {full} bytes", f"{len(data)}")
        if _SHUFFLE in used:
            planes = np.frombuffer(data, np.uint8).reshape(self.dtype.itemsize, -1)
            data = planes.T.tobytes()
        return memoryview(data)[offset : offset + n_bytes]

    def _inflate(self, data: bytes | bytearray, n_bytes: int) -> bytes:
        stream = zlib.decompressobj()
        try:
            inflated = stream.decompress(data, n_bytes + 1)
        except zlib.error as error:
            raise FormatError(self.where, "data that inflate", str(error)) from None
        if len(inflated) != n_bytes or not stream.eof or stream.unused_data:
            raise FormatError(self.where, f"{n_bytes} bytes per chunk", "another number")
        return inflated


class BundleFile:
    """An HDF5 file of a stranger; a context manager.

    Raises
    ------
    MissingInputError, UnsafeFileError
        If it is not there, or not a regular file.
    FormatError
        If it is not HDF5, cut off, or still being written.

    """

    def __init__(self, path: Path, limits: Limits = DEFAULT_LIMITS) -> None:
        import h5py

        self.path, self.limits = path, limits
        self.source = InputBytes(path)
        # HDF5 looks for its beginning further on as well; there could be anything before it.
        if self.source.size < len(MAGIC) or self.source.read(0, len(MAGIC)) != MAGIC:
            raise FormatError(path, "an HDF5 file", "something else")
        try:
            self._file = h5py.File(path, "r", locking=False)
        except Exception as error:  # h5py raises nearly anything on damaged input
            found = str(error).split("(")[-1].rstrip(")")
            raise FormatError(path, "a whole HDF5 file", found, "Is it still being written?"
                              ) from None  # fmt: skip
        self._objects: dict[str, Any] = {"/": self._file.id}

    def __enter__(self) -> BundleFile:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._objects.clear()
        self._file.close()

    def attribute(self, attribute: Attribute) -> Value | None:
        """Read an attribute; None if the object has none of that name.

        Raises
        ------
        FormatError
            If it is of another type.

        """
        import h5py

        where = f"{self.path}:{attribute.key}"
        holder = self._object(attribute.path)
        if holder is None:
            return None
        with _hdf5(where):
            name = attribute.name.encode()
            if not h5py.h5a.exists(holder, name):
                return None
            opened = h5py.h5a.open(holder, name)
            return _value(opened, attribute, where)

    def digest(self, path: str) -> str:
        """SHA-256 that a dataset says it has."""
        where = f"{path}@sha256"
        digest = self.attribute(Attribute(path, "sha256", "text", ""))
        if not isinstance(digest, str) or len(digest) != 64:
            raise FormatError(f"{self.path}:{where}", "64 hexadecimal digits", "others")
        return digest

    def dataset(self, entry: Entry) -> Stored | None:
        """Find a dataset of the schema; None if the file lacks it.

        Raises
        ------
        UnsafeFileError
            If its data are not in the file, or it asks for more than a bundle needs.
        FormatError
            If it is of another type.

        """
        import h5py

        where = f"{self.path}:{entry.path}"
        found = self._object(entry.path)
        if found is None:
            return None
        if not isinstance(found, h5py.h5d.DatasetID):
            raise FormatError(where, "a dataset", "a group")
        with _hdf5(where):
            return self._stored(found, entry, where)

    def _object(self, path: str) -> Any | None:
        """Open a group or dataset through hard links only: others reach outside the file."""
        import h5py

        if path in self._objects:
            return self._objects[path]
        parent, _, name = path.rpartition("/")
        group = self._object(parent or "/")
        if group is None:
            return None
        where = f"{self.path}:{path}"
        if not isinstance(group, h5py.h5g.GroupID):
            raise FormatError(f"{self.path}:{parent}", "a group", "a dataset")
        with _hdf5(where):
            if not group.links.exists(name.encode()):
                self._objects[path] = None
                return None
            if group.links.get_info(name.encode()).type != h5py.h5l.TYPE_HARD:
                raise UnsafeFileError(where, "data in the file itself", "a link")
            self._objects[path] = h5py.h5o.open(group, name.encode())
        return self._objects[path]

    def _stored(self, dataset: Any, entry: Entry, where: str) -> Stored:
        import h5py

        dtype = _dtype(dataset.get_type(), entry, where)
        space = dataset.get_space()
        if space.get_simple_extent_type() not in (h5py.h5s.SCALAR, h5py.h5s.SIMPLE):
            raise FormatError(where, "data", "nothing")
        shape = tuple(int(n) for n in space.get_simple_extent_dims())
        properties = dataset.get_create_plist()
        layout = properties.get_layout()
        if layout == h5py.h5d.VIRTUAL or properties.get_external_count():
            raise UnsafeFileError(where, "data in the file itself", "data in another file")
        filters = tuple(
            int(properties.get_filter(i)[0]) for i in range(min(properties.get_nfilters(), 8))
        )
        if filters not in _PIPELINES:
            raise UnsafeFileError(where, "shuffle and gzip filters", f"filters {filters}")
        if layout == h5py.h5d.CHUNKED:
            chunk = tuple(int(n) for n in properties.get_chunk())
            chunks = self._chunked(dataset, shape, chunk, dtype.itemsize, where)
            stored = Stored(self.source, where, dtype, shape, chunk[0], filters, chunks)
            if not filters and np.any(chunks[:, 1] != chunk[0] * stored.row_bytes):
                raise FormatError(where, "whole chunks", "others")
        elif layout == h5py.h5d.CONTIGUOUS and not filters:
            n_bytes = prod(shape) * dtype.itemsize
            begin = dataset.get_offset() if n_bytes else 0
            if begin is None:
                raise FormatError(where, f"{n_bytes} bytes of data", "none")
            span = np.array([[begin, n_bytes, 0]], np.int64)
            stored = Stored(self.source, where, dtype, shape, max(1, shape[0] if shape else 1),
                            (), span)  # fmt: skip
        else:
            raise FormatError(where, "contiguous or chunked data", "another layout")
        self._require_inside(stored)
        return stored

    def _chunked(
        self, dataset: Any, shape: tuple[int, ...], chunk: tuple[int, ...], item: int, where: str
    ) -> NDArray[np.int64]:
        """List the chunks: as many as the shape needs, each once, of whole rows."""
        full = prod(chunk) * item
        if len(chunk) != len(shape) or chunk[1:] != shape[1:]:
            raise FormatError(where, "chunks of whole frames", f"chunks of {chunk}")
        if full > self.limits.member_bytes:
            raise UnsafeFileError(
                where, f"chunks of at most {self.limits.member_bytes} bytes", f"{full}"
            )
        n_chunks = -(-shape[0] // chunk[0])
        rows: list[tuple[int, int, int, int]] = []

        def note(info: Any) -> bool | None:
            place = (*info.chunk_offset, 0)
            rows.append((place[0], info.byte_offset, info.size, info.filter_mask))
            return True if any(place[1:]) or len(rows) > n_chunks else None  # stops

        dataset.chunk_iter(note)
        table = np.array(sorted(rows), np.int64).reshape(-1, 4)
        if not np.array_equal(table[:, 0], np.arange(n_chunks) * chunk[0]):
            raise FormatError(where, f"{n_chunks} chunks of data", f"{len(rows)}")
        # Deflate makes nothing longer than this (zlib's own bound).
        if np.any(table[:, 2] > full + (full >> 9) + 64):
            raise UnsafeFileError(where, f"chunks of {full} bytes or less", "longer ones")
        return table[:, 1:]

    def _require_inside(self, stored: Stored) -> None:
        """Refuse data outside the file, used twice, or unfolding to far more than is stored."""
        begin, length = stored.chunks[:, 0], stored.chunks[:, 1]
        if np.any(begin < 0) or np.any(length < 0) or np.any(begin > self.source.size - length):
            raise FormatError(stored.where, "data inside the file", "an address beyond its end")
        order = np.argsort(begin)
        if np.any((begin + length)[order][:-1] > begin[order][1:]):
            raise UnsafeFileError(stored.where, "chunks side by side", "chunks that overlap")
        total = int(length.sum())
        if stored.n_bytes > max(self.limits.member_bytes, self.limits.member_ratio * total):
            raise UnsafeFileError(
                stored.where,
                f"at most {self.limits.member_ratio} bytes per stored byte",
                f"{stored.n_bytes} bytes in {total}",
                "If it is genuine, raise the limit.",
            )


def _dtype(kind: Any, entry: Entry, where: str) -> np.dtype[Any]:
    """NumPy's dtype, after comparing the HDF5 type with the schema's; nothing is converted."""
    import h5py

    h5t = h5py.h5t
    if entry.dtype == "text":
        if not isinstance(kind, h5t.TypeStringID) or kind.is_variable_str():
            raise FormatError(where, "a fixed-length string", "another type")
        return np.dtype(("S", kind.get_size()))
    expected = {
        "<f8": h5t.IEEE_F64LE,
        "<f4": h5t.IEEE_F32LE,
        "<i8": h5t.STD_I64LE,
        "<i4": h5t.STD_I32LE,
        "|u1": h5t.STD_U8LE,
    }[entry.dtype]
    if not kind.equal(expected):
        raise FormatError(where, f"numbers of type {entry.dtype}", "another type")
    return np.dtype(entry.dtype)


def _value(opened: Any, attribute: Attribute, where: str) -> Value:
    """Read an open attribute after looking at its type and its shape."""
    import h5py

    kind, space = opened.get_type(), opened.get_space()
    scalar = space.get_simple_extent_type() == h5py.h5s.SCALAR
    dims = tuple(space.get_simple_extent_dims()) if scalar or space.is_simple() else None
    if attribute.kind == "text":
        fixed = isinstance(kind, h5py.h5t.TypeStringID) and not kind.is_variable_str()
        if not scalar or not fixed or kind.get_size() > _TEXT_ATTRIBUTE_BYTES:
            raise FormatError(where, "a short fixed-length string", "another type")
        text = np.empty((), ("S", kind.get_size()))
        opened.read(text, mtype=kind)
        return text.tobytes().rstrip(b"\0").decode("utf-8")
    wanted = h5py.h5t.TypeFloatID if attribute.kind == "float" else h5py.h5t.TypeIntegerID
    if not isinstance(kind, wanted) or dims != ((2,) if attribute.kind == "pair" else ()):
        names = {"int": "an integer", "float": "a float", "pair": "two integers"}
        raise FormatError(where, names[attribute.kind], "another type or shape")
    numbers = np.empty(dims, np.float64 if attribute.kind == "float" else np.int64)
    opened.read(numbers)
    value: Value = numbers.tolist()
    return value


@contextmanager
def _hdf5(where: str) -> Iterator[None]:
    """Turn whatever the library raises on damaged input into FormatError."""
    try:
        yield
    except UncropError:
        raise
    except Exception as error:
        found = (str(error).splitlines() or [type(error).__name__])[0]
        raise FormatError(where, "readable HDF5", found) from None
