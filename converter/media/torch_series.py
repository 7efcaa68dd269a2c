"""Many torch.save files of one writer, like the .frame files of a track, read fast.

The first files are read by `converter.media.torchfile`. From them a `TorchSeries` learns what stays
the same: the bytes of the zip around the members (per size of file and stream), and the operations
of the stream (`converter.media.pickle_layout`). A further file whose bytes agree is taken without
being interpreted again; any other goes the way of a single file, with the same errors.

What makes this as safe as reading each file by itself: every byte is either compared with a byte of
a file that passed all checks; or is checked by itself (numbers, texts, the CRC-32 of the stream and
that all copies of it and of the name agree); or is one that the reader of single files does not
look at either (the contents of members that hold no numbers).
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from operator import itemgetter
from pathlib import Path
from typing import Any

from converter.media.archive import Archive, open_archive
from converter.media.files import read_bytes
from converter.media.limits import DEFAULT_LIMITS, Limits
from converter.media.pickle_layout import Layout, learn
from converter.media.torchfile import TorchFile, parse_torch, stem_of

_MAX_STREAMS = 8
"""Streams from which a layout is learned: a few writers in one folder, no more."""
_MAX_ZIPS = 1024
"""Zip layouts kept. Sizes of streams vary by the numbers that take two bytes in UTF-8."""
_MAX_HEADERS = 64
"""Members of a zip that is worth learning."""

_STORED, _DESCRIPTOR = 0, 0x0008
_LEFT_OPEN = (bytes(12), bytes(4) + b"\xff" * 8)
"""Checksum and sizes in front of a member where those behind it count."""


class TorchSeries:
    """Reads torch.save files as `read_torch` does, the faster the more they resemble each other.

    Parameters
    ----------
    limits
        Bounds on each file.

    """

    def __init__(self, limits: Limits = DEFAULT_LIMITS) -> None:
        self._limits = limits
        self._streams: list[Layout] = []
        self._n_learned = 0
        self._zips: dict[tuple[int, bytes], _ZipLayout] = {}

    def read(self, path: Path | str) -> TorchFile:
        """Read one file; returns and raises what `read_torch` does."""
        return self.parse(read_bytes(path, self._limits), path)

    def parse(self, data: bytes, where: object) -> TorchFile:
        """As `read`, for the bytes of a file that messages call ``where``."""
        taken = self._taken(data, where)
        content = None if taken is None else self._content(taken[1])
        if taken is None or content is None:
            file = parse_torch(data, where, self._limits)
            if taken is not None and self._n_learned < _MAX_STREAMS:
                self._n_learned += 1
                layout = learn(taken[1], self._limits)
                self._streams += [] if layout is None else [layout]
            return file
        return TorchFile(content, taken[0])

    def _content(self, code: bytes) -> Any:
        for i, layout in enumerate(self._streams):
            content = layout.content(code)
            if content is not None:
                if i:
                    self._streams.insert(0, self._streams.pop(i))
                return content
        return None

    def _taken(self, data: bytes, where: object) -> tuple[str, bytes] | None:
        """Stem and stream of a zip; None if it is no zip."""
        if not data.startswith(b"PK\x03\x04"):
            return None
        key = _size_of(data)
        layout = self._zips.get(key)
        taken = None if layout is None else layout.taken(data)
        if taken is None:
            archive = open_archive(data, where, self._limits)
            stem = stem_of(archive)
            taken = stem, archive.read(f"{stem}/data.pkl")
            if len(self._zips) < _MAX_ZIPS:
                layout = _learned_zip(archive, stem)
                self._zips |= {} if layout is None else {key: layout}
        return taken


def _size_of(data: bytes) -> tuple[int, bytes]:
    """Size of the file, and of its first member by the zip directory."""
    directory = int.from_bytes(data[-6:-2], "little")
    return len(data), data[directory + 20 : directory + 24]


@dataclass(frozen=True, slots=True)
class _ZipLayout:
    """A zip whose bytes are given, except for the stem, checksums and contents of its members.

    Attributes
    ----------
    fields
        The whole file, as literal bytes, stems and checksums; contents left out.
    literals_of, literals
        Which fields are literal, and what they are.
    firsts_of, others_of
        Pairs of fields that must be equal: the stems; the checksums of one member.
    stem, crc
        Fields of the stem, and of the checksum of the stream.
    begin, end
        The bytes of the stream.

    """

    fields: struct.Struct
    literals_of: Callable[[tuple[bytes, ...]], Any]
    literals: tuple[bytes, ...]
    firsts_of: Callable[[tuple[bytes, ...]], Any]
    others_of: Callable[[tuple[bytes, ...]], Any]
    stem: int
    crc: int
    begin: int
    end: int

    def taken(self, data: bytes) -> tuple[str, bytes] | None:
        """Stem and stream of a file of this layout; None for any other file of the same size."""
        fields = self.fields.unpack(data)
        if self.literals_of(fields) != self.literals:
            return None
        stem = fields[self.stem]
        # Letters and digits: no folder, no "..", and the same name in each character set.
        if self.firsts_of(fields) != self.others_of(fields) or not stem.isalnum():
            return None
        code = data[self.begin : self.end]
        if zlib.crc32(code).to_bytes(4, "little") != fields[self.crc]:
            return None
        return stem.decode("ascii"), code


def _learned_zip(archive: Archive, stem: str) -> _ZipLayout | None:
    """The layout of an archive that has been checked; None if it is an unusual one."""
    data, members = archive.data, archive.members
    stream = members[f"{stem}/data.pkl"]
    if stream.method != _STORED or len(members) > _MAX_HEADERS or not stem.encode().isalnum():
        return None
    # (first byte, last + 1, what must be equal there; "" where nothing is looked at)
    holes: list[tuple[int, int, str]] = []
    n_stem = len(stem)
    entry = int.from_bytes(data[-6:-2], "little")
    for name, member in members.items():
        flags, n_name, n_extra, n_comment, offset = _ENTRY.unpack_from(data, entry)
        after = member.start + member.stored
        is_open = flags & _DESCRIPTOR and data[offset + 14 : offset + 26] in _LEFT_OPEN
        if not is_open:
            holes.append((offset + 14, offset + 18, name))
        holes.append((offset + 30, offset + 30 + n_stem, "/"))
        holes.append((member.start, after, ""))
        if flags & _DESCRIPTOR:
            if not data.startswith(b"PK\x07\x08", after):
                return None  # without it, a checksum might be taken for it
            holes.append((after + 4, after + 8, name))
        holes.append((entry + 16, entry + 20, name))
        holes.append((entry + 46, entry + 46 + n_stem, "/"))
        entry += 46 + n_name + n_extra + n_comment
    return _layout_of(data, sorted(holes), f"{stem}/data.pkl", (stream.start, stream.stored))


_ENTRY = struct.Struct("<8xH18x3H8xI")
"""Of a directory entry: flags; lengths of name, extra field and comment; offset."""


def _layout_of(
    data: bytes, holes: list[tuple[int, int, str]], stream: str, place: tuple[int, int]
) -> _ZipLayout:
    formats, literals, literal_fields = ["<"], [], []
    firsts: dict[str, int] = {}
    pairs: list[tuple[int, int]] = []
    here = n_fields = 0
    for begin, end, name in [*holes, (len(data), len(data), "")]:
        if begin > here:
            formats.append(f"{begin - here}s")
            literals.append(data[here:begin])
            literal_fields.append(n_fields)
            n_fields += 1
        formats.append(f"{end - begin}s" if name else f"{end - begin}x")
        if name:
            pairs.append((firsts.setdefault(name, n_fields), n_fields))
            n_fields += 1
        here = end
    return _ZipLayout(
        struct.Struct("".join(formats)),
        itemgetter(*literal_fields),
        tuple(literals),
        itemgetter(*(first for first, _ in pairs)),
        itemgetter(*(other for _, other in pairs)),
        firsts["/"],
        firsts[stream],
        place[0],
        place[0] + place[1],
    )
