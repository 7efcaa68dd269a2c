"""SIGINT and SIGTERM: put off, delivered, and given back."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from types import FrameType
from typing import Any

import pytest

from converter.bundle.sink import Sink
from converter.bundle.write import write_bundle
from converter.media.interrupts import put_off_interrupts, sigterm_as_exit
from tests.bundle.tools import full_track


@pytest.fixture(autouse=True)
def _handlers() -> Iterator[None]:
    """Every test gives back what it found."""
    before = [signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM)]
    yield
    assert [signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM)] == before


def test_sigterm_becomes_an_exit_and_is_given_back() -> None:
    with pytest.raises(SystemExit) as caught, sigterm_as_exit(), sigterm_as_exit():  # noqa: PT012
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(1)
    assert caught.value.code == 143
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL


def test_an_interrupt_waits_for_the_end_of_the_block() -> None:
    done = False
    with pytest.raises(KeyboardInterrupt), put_off_interrupts():  # noqa: PT012
        signal.raise_signal(signal.SIGINT)
        done = True
    assert done


def test_an_interrupt_waits_for_its_delivery_and_comes_once() -> None:
    with put_off_interrupts() as interrupts:
        interrupts.deliver()
        signal.raise_signal(signal.SIGINT)
        with pytest.raises(KeyboardInterrupt):
            interrupts.deliver()
        interrupts.deliver()


def test_an_interrupt_outweighs_an_error() -> None:
    with pytest.raises(KeyboardInterrupt), put_off_interrupts():  # noqa: PT012
        signal.raise_signal(signal.SIGINT)
        raise OSError


def test_after_sigterm_a_second_one_stays_ignored() -> None:
    with pytest.raises(SystemExit), sigterm_as_exit():  # noqa: PT012
        with pytest.raises(SystemExit), put_off_interrupts() as interrupts:  # noqa: PT012
            signal.raise_signal(signal.SIGTERM)
            interrupts.deliver()
        signal.raise_signal(signal.SIGTERM)
        raise SystemExit


def test_where_nobody_handles_sigterm_it_ends_the_process_as_ever(tmp_path: Path) -> None:
    script = (
        "import signal\n"
        "from converter.media.interrupts import put_off_interrupts\n"
        "with put_off_interrupts():\n"
        "    signal.raise_signal(signal.SIGTERM)\n"
        "    print('whole', flush=True)\n"
        "print('went on', flush=True)\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == -signal.SIGTERM
    assert done.stdout == "whole\n"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupt_in_a_finalizer_is_obeyed(number: int) -> None:
    script = (
        "import signal, sys, time\n"
        "from converter.media.interrupts import interrupts_raised_again, sigterm_as_exit\n"
        "class Struck:\n"
        "    def __del__(self):\n"
        "        signal.raise_signal(int(sys.argv[1]))\n"
        "with interrupts_raised_again(), sigterm_as_exit():\n"
        "    try:\n"
        "        Struck()\n"
        "        time.sleep(20)\n"
        "    except KeyboardInterrupt:\n"
        "        print('obeyed')\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, str(int(number))], capture_output=True, text=True
    )
    assert (done.stdout, done.stderr) == ("obeyed\n", "")


class _Striker:
    """Raises SIGINT at the n-th call, line or return in the methods that HDF5 calls."""

    def __init__(self, at: int) -> None:
        self.at, self.n = at, 0
        self.codes = {f.__code__ for f in vars(Sink).values() if hasattr(f, "__code__")}

    def __call__(self, frame: FrameType, event: str, _: Any) -> Any:
        if frame.f_code not in self.codes:
            return None
        self.n += 1
        if self.n == self.at:
            signal.raise_signal(signal.SIGINT)
        return self


def test_an_interrupt_anywhere_in_what_hdf5_calls_is_an_interrupt(tmp_path: Path) -> None:
    """Raised in there it was lost: C code made an error of its own of it."""
    track, path = full_track(), tmp_path / "track.h5"

    def write(striker: _Striker) -> None:
        tracing = sys.gettrace()
        sys.settrace(striker)
        try:
            write_bundle(track, path, overwrite=True)
        finally:
            sys.settrace(tracing)

    undisturbed = _Striker(0)
    write(undisturbed)
    old = path.read_bytes()
    assert undisturbed.n > 500
    for at in [*range(1, 12), *range(12, undisturbed.n, undisturbed.n // 12), undisturbed.n]:
        with pytest.raises(KeyboardInterrupt):
            write(_Striker(at))
        assert path.read_bytes() == old
        assert list(tmp_path.iterdir()) == [path]
