"""What worker processes do in tests: functions that can be sent to them by name."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

from converter.errors import FormatError


def act(item: str) -> str:
    """Do what ``item`` says, and return it with the process that did it."""
    what, _, value = item.partition(":")
    if what == "die":
        os.kill(os.getpid(), signal.SIGKILL)
    if what == "exit":
        os._exit(int(value))
    if what == "refuse":
        raise FormatError(value, "a good file", "a bad one")
    if what == "raise":
        raise ValueError(value)
    if what == "sleep":
        time.sleep(float(value))
    if what == "touch-and-sleep":
        Path(value).write_text(str(os.getpid()))
        time.sleep(600)
    if what == "die-once" and not Path(value).exists():
        Path(value).touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return f"{item} by {os.getpid()}"


def threads(item: str) -> tuple[int, str]:
    """Threads that OpenCV and BLAS may use in a worker."""
    del item
    import cv2

    return cv2.getNumThreads(), os.environ.get("OPENBLAS_NUM_THREADS", "")


def unsendable(item: str) -> object:
    """Return what no pipe carries."""
    return lambda: item
