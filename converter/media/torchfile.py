r"""torch.save files (.frame, .pt): read without torch and without running anything, and written.

Two containers exist. Since torch 1.6 a file is a zip::

    <stem>/data.pkl      the object, as a pickle stream of protocol 2
    <stem>/byteorder     "little" or "big" (torch >= 2.1)
    <stem>/data/<key>    the numbers of one tensor storage each
    <stem>/version       "3\n"

Before it, and still with ``_use_new_zipfile_serialization=False``, it is five consecutive pickle
streams (a magic number, 1001, facts on the system, the object, the keys of the storages) followed
by each storage as a 64-bit count and its numbers. Still older tar files are refused.

Source: ``torch/serialization.py`` (``_save``, ``_legacy_save``, ``_legacy_load``). The streams are
interpreted by `converter.media.pickle_stream`.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from converter.errors import FormatError, OutputError, UnsafeFileError
from converter.media.archive import Archive, open_archive, zip_bytes
from converter.media.files import read_bytes
from converter.media.limits import DEFAULT_LIMITS, Limits
from converter.media.pickle_stream import Content, Machine
from converter.media.pickle_writer import StreamWriter

_MAGIC = 0x1950A86A20F9469CFC6C
_MAGIC_BYTES = _MAGIC.to_bytes(10, "little")
_LEGACY_PROTOCOL = 1001

_DAMAGED = "Copy or download it again: it is cut short or damaged."
_SAVE_AGAIN = "Save it again with torch.save of torch 1.6 or later."
_BYTE_ORDERS = {b"little": "<", b"big": ">"}


@dataclass(frozen=True)
class TorchFile:
    """What a torch.save file holds."""

    content: Content
    """Tensors as arrays, numpy scalars as Python numbers, OrderedDict as dict. Arrays are
    C-contiguous, in native byte order and own their data."""
    stem: str | None
    """Name under which torch wrote the file (shows a rename); None for legacy streams."""


def read_torch(path: Path | str, limits: Limits = DEFAULT_LIMITS) -> TorchFile:
    """Read a torch.save file of numbers, text and arrays; runs and imports nothing it names.

    Raises
    ------
    MissingInputError
        If it does not exist.
    UnsafeFileError
        If it asks for code, for objects that are not plain data, or for more than the limits.
    FormatError
        If it is damaged or no torch.save file.

    """
    return parse_torch(read_bytes(path, limits), path, limits)


def parse_torch(data: bytes, where: object, limits: Limits = DEFAULT_LIMITS) -> TorchFile:
    """As `read_torch`, for the bytes of a file that messages call ``where``."""
    if data.startswith(b"PK\x03\x04"):
        return _parse_zip(data, where, limits)
    if data.startswith(b"\x80"):
        if _MAGIC_BYTES not in data[:32]:
            raise UnsafeFileError(
                where,
                "a torch.save file",
                "a bare pickle, which runs code when it is opened",
                f"Do not open it with pickle or torch.load. {_SAVE_AGAIN}",
            )
        return LegacyStream(data, where, limits).parse()
    if data.startswith(b"ustar", 257):
        raise UnsafeFileError(where, "a zip", "a tar archive of torch before 0.2", _SAVE_AGAIN)
    found = "an empty file" if not data else "another format"
    raise FormatError(where, "a torch.save file", found, _DAMAGED)


def _parse_zip(data: bytes, where: object, limits: Limits) -> TorchFile:
    archive = open_archive(data, where, limits)
    stem = stem_of(archive)
    name = f"{stem}/data.pkl"
    machine = Machine(
        archive.read(name),
        f"{where}: {name}",
        limits,
        _ZipStorages(archive, stem),
        archive.total_bytes,
    )
    content, end = machine.run()
    if end != len(machine.code):
        raise FormatError(f"{where}: {name}", "one pickle stream", "bytes after it", _DAMAGED)
    return TorchFile(content, stem)


def stem_of(archive: Archive) -> str:
    """The one folder that holds everything, ``data.pkl`` included."""
    stems = {name.partition("/")[0] for name in archive.members}
    if len(stems) > 1:
        raise UnsafeFileError(
            archive.where, "one folder in the archive", f"{len(stems)}", _SAVE_AGAIN
        )
    stem = stems.pop() if stems else ""
    if f"{stem}/data.pkl" not in archive.members:
        found = "a zip without one"
        raise FormatError(archive.where, "a torch.save file with data.pkl", found, _SAVE_AGAIN)
    return stem


class _ZipStorages:
    """The members ``<stem>/data/<key>``, each read and checked once."""

    def __init__(self, archive: Archive, stem: str) -> None:
        self._archive = archive
        self._stem = stem
        self._read: dict[str, bytes] = {}
        self._order = ""

    def __call__(self, key: str, dtype_name: str, n_elements: int) -> tuple[bytes, str]:
        raw = self._read.get(key)
        name = f"{self._stem}/data/{key}"
        if raw is None:
            raw = self._read[key] = self._archive.read(name)
        n_bytes = n_elements * int(dtype_name[1:])
        if len(raw) != n_bytes:
            raise FormatError(
                f"{self._archive.where}: {name}", f"{n_bytes} bytes", f"{len(raw)}", _DAMAGED
            )
        return raw, self._byte_order()

    def _byte_order(self) -> str:
        name = f"{self._stem}/byteorder"
        if not self._order:
            told = self._archive.read(name) if name in self._archive.members else b"little"
            if told not in _BYTE_ORDERS:
                raise FormatError(
                    f"{self._archive.where}: {name}", "little or big", f"{told[:20]!r}", _DAMAGED
                )
            self._order = _BYTE_ORDERS[told]
        return self._order


class LegacyStream:
    """The stream format of torch before 1.6."""

    def __init__(self, data: bytes, where: object, limits: Limits) -> None:
        self.data = data
        self.where = where
        self.limits = limits
        self._told: dict[str, tuple[str, int]] = {}
        self._read: dict[str, bytes] = {}

    def parse(self) -> TorchFile:
        """Read the header, the object, and the storages behind it."""
        begin = self._header_end()
        content, end = self._machine().run(begin)
        keys, end = self._machine().run(end)
        self._read_storages(keys, end)
        if self._told:
            # The storages come after the object that needs them: a second time, with them.
            content, _ = self._machine().run(begin)
        return TorchFile(content, None)

    def _machine(self) -> Machine:
        return Machine(self.data, self.where, self.limits, self._storage, len(self.data))

    def _header_end(self) -> int:
        magic, end = self._machine().run(0)
        protocol, end = self._machine().run(end)
        system, end = self._machine().run(end)
        if type(magic) is not int or magic != _MAGIC:
            raise self._fault("the magic number of torch.save", "another value")
        if type(protocol) is not int or protocol != _LEGACY_PROTOCOL:
            raise self._fault(f"legacy protocol {_LEGACY_PROTOCOL}", "another")
        if not isinstance(system, dict) or system.get("little_endian") is not True:
            raise self._fault("a file of a little-endian machine", "another")
        return end

    def _fault(self, expected: str, found: str) -> FormatError:
        return FormatError(self.where, expected, found, _SAVE_AGAIN)

    def _storage(self, key: str, dtype_name: str, n_elements: int) -> tuple[bytes, str] | None:
        if self._told.setdefault(key, (dtype_name, n_elements)) != (dtype_name, n_elements):
            raise self._fault("one description of each storage", "two that differ")
        return (self._read[key], "<") if key in self._read else None

    def _read_storages(self, keys: Content, here: int) -> None:
        names = [key for key in keys if isinstance(key, str)] if isinstance(keys, list) else []
        if not isinstance(keys, list) or names != keys or sorted(names) != sorted(self._told):
            raise self._fault("a list of the storages in use", "another list")
        for key in names:
            dtype_name, n_elements = self._told[key]
            begin = here + 8
            here = begin + n_elements * int(dtype_name[1:])
            if self.data[begin - 8 : begin] != n_elements.to_bytes(8, "little"):
                raise self._fault(f"a storage of {n_elements} elements", "another count")
            if here > len(self.data):
                raise self._fault(f"{here} bytes", f"{len(self.data)}")
            self._read[key] = self.data[begin:here]
        if here != len(self.data):
            raise self._fault("the end of the file", f"{len(self.data) - here} more bytes")


def write_torch(path: Path | str | BinaryIO, content: Content, *, stem: str, tensors: bool) -> None:
    """Write the zip form of torch.save without torch; the same content gives the same bytes.

    Parameters
    ----------
    path
        A file that is replaced in place, or an open binary file.
    content
        Dicts (keys: text or small whole numbers), lists, tuples, numbers, text, None and arrays.
        numpy scalars become Python numbers; arrays become C-contiguous and little-endian.
    stem
        The folder inside the zip; torch uses the name of the file without its extension.
    tensors
        True: arrays become CPU tensors, which ``torch.load(weights_only=True)`` of torch >= 1.6
        reads. False: they stay numpy arrays, under the names of numpy 1.x, as metrical-tracker
        writes them; numpy 1 and 2 read both.

    Raises
    ------
    OutputError
        If the content or the stem cannot be written so that it reads back, or the disk refuses.

    """
    where = getattr(path, "name", path) if not isinstance(path, str | Path) else path
    data = torch_bytes(content, stem=stem, tensors=tensors, where=where)
    try:
        if isinstance(path, str | os.PathLike):
            Path(path).write_bytes(data)
        else:
            path.write(data)
    except OSError as error:
        raise OutputError(where, "a file to write to", error.strerror or str(error)) from None


def torch_bytes(
    content: Content, *, stem: str, tensors: bool, where: object = "torch.save file"
) -> bytes:
    """The bytes that `write_torch` writes; raises as it does."""
    if not stem.isprintable() or not set("/\\").isdisjoint(stem) or stem in ("", ".", ".."):
        raise OutputError(where, "a file stem without slashes or control characters", f"{stem!r}")
    writer = StreamWriter(where, tensors)
    stream = writer.stream(content)
    members = [(f"{stem}/data.pkl", stream), (f"{stem}/byteorder", b"little")]
    members += [(f"{stem}/data/{key}", raw) for key, raw in enumerate(writer.storages)]
    members += [(f"{stem}/version", b"3\n")]
    return zip_bytes(members)
