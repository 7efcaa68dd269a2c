"""Bare pickles of arrays, as ``pickle.dump`` writes a dict of them, read without unpickling.

The stream is interpreted by `converter.media.pickle_stream`: its closed table of names stands for
plain arrays and numbers, and everything else that a pickle can ask for is refused by name.
"""

from __future__ import annotations

from pathlib import Path

from converter.errors import FormatError, UnsafeFileError
from converter.media.files import read_bytes
from converter.media.limits import DEFAULT_LIMITS, Limits
from converter.media.pickle_stream import Content, Machine

_MARK = b"\x80"


def read_pickled(path: Path | str, limits: Limits = DEFAULT_LIMITS) -> Content:
    """Read a pickle of containers, numbers, text and arrays; runs and imports nothing it names.

    Raises
    ------
    MissingInputError
        If it does not exist.
    UnsafeFileError
        If it asks for code, for objects that are not plain data, or for more than the limits.
    FormatError
        If it is damaged or no pickle.

    """
    data = read_bytes(path, limits)
    if not data.startswith(_MARK):
        raise FormatError(path, "a pickle of protocol 2 or later", "another format")

    def no_storage(key: str, dtype_name: str, n_elements: int) -> tuple[bytes, str] | None:
        raise UnsafeFileError(path, "a pickle without torch tensors", f"storage {key[:20]!r}")

    content, end = Machine(data, path, limits, no_storage, len(data)).run()
    if end != len(data):
        raise FormatError(path, "one pickle stream", f"{len(data) - end} bytes after it")
    return content
