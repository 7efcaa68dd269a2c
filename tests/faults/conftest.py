"""One rig per command, for all tests of this folder."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from tests.faults.rig import COMMANDS, Rig, Run
from tests.hostile.zygote import start


@pytest.fixture(scope="session")
def zygote() -> Iterator[Run]:
    """Run a command line in a process of its own; see `tests.hostile.zygote`."""
    with start() as run:
        yield run


@pytest.fixture(scope="session")
def rig_of(zygote: Run, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Rig]:
    """The rig of a command by its name."""
    rigs: dict[str, Rig] = {}

    def make(name: str) -> Rig:
        if name not in rigs:
            command = next(c for c in COMMANDS if c.name == name)
            rigs[name] = Rig(command, tmp_path_factory.mktemp(name), zygote)
        return rigs[name]

    return make


@pytest.fixture(params=[c.name for c in COMMANDS])
def rig(request: pytest.FixtureRequest, rig_of: Callable[[str], Rig]) -> Rig:
    """Every command in turn."""
    return rig_of(request.param)
