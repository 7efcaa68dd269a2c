"""Writing HDF5 files where the disk may refuse."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from converter.media.interrupts import PutOff, put_off_interrupts


class Sink:
    """A file for h5py to write into, whose writes never fail.

    HDF5 cannot close a file that it cannot write: its objects raise one after the other when they
    are collected, and then the process dies (SIGSEGV, with HDF5 2.0). So the first error is kept
    for `require`, nothing is written from then on, and the library closes in peace. Interrupts
    wait for `require`, too: raised in a method that HDF5 calls, C code would lose them.
    """

    def __init__(self, path: Path, interrupts: PutOff) -> None:
        self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
        self._position = 0
        self._interrupts = interrupts
        self._error: Exception | None = None
        self._dropped = False

    def require(self) -> None:
        """Raise the first error of the operating system, or what an interrupt asks for."""
        if self._error is not None:
            raise self._error
        self._interrupts.deliver()

    def drop(self) -> None:
        """Write nothing from now on: the file is given up."""
        self._dropped = True

    def close(self) -> None:
        """Close the file."""
        os.close(self._descriptor)

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Move to a position, as files do."""
        try:
            base = {
                os.SEEK_SET: 0,
                os.SEEK_CUR: self._position,
                os.SEEK_END: os.fstat(self._descriptor).st_size,
            }[whence]
            self._position = base + offset
        except Exception as error:
            self._keep(error)
        return self._position

    def tell(self) -> int:
        """Return the position."""
        return self._position

    def write(self, data: Any) -> int:
        """Write all of ``data``, or keep the error."""
        view = memoryview(data).cast("B")
        done = 0
        try:
            while done < len(view) and not self._dropped:
                done += os.pwrite(self._descriptor, view[done:], self._position + done)
        except Exception as error:
            self._keep(error)
        self._position += len(view)
        return len(view)

    def readinto(self, data: Any) -> int:
        """Read back what was written."""
        view = memoryview(data).cast("B")
        found = b""
        try:
            found = os.pread(self._descriptor, len(view), self._position)
            view[: len(found)] = found
            self._position += len(found)
        except Exception as error:
            self._keep(error)
        return len(found)

    def read(self, n_bytes: int) -> bytes:
        """Read back what was written."""
        data = bytearray(n_bytes)
        return bytes(data[: self.readinto(data)])

    def truncate(self, n_bytes: int) -> int:
        """Give the file its length, or keep the error."""
        try:
            if not self._dropped:
                os.ftruncate(self._descriptor, n_bytes)
        except Exception as error:
            self._keep(error)
        return n_bytes

    def flush(self) -> None:
        """Do nothing: whoever gives the file its name brings it to the disk."""

    def _keep(self, error: Exception) -> None:
        self._error = self._error or error
        self.drop()


@contextmanager
def new_hdf5(path: Path) -> Iterator[tuple[Any, Sink]]:
    """Make an HDF5 file: yields the `h5py.File` and its `Sink`.

    SIGINT and SIGTERM are put off to the next call of `Sink.require`.

    Raises
    ------
    OSError
        If the disk refuses; at the end of the block, or wherever `Sink.require` is called.

    """
    import h5py

    with put_off_interrupts() as interrupts:
        sink = Sink(path, interrupts)
        try:
            # The oldest format that holds this: every reader opens it, and it stores no times.
            with h5py.File(sink, "w", libver=("earliest", "v108"), track_order=False) as file:
                try:
                    yield file, sink
                except BaseException:
                    sink.drop()
                    raise
            sink.require()
        except Exception:  # HDF5's own, if it misses what was not written
            sink.require()
            raise
        finally:
            sink.close()
