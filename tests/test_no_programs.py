"""No program is started and no shell is used, anywhere in converter/ and fitting/.

Read from the source with ``ast``; the audit hook of tests/hostile sees the same at run time.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import REPOSITORY

MODULES = {
    "subprocess",
    "pty",
    "commands",
    "pexpect",
    "sh",
    "plumbum",
    "webbrowser",
    "runpy",
    "code",
}
CALLS = {"system", "popen", "fork", "forkpty", "startfile"}
PREFIXES = ("exec", "spawn", "posix_spawn")
"""Of names in ``os``."""


def found(source: str) -> Iterator[str]:
    """What starts a program in a module's source."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (a.name for a in node.names if a.name.split(".")[0] in MODULES)
        elif isinstance(node, ast.ImportFrom):
            module = (node.module or "").split(".")[0]
            if module in MODULES:
                yield module
            if module == "os":
                yield from (a.name for a in node.names if _starts(a.name))
            if module == "asyncio":
                yield from (a.name for a in node.names if "subprocess" in a.name)
        elif isinstance(node, ast.Attribute):
            if isinstance(node.value, ast.Name) and node.value.id in ("os", "posix"):
                yield from [node.attr] * _starts(node.attr)
            if node.attr.startswith("create_subprocess"):
                yield node.attr
        elif isinstance(node, ast.keyword) and node.arg == "shell":
            yield "shell="


def _starts(name: str) -> bool:
    return name in CALLS or name.startswith(PREFIXES)


@pytest.mark.parametrize("folder", ["converter", "fitting"])
def test_no_program_is_started(folder: str) -> None:
    users = {
        str(path.relative_to(REPOSITORY)): sorted(names)
        for path in sorted(Path(REPOSITORY, folder).rglob("*.py"))
        if (names := set(found(path.read_text(encoding="utf-8"))))
    }
    assert users == {}


@pytest.mark.parametrize(
    "source",
    [
        "import subprocess",
        "from subprocess import run",
        "import os\nos.system('x')",
        "import os\nos.execv('x', [])",
        "import os\nos.posix_spawn('x', [], {})",
        "from os import popen",
        "import asyncio\nasyncio.create_subprocess_exec('x')",
        "f(shell=True)",
        "def f():\n    import pty",
    ],
)
def test_what_starts_one_is_seen(source: str) -> None:
    assert list(found(source))


def test_what_does_not_is_not() -> None:
    assert not list(found("import os\nos.path.join('a', 'b')\nos.sched_getaffinity(0)\nexec_ = 1"))
