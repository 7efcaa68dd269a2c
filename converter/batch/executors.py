"""Where the work is done: worker processes of this machine, or a cluster.

An executor takes a function and items and yields an outcome for every item, in the order in which
they finish. An item that raises, or whose worker dies, yields a `Failure`; the others go on.

This module imports nothing that starts threads: a worker limits those before numpy loads.
"""

from __future__ import annotations

import contextlib
import importlib
import os
import signal
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Literal, Protocol, TypeAlias, TypeVar

from converter import __version__
from converter.errors import MissingInputError, UncropError, printable
from converter.media.chatter import kept_apart

if TYPE_CHECKING:
    from multiprocessing.connection import Connection
    from multiprocessing.context import SpawnContext, SpawnProcess

T = TypeVar("T")
R = TypeVar("R")

_THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMEXPR_NUM_THREADS")
_CONNECT_S = 10


@dataclass(frozen=True, slots=True)
class Failure:
    """Why an item has no result.

    Attributes
    ----------
    kind
        ``"refused"``: it raised an UncropError; ``"raised"``: it raised anything else, which is a
        bug; ``"died"``: its worker ended without an answer.
    message
        One line.
    cause
        Stable id of the reason, where the error has one.

    """

    kind: Literal["refused", "raised", "died"]
    message: str
    cause: str = ""


Outcomes: TypeAlias = Generator[tuple[int, R | Failure], None, None]
"""(position of the item, result or failure), as items finish."""


class Executor(Protocol):
    """Runs one function over many items."""

    def run(self, function: Callable[[T], R], items: Sequence[T]) -> Outcomes[R]:
        """Yield (position of the item, result or failure) as items finish.

        Closing the iterator ends what is running and drops what has not begun. With more than one
        process, ``function``, the items and the results are sent between processes.
        """


def attempt(function: Callable[[T], R], item: T) -> R | Failure:
    """Call ``function``; what it raises becomes a Failure. An interrupt goes through."""
    try:
        return function(item)
    except UncropError as error:
        return Failure("refused", str(error), error.cause)
    except Exception as error:  # the boundary of one item: a bug in one must not end the others
        return Failure("raised", f"{_place(error)}: {type(error).__name__}: {printable(error)}")


def _place(error: BaseException) -> str:
    """Where an exception was raised, as ``module.py:12``."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    if trace is None:
        return "?"
    return f"{os.path.basename(trace.tb_frame.f_code.co_filename)}:{trace.tb_lineno}"


@dataclass(frozen=True, slots=True)
class InProcess:
    """One item after the other in this process: for a single item, and for debugging."""

    def run(self, function: Callable[[T], R], items: Sequence[T]) -> Outcomes[R]:
        """See `Executor.run`."""
        for position, item in enumerate(items):
            yield position, attempt(function, item)


@dataclass(frozen=True, slots=True)
class LocalProcesses:
    """Worker processes of this machine, with one item and one thread of work each.

    A worker that dies (out of memory, a crash inside a library, kill) costs the item it was
    working on and is replaced. Workers leave an interrupt to the parent, which ends them.
    """

    n_workers: int

    def run(self, function: Callable[[T], R], items: Sequence[T]) -> Outcomes[R]:
        """See `Executor.run`."""
        import multiprocessing
        from multiprocessing.connection import wait

        context = multiprocessing.get_context("spawn")
        waiting = list(range(len(items)))[::-1]
        workers: dict[Connection[Any, Any], _Worker] = {}
        try:
            while waiting or workers:
                while waiting and len(workers) < self.n_workers:
                    worker = _Worker(context, function)
                    workers[worker.connection] = worker
                    worker.give(waiting.pop(), items)
                for ready in wait(list(workers)):
                    worker = workers[ready]  # type: ignore[index]
                    position, outcome = worker.position, worker.take()
                    if not waiting or not worker.process.is_alive():
                        del workers[worker.connection]
                        worker.end()
                    else:
                        worker.give(waiting.pop(), items)
                    yield position, outcome
        finally:
            for worker in workers.values():
                worker.end()


class _Worker:
    """One process, its pipe, and the position of the item it is working on."""

    def __init__(self, context: SpawnContext, function: Callable[[Any], Any]) -> None:
        self.position = -1
        self.connection, theirs = context.Pipe()
        self.process: SpawnProcess = context.Process(
            target=_serve, args=(theirs,), daemon=True, name="uncrop-worker"
        )
        self.process.start()
        theirs.close()  # so that its end is seen when the process ends
        # Through the pipe, so that what it imports loads after the threads were limited.
        self._send(function)

    def give(self, position: int, items: Sequence[Any]) -> None:
        self.position = position
        self._send(items[position])

    def _send(self, content: object) -> None:
        with contextlib.suppress(BrokenPipeError):  # it has died; `take` says so
            self.connection.send(content)

    def take(self) -> Any:
        """Return the outcome of the item, or say how the worker died."""
        try:
            return self.connection.recv()
        except (EOFError, OSError):
            self.process.join(5)
            return Failure("died", _how_it_ended(self.process.exitcode))

    def end(self) -> None:
        """End the process, whatever it is doing."""
        self.connection.close()
        self.process.join(0.2)
        if self.process.is_alive():
            self.process.terminate()
            self.process.join(5)
        if self.process.is_alive():
            self.process.kill()
            self.process.join()
        self.process.close()


@dataclass(frozen=True, slots=True)
class DaskCluster:
    """The workers of a dask.distributed cluster; the paths of the items must mean the same there.

    A task whose worker dies is given to another worker; one that keeps costing workers (the
    scheduler's setting ``allowed-failures``) is a failure. Whoever can reach a dask scheduler can
    run code on its workers: use ``tls://`` addresses, or a network of your own.
    """

    address: str

    def run(self, function: Callable[[T], R], items: Sequence[T]) -> Outcomes[R]:
        """See `Executor.run`; raises MissingInputError without dask, scheduler or workers."""
        distributed = _distributed()
        client = self._connect(distributed)
        try:
            task = partial(_remote, __version__, function)
            futures = client.map(task, list(items), pure=False)
            places = {future.key: place for place, future in enumerate(futures)}
            for future in distributed.as_completed(futures, loop=client.loop):
                yield places[future.key], _outcome_of(future)
                future.release()
        finally:
            client.close()  # what has not begun is dropped with it

    def _connect(self, distributed: Any) -> Any:
        where = f"--scheduler {self.address}"
        try:
            client = distributed.Client(self.address, timeout=_CONNECT_S, set_as_default=False)
        except (OSError, TimeoutError, ValueError) as error:
            raise MissingInputError(
                where, "a dask scheduler", f"no answer ({type(error).__name__})",
                "Start one with `dask scheduler`, and workers with `dask worker ADDRESS`.",
            ) from None  # fmt: skip
        try:
            client.wait_for_workers(1, timeout=_CONNECT_S)
        except TimeoutError:
            client.close()
            raise MissingInputError(
                where, "a scheduler with workers", "none of them",
                f"Start some with `dask worker {self.address}`.",
            ) from None  # fmt: skip
        return client


def _distributed() -> Any:
    """Import dask.distributed, which is an extra."""
    try:
        return importlib.import_module("distributed")
    except ImportError:
        raise MissingInputError(
            "--scheduler", "the package distributed", "none", "pip install 'uncrop[cluster]'."
        ) from None


def _remote(version: str, function: Callable[[T], R], item: T) -> R | Failure:
    """Run on a worker of a cluster, which may have another uncrop than the one that asks."""
    if version != __version__:
        return Failure("raised", f"this worker has uncrop {__version__}, not {version}")
    limit_threads()
    return attempt(function, item)


def _outcome_of(future: Any) -> Any:
    """Return the result of a finished task, or why it has none."""
    if future.status == "finished":
        return future.result()
    if future.status != "error":
        return Failure("died", f"the scheduler says that it is {future.status}")
    error = future.exception()
    name = type(error).__name__
    if name == "KilledWorker":
        return Failure("died", "one worker of the cluster after another died at it")
    return Failure("raised", f"{name}: {printable(error)}")


def _how_it_ended(code: int | None) -> str:
    if code is not None and code < 0:
        try:
            return f"the worker process was ended by {signal.Signals(-code).name}"
        except ValueError:
            return f"the worker process was ended by signal {-code}"
    return f"the worker process ended by itself with exit code {code}"


def _serve(connection: Connection[Any, Any]) -> None:
    """Work in a process of its own until the parent closes the pipe, or is gone."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent decides
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    limit_threads()
    with kept_apart(), contextlib.suppress(EOFError, OSError):  # the parent is done, or is gone
        function = connection.recv()
        while True:
            _answer(connection, attempt(function, connection.recv()))


def _answer(connection: Connection[Any, Any], outcome: object) -> None:
    try:
        connection.send(outcome)
    except OSError:
        raise
    except Exception as error:
        # Nothing was sent: a result is packed before its first byte goes out.
        said = f"the result cannot be sent: {type(error).__name__}: {printable(error)}"
        connection.send(Failure("raised", said))


def limit_threads() -> None:
    """Keep numerical libraries of this process to one thread: there is a process for every core."""
    for name in _THREADS:
        os.environ[name] = "1"
    import cv2

    cv2.setNumThreads(1)
