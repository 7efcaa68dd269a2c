"""A cluster for the tests of this package."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest


@pytest.fixture(scope="package")
def cluster() -> Iterator[Any]:
    """A scheduler with two worker processes, which come back when they are killed."""
    distributed = pytest.importorskip("distributed", reason="the extra [cluster] is absent")
    with distributed.LocalCluster(
        n_workers=2, threads_per_worker=1, processes=True, dashboard_address=":0", silence_logs=50
    ) as found:
        yield found
