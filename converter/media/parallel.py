"""Running a function over a stream on all cores, in order and in bounded memory."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Generator, Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

T = TypeVar("T")
R = TypeVar("R")

_FEW = 4


def n_cores() -> int:
    """Cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def ordered_map(
    function: Callable[[T], R], items: Iterable[T], workers: int | None = None
) -> Generator[R, None, None]:
    """``map`` in threads: results in order, at most ``workers + 2`` items alive at a time.

    Decoding, resampling and encoding release the interpreter lock, so threads are enough. Closing
    the iterator, or an exception, cancels what has not begun.
    """
    workers = workers or n_cores()
    pending: deque[Future[R]] = deque()
    pool = ThreadPoolExecutor(workers, thread_name_prefix="uncrop")
    try:
        for item in items:
            pending.append(pool.submit(function, item))
            if len(pending) > workers + 1:
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def spread_out(function: Callable[[T], R], items: Sequence[T]) -> list[R]:
    """``map`` in threads where there are many items: a pool costs as much as little work."""
    return list(ordered_map(function, items) if len(items) > _FEW else map(function, items))
