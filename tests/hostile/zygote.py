"""Runs command lines, each in a process of its own, and measures what they took.

Started once: it imports everything that a command could need, then forks for each line of JSON that
comes in. So a process costs milliseconds instead of a second, and still has an address space, an
exit code and a peak memory of its own. The peak counts what was imported before (about 150 MB).

What an audit hook sees (PEP 578): starting programs, unpickling, the network, and every file that
Python opens. What C libraries open by themselves it does not see.
"""

from __future__ import annotations

import contextlib
import json
import os
import resource
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

FORBIDDEN = (
    "os.system",
    "os.exec",
    "os.posix_spawn",
    "os.spawn",
    "os.fork",
    "os.forkpty",
    "pty.spawn",
    "subprocess.Popen",
    "pickle.find_class",
    "socket.connect",
    "socket.bind",
    "socket.getaddrinfo",
    "urllib.Request",
    "webbrowser.open",
    "ctypes.dlopen",
)
"""Audit events that no input may cause; `ctypes.dlopen` of nothing (libc itself) is fine."""

MEMORY_BYTES = 6 << 30
"""Address space of a child: not the promise, only what keeps the machine alive if it is broken."""
KILL_S = 40.0
REPOSITORY = Path(__file__).resolve().parents[2]
OPEN_TO_ALL = all(p.stat().st_mode & 0o5 == 0o5 for p in (REPOSITORY, *REPOSITORY.parents))
"""Whether another user could run what is here; else nothing can be run as another user."""
NOBODY = 65534


def _warm_up() -> None:
    os.environ["OPENCV_LOG_LEVEL"] = "SILENT"  # as the command line sets it, before the import
    import av  # noqa: F401
    import cv2  # noqa: F401
    import h5py  # noqa: F401
    import PIL.Image
    import PIL.JpegImagePlugin
    import PIL.PngImagePlugin  # noqa: F401
    import trimesh  # noqa: F401
    import yaml  # noqa: F401

    import converter.bundle.write
    import converter.cli.convert
    import converter.cli.fit
    import converter.cli.inspect
    import converter.cli.main
    import converter.cli.recover_bbox
    import converter.cli.validate
    import converter.media.meshes
    import converter.media.video
    import converter.sources.bundle
    import converter.sources.metrical_tracker
    import converter.targets.bundle
    import converter.targets.gaussiantalker.check
    import converter.targets.gaussiantalker.dataset
    import fitting.flame.model
    import fitting.pose  # noqa: F401

    # The rest comes in with the first command of each kind; these fail before they read anything.
    with open(os.devnull, "w") as nowhere, contextlib.redirect_stdout(nowhere), \
            contextlib.redirect_stderr(nowhere):  # fmt: skip
        for target in ("bundle", "gaussiantalker"):
            converter.cli.main.main(["convert", "/nowhere", "--to", target, "-o", "/nowhere/x"])
        converter.cli.main.main(["fit", "/nowhere", "-o", "/nowhere/x.h5"])
        sample = Path(__file__).resolve().parents[2] / "fixtures" / "sample"
        for file in ("output/ada/checkpoint/00000.frame", "input/ada/bbox.pt"):
            converter.cli.main.main(["inspect", str(sample / file)])


class Watch:
    """The audit hook: notes forbidden events, and files opened outside the folders allowed."""

    def __init__(self, path: Path, allowed: list[str]) -> None:
        self._descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        self._allowed = tuple(allowed)
        self._busy = False

    def __call__(self, event: str, arguments: tuple[Any, ...]) -> None:
        if self._busy:
            return
        self._busy = True
        try:
            if event in FORBIDDEN and not (event == "ctypes.dlopen" and arguments[0] is None):
                self._note(event, repr(arguments))
            elif event == "open" and isinstance(arguments[0], str | bytes):
                real = os.path.realpath(os.fsdecode(arguments[0]))
                if not real.startswith(self._allowed):
                    self._note("open", real)
        finally:
            self._busy = False

    def _note(self, event: str, text: str) -> None:
        os.write(self._descriptor, f"{event} {text[:300]!r}\n".encode())


def _child(task: dict[str, Any], folder: Path) -> None:
    """Run one command line; never returns."""
    code = 70
    try:
        os.setpgid(0, 0)
        resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        for number, name in ((1, "out"), (2, "err")):
            os.dup2(os.open(folder / name, os.O_WRONLY | os.O_CREAT, 0o600), number)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        os.chdir(task["cwd"])
        os.environ["TMPDIR"] = task["folders"][-1]
        tempfile.tempdir = None
        prefixes = {sys.prefix, sys.base_prefix, os.path.realpath(sys.prefix)}
        repository = str(Path(__file__).resolve().parents[2])
        system = ["/usr/lib", "/usr/share", "/proc/", "/sys/", "/dev/null", "/dev/urandom"]
        allowed = [*prefixes, repository, *system, *task["folders"], "/dev/zero", "/dev/tty"]
        watch = Watch(folder / "events", allowed)
        if task.get("nobody"):
            os.setegid(NOBODY)
            os.seteuid(NOBODY)
        from converter.cli.main import main

        if "fault" in task:
            from tests.faults.points import install

            points = install(folder / "points", **task["fault"])
        else:
            points = None
            sys.addaudithook(watch)
        code = _interruptible(main, task["arguments"])
        if points is not None:
            points.done()
    except SystemExit as exit_:
        code = exit_.code if isinstance(exit_.code, int) else 70
    except BaseException:
        traceback.print_exc()
    finally:
        with contextlib.suppress(BaseException):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(code)


_INTERRUPTS = (signal.SIGINT, signal.SIGTERM)


def _interruptible(main: Callable[[list[str]], int], arguments: list[str]) -> int:
    """Call ``main``; a signal that came before it is that of a user who was too early."""
    try:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _INTERRUPTS)
    except KeyboardInterrupt:
        return 130
    return main(arguments)


def run(task: dict[str, Any]) -> dict[str, Any]:
    """Run one command line in a child and say what came of it."""
    with tempfile.TemporaryDirectory(prefix="uncrop-zygote-") as temporary:
        folder = Path(temporary)
        for name in ("out", "err"):
            (folder / name).touch()
        began = time.monotonic()
        # Until it is in main, a child that is interrupted would go on as another zygote.
        signal.pthread_sigmask(signal.SIG_BLOCK, _INTERRUPTS)
        pid = os.fork()
        if pid == 0:
            _child(task, folder)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _INTERRUPTS)
        after_s, number = task.get("signal", (KILL_S, signal.SIGKILL))
        while True:
            done, status, usage = os.wait4(pid, os.WNOHANG)
            if done:
                break
            if time.monotonic() - began > after_s:
                os.kill(pid, number)
                after_s, number = KILL_S, signal.SIGKILL
            time.sleep(0.002)
        events, points = folder / "events", folder / "points"
        return {
            "code": os.waitstatus_to_exitcode(status),
            "wall_s": time.monotonic() - began,
            "cpu_s": usage.ru_utime + usage.ru_stime,
            "peak_mb": usage.ru_maxrss / 1024,
            "out": (folder / "out").read_bytes().decode("utf-8", "surrogateescape"),
            "err": (folder / "err").read_bytes().decode("utf-8", "surrogateescape"),
            "points": points.read_text().splitlines() if points.exists() else [],
            "events": events.read_text().splitlines() if events.exists() else [],
        }


@contextlib.contextmanager
def start() -> Iterator[Callable[..., dict[str, Any]]]:
    """Start one; give a function that runs a command line in a process of its own."""
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.hostile.zygote"],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        cwd=Path(__file__).resolve().parents[2],
    )  # fmt: skip

    def ask(arguments: list[str], cwd: Path, folders: list[Path], **more: Any) -> dict[str, Any]:
        assert process.stdin is not None
        assert process.stdout is not None
        task = {"arguments": arguments, "cwd": str(cwd), "folders": list(map(str, folders)), **more}
        process.stdin.write(json.dumps(task) + "\n")
        process.stdin.flush()
        answer: dict[str, Any] = json.loads(process.stdout.readline())
        return answer

    yield ask
    process.communicate()


def main() -> None:
    """Answer each line of standard input with one line."""
    _warm_up()
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    for line in sys.stdin:
        answers.write(json.dumps(run(json.loads(line))) + "\n")
        answers.flush()


if __name__ == "__main__":
    main()
