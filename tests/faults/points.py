"""Faults at the n-th moment at which a command changes the disk, from inside its process.

A *point* is: a file opened for writing, a folder made, a rename (also ``renameat2``), a link, a
removal, an fsync, a dataset or attribute handed to HDF5, and its flush. Just before the n-th of
them the fault happens. Python announces most of these itself (audit events, PEP 578); fsync,
``renameat2`` and h5py are wrapped.

What this does not see: writes inside C libraries between two points (HDF5's own, libc's buffers).
Kills at random times and limits on the size of files (``RLIMIT_FSIZE``, which C code meets too)
stand in for those. A power cut is not simulated: that fsync comes before the rename is checked by
its order.
"""

from __future__ import annotations

import errno
import os
import resource
import signal
import sys
import threading
from pathlib import Path
from typing import Any

CHANGES = {
    "os.mkdir", "os.rename", "os.link", "os.symlink", "os.remove", "os.rmdir", "os.truncate",
}  # fmt: skip
REMOVALS = {"os.remove", "os.rmdir"}
REFUSALS = {"ENOSPC", "EIO", "EACCES", "EDQUOT"}
"""A disk that will not even remove keeps what is left; the next run tries again."""
_WRITING = os.O_WRONLY | os.O_RDWR


class Points:
    """Counts, and strikes once."""

    def __init__(self, log: Path, at: int, action: str, path: str = "") -> None:
        self.log = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        self.at, self.action, self.path = at, action, path
        self.n = 0
        self.names: list[str] = []
        self.lock = threading.RLock()
        self.struck = False

    def reach(self, name: str) -> None:
        """Count one point; strike if it is the one."""
        with self.lock:
            self.n += 1
            self.names.append(name)
            harmless = self.action in REFUSALS and name in REMOVALS
            strike = self.n == self.at and not self.struck and not harmless
            self.struck |= strike
        if strike:
            self._strike()

    def _strike(self) -> None:
        if self.action == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        elif self.action in ("SIGINT", "SIGTERM"):
            os.kill(os.getpid(), getattr(signal, self.action))
        elif self.action in REFUSALS:
            number = getattr(errno, self.action)
            raise OSError(number, os.strerror(number))
        elif self.action == "foreign":
            Path(self.path).mkdir(parents=True, exist_ok=True)
            Path(self.path, "mine.txt").write_text("mine")
        elif self.action == "truncate":
            os.truncate(self.path, os.path.getsize(self.path) // 2)
        elif self.action == "remove":
            os.remove(self.path)
        elif self.action == "zero":
            Path(self.path).write_bytes(bytes(os.path.getsize(self.path)))

    def done(self) -> None:
        """Write down what was counted."""
        os.write(self.log, "".join(f"{name}\n" for name in self.names).encode())

    def audit(self, event: str, arguments: tuple[Any, ...]) -> None:
        if self.struck:
            return
        if event in CHANGES:
            self.reach(event)
        elif event == "open" and isinstance(arguments[0], str | bytes):
            path, _, flags = arguments
            if flags & _WRITING and not os.fsdecode(path).startswith(("/dev/", "/proc/")):
                self.reach("open")


def _wrapped(points: Points, name: str, function: Any) -> Any:
    def wrapper(*arguments: Any, **more: Any) -> Any:
        if not points.struck:
            points.reach(name)
        return function(*arguments, **more)

    return wrapper


def install(log: Path, at: int, action: str, path: str = "") -> Points:
    """Arm a fault in this process, for good."""
    import h5py

    from converter.media import atomic

    points = Points(log, at, action, path)
    if action.startswith("FSIZE"):
        # Python ignores SIGXFSZ, so that every write beyond gives EFBIG, also in C.
        resource.setrlimit(resource.RLIMIT_FSIZE, (int(action[5:]), resource.RLIM_INFINITY))
    os.fsync = _wrapped(points, "fsync", os.fsync)
    atomic._renameat2 = _wrapped(points, "renameat2", atomic._renameat2)
    h5py.Dataset.__setitem__ = _wrapped(points, "hdf5 write", h5py.Dataset.__setitem__)
    h5py.AttributeManager.create = _wrapped(points, "hdf5 attribute", h5py.AttributeManager.create)
    h5py.File.flush = _wrapped(points, "hdf5 flush", h5py.File.flush)
    sys.addaudithook(points.audit)
    return points
