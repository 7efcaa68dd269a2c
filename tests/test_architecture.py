"""The rules that keep the packages apart, read from the source with ``ast``.

A module imports only downwards; formats do not know each other; heavy packages load when they are
used; nothing runs code out of an input.
"""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parent.parent

LAYERS = [
    {"converter.errors"},
    {"converter.findings"},
    {"converter.geometry"},
    {"converter.track"},
    {"converter.media"},
    {"converter.registry"},
    {"fitting"},
    {"converter.bundle"},
    {"converter.dataset"},
    {"converter.sources", "converter.targets"},
    {"converter.validation"},
    {"converter.batch"},
    {"converter"},
    {"converter.cli"},
]
LEVEL = {package: level for level, layer in enumerate(LAYERS) for package in layer}
VERSION = "converter.__version__"
"""The one public name that every layer may use: files say what wrote them."""
FORMATS = ("converter.sources", "converter.targets")
FITTING_SEES = {
    "converter.errors",
    "converter.findings",
    "converter.geometry",
    "converter.track",
    "converter.media",
}

HEAVY = {
    "PIL",
    "av",
    "cv2",
    "dask",
    "distributed",
    "face_alignment",
    "h5py",
    "jinja2",
    "plotly",
    "rich",
    "scipy",
    "torch",
    "trimesh",
    "tyro",
    "yaml",
}
GEOMETRY_SEES = {"__future__", "collections", "dataclasses", "typing", "numpy"}

CODE_RUNNING_MODULES = {
    "_pickle",
    "cloudpickle",
    "dill",
    "joblib",
    "marshal",
    "pickle",
    "shelve",
}
CODE_RUNNING_CALLS = {
    "builtins.compile",
    "builtins.eval",
    "builtins.exec",
    "numpy.load",
    "os.popen",
    "os.system",
    "torch.hub.load",
    "torch.jit.load",
    "torch.load",
    "yaml.full_load",
    "yaml.load",
    "yaml.unsafe_load",
}
CODE_RUNNING_OPTIONS = {"allow_pickle", "shell"}


@dataclass(frozen=True)
class Module:
    """A source file: its dotted name and its syntax tree."""

    name: str
    tree: ast.Module

    @property
    def package(self) -> str:
        """The layer it belongs to, e.g. ``converter.geometry``."""
        return package_of(self.name)


@dataclass(frozen=True)
class Import:
    """One imported dotted name, and whether it loads with the module or only when called."""

    name: str
    at_load: bool


def package_of(name: str) -> str:
    """``converter.geometry.crop`` -> ``converter.geometry``; ``fitting.x`` -> ``fitting``."""
    parts = name.split(".")
    return "fitting" if parts[0] == "fitting" else ".".join(parts[:2])


def format_of(name: str) -> str:
    """``converter.sources.x`` and ``converter.sources.x.part`` -> ``converter.sources.x``."""
    return ".".join(name.split(".")[:3])


def modules() -> list[Module]:
    """Every module of the distribution."""
    found = []
    for root in ("converter", "fitting"):
        for path in sorted((REPOSITORY / root).rglob("*.py")):
            parts = path.relative_to(REPOSITORY).with_suffix("").parts
            name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
            found.append(Module(name, ast.parse(path.read_text("utf-8"), str(path))))
    return found


def _is_type_checking(node: ast.AST) -> bool:
    test = getattr(node, "test", None)
    return isinstance(node, ast.If) and ast.unparse(test) in (
        "TYPE_CHECKING",
        "typing.TYPE_CHECKING",
    )


def imports(tree: ast.AST, at_load: bool = True) -> Iterator[Import]:
    """All imports of a module but those for the type checker only."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.Import):
            yield from (Import(alias.name, at_load) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            # Ruff bans relative imports; here one shows as a name that no layer has.
            base = "." * node.level + (node.module or "")
            yield from (Import(f"{base}.{alias.name}", at_load) for alias in node.names)
        elif _is_type_checking(node):
            yield from (
                i for child in node.orelse for i in imports(ast.Module([child], []), at_load)
            )
        else:
            function = isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
            yield from imports(node, at_load and not function)


def layering(module: Module) -> list[str]:
    """Imports of ours that do not point downwards."""
    wrong = []
    for i in imports(module.tree):
        if i.name.split(".")[0] not in ("converter", "fitting") or i.name == VERSION:
            continue
        target = package_of(i.name)
        if target not in LEVEL:
            target = "converter"  # a public name of the top package
        if module.package in FORMATS and target in FORMATS:
            allowed = format_of(i.name) == format_of(module.name)
        elif module.package == "fitting":
            allowed = target == "fitting" or target in FITTING_SEES
        else:
            allowed = target == module.package or LEVEL[target] < LEVEL[module.package]
        if not allowed:
            wrong.append(f"{module.name} imports {i.name}")
    return wrong


def unlayered(module: Module) -> list[str]:
    """Packages that no layer names, and imports that are relative."""
    wrong = [] if module.package in LEVEL else [f"{module.name} is in no layer"]
    return wrong + [
        f"{module.name} imports {i.name}" for i in imports(module.tree) if i.name[0] == "."
    ]


def heavy_at_load(module: Module) -> list[str]:
    """Heavy packages that load with the module; cli may load tyro, which reads its signatures."""
    allowed = {"tyro"} if module.package == "converter.cli" else set()
    return [
        f"{module.name} imports {i.name} at module level"
        for i in imports(module.tree)
        if i.at_load and i.name.split(".")[0] in HEAVY - allowed
    ]


def geometry_is_pure(module: Module) -> list[str]:
    """What geometry imports besides numpy, itself and errors."""
    if module.package != "converter.geometry":
        return []
    return [
        f"{module.name} imports {i.name}"
        for i in imports(module.tree)
        if i.name.split(".")[0] not in GEOMETRY_SEES
        and package_of(i.name) not in ("converter.geometry", "converter.errors")
    ]


def _called_name(node: ast.AST, aliases: dict[str, str]) -> str:
    """Dotted name of an expression, with import aliases undone; "" where it has none."""
    if isinstance(node, ast.Attribute):
        base = _called_name(node.value, aliases)
        return f"{base}.{node.attr}" if base else ""
    return aliases.get(node.id, f"builtins.{node.id}") if isinstance(node, ast.Name) else ""


def _aliases(tree: ast.AST) -> dict[str, str]:
    names = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for a in node.names:
                names[a.asname or a.name.split(".")[0]] = (
                    a.name if a.asname else a.name.split(".")[0]
                )
        elif isinstance(node, ast.ImportFrom):
            names.update({a.asname or a.name: f"{node.module}.{a.name}" for a in node.names})
    return names


def runs_code(module: Module) -> list[str]:
    """Unpicklers, shells and evaluators, under whatever name they were imported."""
    aliases = _aliases(module.tree)
    used = {i.name for i in imports(module.tree)}
    wrong = {name for name in used if name.split(".")[0] in CODE_RUNNING_MODULES}
    wrong |= used & CODE_RUNNING_CALLS
    for node in ast.walk(module.tree):
        if isinstance(node, ast.Name | ast.Attribute):
            name = _called_name(node, aliases)
            wrong |= {name} & CODE_RUNNING_CALLS
        elif isinstance(node, ast.keyword) and node.arg in CODE_RUNNING_OPTIONS:
            # Writers of numpy need a plain False, since they pickle by default.
            off = isinstance(node.value, ast.Constant) and node.value.value is False
            wrong |= set() if off else {f"{node.arg}="}
    return [f"{module.name} uses {name}" for name in sorted(wrong)]


def prints(module: Module) -> list[str]:
    """Calls of print outside the command line."""
    if module.package == "converter.cli":
        return []
    return [
        f"{module.name}:{node.lineno} prints"
        for node in ast.walk(module.tree)
        if isinstance(node, ast.Name) and node.id == "print"
    ]


RULES = [layering, unlayered, heavy_at_load, geometry_is_pure, runs_code, prints]


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
def test_the_packages_keep_the_rule(rule) -> None:  # type: ignore[no-untyped-def]
    found = modules()
    assert len(found) > 10
    assert [violation for module in found for violation in rule(module)] == []


@pytest.mark.parametrize(
    ("rule", "name", "source"),
    [
        (layering, "converter.geometry.crop", "from converter.track import Track"),
        (layering, "converter.geometry.crop", "from converter import track"),
        (layering, "converter.geometry.crop", "import converter.track as t"),
        (layering, "converter.geometry.crop", "def f():\n    from converter.media import video"),
        (layering, "converter.errors", "from converter.findings import Finding"),
        (layering, "converter.media.video", "from converter.registry import find"),
        (layering, "converter.bundle.store", "from converter.targets.insta import TARGET"),
        (layering, "converter.dataset.canvas", "from converter.targets.insta import TARGET"),
        (layering, "converter.bundle.store", "from converter.dataset.canvas import Canvas"),
        (layering, "converter.sources.a", "from converter.targets.a import TARGET"),
        (layering, "converter.sources.a", "from converter.sources.b import SOURCE"),
        (layering, "converter.sources.a", "from converter.sources import b"),
        (layering, "converter.targets.a.write", "from converter.targets.ab import x"),
        (layering, "converter.sources.a", "from converter.cli.main import main"),
        (layering, "converter.sources.a", "import converter"),
        (layering, "converter.sources.a", "from converter import read"),
        (layering, "converter", "def f():\n    from converter.cli import main"),
        (layering, "fitting.crop.search", "from converter.registry import find"),
        (layering, "fitting.crop.search", "from converter.bundle import store"),
        (layering, "converter.track", "if x:\n    import fitting.crop"),
        (unlayered, "converter.helpers", ""),
        (unlayered, "converter.media.video", "from . import images"),
        (unlayered, "converter.media.video", "from ..track import Track"),
        (heavy_at_load, "converter.media.video", "import av"),
        (heavy_at_load, "converter.media.video", "from PIL import Image"),
        (heavy_at_load, "converter.media.video", "try:\n    import cv2\nexcept E:\n    pass"),
        (heavy_at_load, "converter.media.video", "class A:\n    import scipy.ndimage"),
        (heavy_at_load, "fitting.pose.lm", "import torch"),
        (heavy_at_load, "converter.cli.main", "import rich.console"),
        (heavy_at_load, "converter.track", "if not TYPE_CHECKING:\n    import h5py"),
        (heavy_at_load, "converter.track", "if TYPE_CHECKING:\n    pass\nelse:\n    import h5py"),
        (geometry_is_pure, "converter.geometry.pose", "def f():\n    import cv2"),
        (geometry_is_pure, "converter.geometry.pose", "import os"),
        (geometry_is_pure, "converter.geometry.pose", "from converter.findings import Finding"),
        (runs_code, "converter.media.x", "import pickle"),
        (runs_code, "converter.media.x", "from pickle import loads"),
        (runs_code, "converter.media.x", "def f():\n    import torch as t\n    t.load('x')"),
        (runs_code, "converter.media.x", "import numpy as np\nread = np.load"),
        (runs_code, "converter.media.x", "from numpy import load as read"),
        (runs_code, "converter.media.x", "f(allow_pickle=True)"),
        (runs_code, "converter.media.x", "f(allow_pickle=trusted)"),
        (runs_code, "converter.media.x", "import os\nos.system('ls')"),
        (runs_code, "converter.media.x", "run(['ls'], shell=True)"),
        (runs_code, "converter.media.x", "eval('1')"),
        (runs_code, "fitting.x", "def f():\n    import yaml\n    return yaml.load(s, Loader=l)"),
        (prints, "converter.track", "def f():\n    print('x')"),
        (prints, "fitting.crop.search", "list(map(print, x))"),
    ],
)
def test_a_violation_is_seen(rule, name: str, source: str) -> None:  # type: ignore[no-untyped-def]
    assert rule(Module(name, ast.parse(source)))


@pytest.mark.parametrize(
    ("name", "source"),
    [
        ("converter.geometry.crop", "import numpy as np\nfrom converter.geometry import pose"),
        ("converter.targets.a", "from converter.track import Track\nfrom converter import errors"),
        ("converter.targets.a.write", "from converter.targets.a.read import x"),
        ("converter.targets.a", "def f():\n    import cv2"),
        (
            "converter.targets.a",
            "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import av",
        ),
        ("converter.geometry.crop", "if TYPE_CHECKING:\n    from converter.track import Track"),
        ("converter.bundle.store", "from converter import __version__"),
        ("converter.cli.main", "import tyro\nprint('x')"),
        ("converter.cli.main", "from converter.validation import checks\nimport converter"),
        (
            "fitting.crop.search",
            "from fitting.crop import refine\nfrom converter.media import images",
        ),
        (
            "converter.media.x",
            '"""Never unpickles, no torch.load."""\nimport json\njson.loads("1")',
        ),
        ("converter.media.x", "def f():\n    import yaml\n    return yaml.safe_load(s)"),
        ("converter.media.x", "write_array(stream, array, allow_pickle=False)"),
        ("converter.media.x", "import re\nre.compile('x')"),
        ("converter.media.x", "def f():\n    import torch\n    torch.save(x, y)"),
    ],
)
def test_what_is_allowed_is_not_complained_about(name: str, source: str) -> None:
    module = Module(name, ast.parse(source))
    assert [violation for rule in RULES for violation in rule(module)] == []


def loaded_by(statements: str) -> set[str]:
    """Top packages in ``sys.modules`` of a fresh interpreter after ``statements``."""
    code = f"import sys\n{statements}\nsys.stdout.write(' '.join(sys.modules))"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=REPOSITORY, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return {name.split(".")[0] for name in done.stdout.split()}


def test_importing_converter_imports_nothing_heavy() -> None:
    loaded = loaded_by("import converter")
    assert "converter" in loaded
    assert not loaded & (HEAVY | {"numpy"})


def test_importing_every_module_imports_nothing_heavy() -> None:
    names = [m.name for m in modules() if m.package != "converter.cli"]
    loaded = loaded_by("\n".join(f"import {name}" for name in names))
    assert "numpy" in loaded
    assert not loaded & HEAVY
