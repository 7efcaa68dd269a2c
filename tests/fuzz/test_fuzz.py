"""A short fuzzing pass over every reader; UNCROP_FUZZ is the number of inputs (default 150)."""

from __future__ import annotations

import ast
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import REPOSITORY
from tests.fuzz.mutate import mutations
from tests.fuzz.run import attempt
from tests.fuzz.targets import TARGETS, clean, hostile

N_INPUTS = int(os.environ.get("UNCROP_FUZZ", "150"))


@pytest.fixture(autouse=True, scope="module")
def _cleaned() -> Iterator[None]:
    yield
    clean()


@pytest.mark.parametrize("name", TARGETS)
def test_good_files_are_read(name: str) -> None:
    """Else nothing deep would be reached."""
    read = TARGETS[name].read()
    corpus = TARGETS[name].corpus()
    assert corpus
    if name in ("flame", "pickled"):
        corpus = corpus[2:3]  # protocols that model files are not written in are refused
    for data in corpus:
        read(data)


@pytest.mark.parametrize("name", TARGETS)
def test_only_clear_errors_come_out(name: str) -> None:
    read = TARGETS[name].read()
    corpus = [*TARGETS[name].corpus(), *hostile(name)]
    slow = name in ("bundle", "video", "transforms")
    problems = []
    for data in mutations(corpus, len(corpus) + N_INPUTS // (3 if slow else 1), name):
        problem, _ = attempt(read, data)
        if problem:
            problems.append(f"{problem} of {data[:60]!r} ({len(data)} bytes)")
    assert not problems, "\n".join(problems[:10])


READERS = {
    "converter.media.torchfile": "frame",
    "converter.media.torch_series": "series",
    "converter.media.archive": "npz",
    "converter.media.arrays": "npy",
    "converter.media.images": "image",
    "converter.media.image_tops": "rows",
    "converter.media.meshes": "ply",
    "converter.media.video": "video",
    "converter.media.audio": "video",
    "converter.media.manifest": "json",
    "converter.media.pickled": "pickled",
    "converter.media.pickle_model": "flame",
    "converter.bundle.hdf5": "bundle",
    "converter.targets.gaussiantalker.check": "transforms",
    "converter.targets.gaussiantalker.landmarks": "lms",
    "converter.targets.colmap.model": "colmap",
    "converter.sources.metrical_tracker.lost_crops": "lms",
    "converter.validation.tracked": "series",
    "fitting.crop.sequences": "image",
    "converter.sources.metrical_tracker.config": "yaml",
    "converter.sources.metrical_tracker.reader": "bbox",
}
"""Modules that take bytes from outside, and the target that reaches them first."""


OPENS = {"read_bytes", "open_regular", "preadv"}
PARSES = {"frombuffer", "unpack", "unpack_from", "from_bytes", "loads", "decode", "decompressobj"}
"""Names by which a module is known that makes sense of bytes itself."""


def test_every_module_that_opens_files_is_behind_a_target() -> None:
    """A new reader of raw bytes needs a target of its own, or a line above that says whose."""
    openers = set()
    for folder in ("converter", "fitting"):
        for path in sorted(Path(REPOSITORY, folder).rglob("*.py")):
            names = {
                node.attr if isinstance(node, ast.Attribute) else node.id
                for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
                if isinstance(node, ast.Attribute | ast.Name)
            }
            if names & OPENS and names & PARSES:
                name = ".".join(path.relative_to(REPOSITORY).with_suffix("").parts)
                openers.add(name)
    plain = {"converter.media.files", "converter.media.atomic"}
    writers = {"converter.bundle.write", "converter.bundle.sink"}
    unknown = openers - set(READERS) - plain - writers
    assert not unknown, f"without a fuzz target: {sorted(unknown)}"
    assert set(READERS.values()) <= set(TARGETS)
