"""What C libraries print by themselves: kept off the terminal, and heard where it matters.

libpng and libjpeg, inside OpenCV, print lines to file descriptor 2 about damaged images. They name
no file, and come beside the one line that does. A command line therefore gives descriptor 2 to a
file in memory for as long as it runs, and speaks through a copy of the real one. That is set once,
before any thread, so that it costs an image nothing and takes no line of another thread away.

libpng refuses what it complains of. libjpeg goes on and makes the rest up; that it did is known
from nothing but its line, so JPEG decoders are listened to.
"""

from __future__ import annotations

import contextlib
import os
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from io import TextIOWrapper
from typing import TypeVar

T = TypeVar("T")

_STDERR = 2
_MAX_BYTES = 1 << 20
"""What is kept of what was said."""

_heard: int | None = None
"""Descriptor of the file that gets it; None if it goes to the terminal, as in other programs that
import this package: their descriptor 2 is not ours to take."""
_inside = 0
_turn = threading.Condition()


@contextlib.contextmanager
def kept_apart() -> Iterator[None]:
    """Keep what C libraries print from standard error; what Python prints stays where it was."""
    global _heard
    if _heard is not None:
        yield
        return
    try:
        real = os.dup(_STDERR)
    except OSError:  # it is closed
        yield
        return
    spoken, before = None, sys.stderr
    _heard = _nowhere()
    try:
        if _speaks_to(before, _STDERR):
            spoken = open(  # noqa: SIM115, PTH123 - closed below, when the old one is back
                real, "w", encoding=before.encoding, errors=before.errors, buffering=1,
                closefd=False,
            )  # fmt: skip
            sys.stderr = spoken
        os.dup2(_heard, _STDERR)
        yield
    finally:
        if spoken is not None:
            with contextlib.suppress(OSError, ValueError):
                spoken.flush()
            sys.stderr = before
        os.dup2(real, _STDERR)
        os.close(real)
        os.close(_heard)
        _heard = None


def _speaks_to(stream: object, descriptor: int) -> bool:
    """Whether a stream writes to a descriptor; test runners put other objects there."""
    try:
        return isinstance(stream, TextIOWrapper) and stream.fileno() == descriptor
    except (OSError, ValueError):
        return False


def _nowhere() -> int:
    """Return a descriptor of a file without a name, written at its end."""
    import fcntl

    if hasattr(os, "memfd_create"):
        file = os.memfd_create("said")
    else:
        with tempfile.TemporaryFile() as temporary:
            file = os.dup(temporary.fileno())
    fcntl.fcntl(file, fcntl.F_SETFL, fcntl.fcntl(file, fcntl.F_GETFL) | os.O_APPEND)
    return file


def listen(call: Callable[[], T]) -> tuple[T, str]:
    """Call a decoder; also return what was printed because of this call and of no other.

    Where several threads decode and something is printed, the call is repeated alone. Nothing is
    heard outside `kept_apart`.
    """
    global _inside
    if _heard is None:
        return call(), ""
    with _turn:
        _inside += 1
    try:
        before = _size(_heard)
        result = call()
        quiet = _size(_heard) == before
    finally:
        with _turn:
            _inside -= 1
            _turn.notify_all()
    if quiet:
        return result, ""
    with _turn:
        _turn.wait_for(lambda: _inside == 0)
        os.ftruncate(_heard, 0)
        result = call()
        return result, os.pread(_heard, _MAX_BYTES, 0).decode("utf-8", "replace")


def forget() -> None:
    """Drop what was said, if it is much; for decoders that nobody listens to."""
    if _heard is not None and _size(_heard) > _MAX_BYTES:
        with _turn:
            _turn.wait_for(lambda: _inside == 0)
            os.ftruncate(_heard, 0)


def _size(descriptor: int) -> int:
    return os.fstat(descriptor).st_size
