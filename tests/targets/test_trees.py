"""Golden trees: which files every target writes for the same two frames, and what they hold.

A file's line says its keys, dtypes and shapes, not its numbers: a renamed key, another type or
another shape fails, other arithmetic does not. ``UNCROP_GOLDEN=write`` writes them afresh;
docs/targets/NAME.md explains every one.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from converter import registry
from converter.media.arrays import read_npz
from converter.media.meshes import read_mesh
from converter.media.torchfile import read_torch, torch_bytes
from converter.registry import ReadOptions, no_progress
from converter.targets.gaussianavatars.dataset import npz_bytes
from tests.conftest import MakeTrack

GOLDEN = Path(__file__).resolve().parent.parent / "golden" / "trees"
TARGETS = [name for name in registry.names("targets") if name != "bundle"]
_MANIFEST = ("findings", "steps", "files", "options")
"""Of uncrop.json: what differs with the words and versions of this program."""


def outline(value: Any) -> Any:
    """Keys, dtypes and shapes of nested content; equal entries of a list are one, counted."""
    if isinstance(value, dict):
        return {str(key): outline(value[key]) for key in sorted(value, key=str)}
    if isinstance(value, list | tuple):
        parts = [json.dumps(outline(v)) for v in value]
        if len(set(parts)) == 1:
            return [f"{len(parts)} x", outline(value[0])]
        return [outline(v) for v in value]
    if isinstance(value, np.ndarray):
        return f"{value.dtype} {'x'.join(map(str, value.shape))}"
    return type(value).__name__


def _image(path: Path) -> Any:
    return outline(cv2.imread(str(path), cv2.IMREAD_UNCHANGED))


def _json(path: Path) -> Any:
    content = json.loads(path.read_text())
    kept = {k: v for k, v in content.items() if path.name != "uncrop.json" or k not in _MANIFEST}
    return outline(kept)


def _torch(path: Path) -> Any:
    tensors = b"torch._utils" in path.read_bytes()
    return ["tensors" if tensors else "arrays", outline(read_torch(path).content)]


def _mesh(path: Path) -> Any:
    mesh = read_mesh(path)
    return f"{path.read_bytes()[:1]!r} {len(mesh.vertices)} vertices, {len(mesh.faces)} faces"


def _text(path: Path) -> Any:
    """Lines, and the words of the first and the last: numbers only by their being one."""

    def words(line: str) -> str:
        def word(w: str) -> str:
            return "#" if w.lstrip("-").replace(".", "", 1).isdigit() else w

        return " ".join(map(word, line.replace(",", " , ").split()))[:120]

    lines = path.read_text().splitlines()
    return f"{len(lines)} lines: {words(lines[0])} ... {words(lines[-1])}"


READERS: dict[str, Callable[[Path], Any]] = {
    ".png": _image, ".jpg": _image, ".json": _json, ".frame": _torch, ".pt": _torch,
    ".npz": lambda p: outline(read_npz(p)), ".npy": lambda p: outline(np.load(p)),
    ".obj": _mesh, ".ply": lambda p: _text_head(p),
    ".bin": lambda p: f"{p.stat().st_size} bytes",
}  # fmt: skip


def _text_head(path: Path) -> Any:
    """The header of a .ply."""
    return path.read_bytes().split(b"end_header")[0].decode("ascii").split("\n")


def tree_of(out: Path) -> str:
    """One line per file: its name and the outline of what it holds.

    Not of the record, which is a bundle (tests/bundle), and not of the proof, which has no reader.
    """
    lines = []
    for path in sorted(p for p in out.rglob("*") if p.is_file()):
        read = READERS.get(path.suffix, _text)
        held = "" if path.name in ("proof.jpg", "track.h5") else f": {json.dumps(read(path))}"
        lines.append(f"{path.relative_to(out).as_posix()}{held}")
    return "\n".join(lines) + "\n"


@pytest.mark.parametrize("name", TARGETS)
def test_the_tree_is_the_golden_one(name: str, make_track: MakeTrack, tmp_path: Path) -> None:
    golden = GOLDEN / f"{name}.txt"
    folder, _ = make_track(n_frames=2, begin_frames=1, depth=True)
    track = registry.read_track(folder, ReadOptions(hash_inputs=False))
    target = registry.target(name)
    target.write(track, tmp_path / "out", target.options(), overwrite=False, progress=no_progress)
    tree = tree_of(tmp_path / "out")
    if os.environ.get("UNCROP_GOLDEN") == "write":
        golden.parent.mkdir(parents=True, exist_ok=True)
        golden.write_text(tree)
    if not golden.is_file():
        pytest.skip(f"there is no golden tree of {name} yet: UNCROP_GOLDEN=write makes it")
    assert tree.splitlines() == golden.read_text().splitlines()


def test_a_changed_key_dtype_or_shape_changes_the_tree(tmp_path: Path) -> None:
    """The trees are worth as much as this: every small change of content shows."""
    content: dict[str, Any] = {"flame": {"exp": np.zeros((1, 100), np.float32)}, "frame_id": "0"}
    arrays = {"shape": np.zeros(300, np.float32)}

    def write(content: Any, arrays: Any, parts: list[Any], image: Any) -> str:
        (tmp_path / "0.frame").write_bytes(torch_bytes(content, stem="0", tensors=False))
        (tmp_path / "0.npz").write_bytes(npz_bytes(arrays))
        (tmp_path / "t.json").write_text(json.dumps({"w": 1.0, "frames": parts}))
        cv2.imwrite(str(tmp_path / "0.png"), image)
        return tree_of(tmp_path)

    frames = [{"a": 1.0}, {"a": 2.0}]
    grey = np.zeros((4, 6), np.uint8)
    whole = write(content, arrays, frames, grey)
    assert whole == write(content, arrays, [{"a": 3.0}, {"a": 5.0}], grey + 7)
    others: list[tuple[Any, ...]] = [
        ({**content, "frame_id": 0}, arrays, frames, grey),
        ({**content, "flame": {"exp": np.zeros((1, 50), np.float32)}}, arrays, frames, grey),
        ({**content, "flame": {"exp": np.zeros((1, 100))}}, arrays, frames, grey),
        ({**content, "flame": {"expr": np.zeros((1, 100), np.float32)}}, arrays, frames, grey),
        (content, {"betas": arrays["shape"]}, frames, grey),
        (content, {"shape": np.zeros(100, np.float32)}, frames, grey),
        (content, arrays, [{"a": 1.0}, {"b": 1.0}], grey),
        (content, arrays, [{"a": 1}, {"a": 2}], grey),
        (content, arrays, frames[:1], grey),
        (content, arrays, frames, np.zeros((6, 4), np.uint8)),
        (content, arrays, frames, np.zeros((4, 6, 3), np.uint8)),
        (content, arrays, frames, np.zeros((4, 6), np.uint16)),
    ]
    assert all(write(*other) != whole for other in others)
