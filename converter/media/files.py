"""Opening input files so that nothing but a regular file of bounded size is ever read."""

from __future__ import annotations

import hashlib
import os
import stat
from pathlib import Path

from converter.errors import FormatError, MissingInputError, UnsafeFileError
from converter.media.limits import DEFAULT_LIMITS, Limits


def read_bytes(path: Path | str, limits: Limits = DEFAULT_LIMITS) -> bytes:
    """Read a whole regular file.

    FIFOs and devices are refused without blocking; a file larger than ``limits.file_bytes`` (a
    sparse terabyte, say) is refused before anything is read.

    Raises
    ------
    MissingInputError
        If it does not exist.
    UnsafeFileError
        If it is not a regular file, or too large.
    FormatError
        If the operating system refuses to read it.

    """
    descriptor = open_regular(path)
    try:
        size = os.fstat(descriptor).st_size
        if size > limits.file_bytes:
            raise UnsafeFileError(
                path,
                f"at most {limits.file_bytes} bytes",
                f"{size}",
                "If it is genuine, raise the limit.",
            )
        return _read_up_to(descriptor, size)
    except OSError as error:
        raise _unreadable(path, error) from None
    finally:
        os.close(descriptor)


def read_head(path: Path | str, n_bytes: int) -> bytes:
    """Read the first bytes of a regular file, or all of a shorter one; raises as `read_bytes`."""
    descriptor = open_regular(path)
    try:
        return os.read(descriptor, n_bytes)
    except OSError as error:
        raise _unreadable(path, error) from None
    finally:
        os.close(descriptor)


def _read_up_to(descriptor: int, size: int) -> bytes:
    # Without a buffered stream: for files of a few KB, its making takes longer than the reading.
    data = os.read(descriptor, size)
    if len(data) == size:
        return data
    parts = [data]
    n_left = size - len(data)
    while n_left and parts[-1]:  # more than 2 GiB, or a network file system
        parts.append(os.read(descriptor, n_left))
        n_left -= len(parts[-1])
    return b"".join(parts)


def open_regular(path: Path | str) -> int:
    """Open a regular file for reading and return its descriptor; raises as `read_bytes`."""
    try:
        # Opening some devices does something already (rewinds a tape, starts a watchdog).
        _require_regular(path, os.stat(path).st_mode)
        # O_NONBLOCK: opening a FIFO would otherwise wait for a writer, for ever.
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except (FileNotFoundError, NotADirectoryError):
        raise MissingInputError(path, "a file", "nothing") from None
    except (OSError, ValueError) as error:
        raise _unreadable(path, error) from None
    try:
        _require_regular(path, os.fstat(descriptor).st_mode)
    except UnsafeFileError:
        os.close(descriptor)
        raise
    return descriptor


def _require_regular(path: Path | str, mode: int) -> None:
    if not stat.S_ISREG(mode):
        found = "a folder" if stat.S_ISDIR(mode) else "a device, socket or pipe"
        raise UnsafeFileError(path, "a regular file", found)


def sha256_of(path: Path | str) -> str:
    """SHA-256 of a regular file of any size, as hex; raises as `read_bytes`."""
    digest = hashlib.sha256()
    with os.fdopen(open_regular(path), "rb") as stream:
        try:
            while block := stream.read(1 << 20):
                digest.update(block)
        except OSError as error:
            raise _unreadable(path, error) from None
    return digest.hexdigest()


def scan_folder(path: Path | str) -> list[os.DirEntry[str]]:
    """Entries of a folder, in no order.

    Raises
    ------
    MissingInputError
        If it does not exist or is no folder.
    FormatError
        If the operating system refuses to list it.

    """
    try:
        with os.scandir(path) as entries:
            return list(entries)
    except (FileNotFoundError, NotADirectoryError):
        raise MissingInputError(path, "a folder", "none") from None
    except (OSError, ValueError) as error:
        raise _unreadable(path, error, "folder") from None


def _unreadable(path: Path | str, error: Exception, kind: str = "file") -> FormatError:
    reason = getattr(error, "strerror", None) or str(error)
    return FormatError(path, f"a readable {kind}", reason, "Check its permissions and its disk.")
