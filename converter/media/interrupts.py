"""SIGINT and SIGTERM: put off, as an exit, and never lost."""

from __future__ import annotations

import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

_NUMBERS = (signal.SIGINT, signal.SIGTERM)
_SOON_S = 0.005


class PutOff:
    """Signals that came while they were put off, and what would have been done about them."""

    def __init__(self) -> None:
        self._seen: list[int] = []
        self._handlers: dict[int, Any] = {}

    def begin(self) -> None:
        """Put signals off from now on."""
        for number in _NUMBERS:
            self._handlers[number] = signal.signal(number, self._note) or signal.SIG_DFL

    def deliver(self) -> None:
        """Do now what the first signal asks for, if one came: as a rule, raise an exception."""
        if not self._seen:
            return
        number = self._seen[0]
        self._seen.clear()
        handler = self._handlers[number]
        if callable(handler):
            handler(number, None)
        else:  # the process ends, or nothing happens
            signal.signal(number, handler)
            signal.raise_signal(number)

    def end(self) -> None:
        """Let signals through again, and the one that waited first."""
        for number, handler in self._handlers.items():
            if signal.getsignal(number) == self._note:  # else the handler itself set another
                signal.signal(number, handler)
        self.deliver()

    def _note(self, number: int, _: FrameType | None) -> None:
        self._seen.append(number)


@contextmanager
def put_off_interrupts() -> Iterator[PutOff]:
    """Put SIGINT and SIGTERM off to the end of the block, or to where `PutOff.deliver` is called.

    Does nothing outside the main thread, where Python handles no signals.
    """
    interrupts = PutOff()
    if threading.current_thread() is threading.main_thread():
        interrupts.begin()
    try:
        yield interrupts
    finally:
        interrupts.end()


@contextmanager
def sigterm_as_exit() -> Iterator[None]:
    """Let SIGTERM unwind the stack (exit status 143), so that what is half done is removed.

    Does nothing outside the main thread, or where the program handles SIGTERM itself.
    """
    is_main = threading.current_thread() is threading.main_thread()
    if not is_main or signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL:
        yield
        return

    def stop(number: int, _: FrameType | None) -> None:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)  # a second one may not stop the cleaning up
        raise SystemExit(128 + number)

    signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)


@contextmanager
def interrupts_raised_again() -> Iterator[None]:
    """Raise KeyboardInterrupt a moment after an interrupt that came in a finalizer.

    There Python prints the exception and goes on as if nothing had been.
    """
    before = sys.unraisablehook

    def again(unraisable: sys.UnraisableHookArgs) -> None:
        if not issubclass(unraisable.exc_type, KeyboardInterrupt | SystemExit):
            before(unraisable)
            return
        signal.signal(signal.SIGALRM, signal.default_int_handler)
        signal.setitimer(signal.ITIMER_REAL, _SOON_S)

    sys.unraisablehook = again
    try:
        yield
    finally:
        sys.unraisablehook = before
        signal.setitimer(signal.ITIMER_REAL, 0)
