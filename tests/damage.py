"""Ways in which people's tracks are damaged, applied to a copy."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from converter.media.torchfile import read_torch, write_torch


@dataclass(frozen=True)
class Folders:
    """A copy of a track: the root, and its two halves."""

    root: Path
    actor: Path
    output: Path

    @classmethod
    def copy(cls, source: Path, root: Path) -> Folders:
        """Copy a track that lies in input/<name> and output/<name>."""
        shutil.copytree(source, root, copy_function=shutil.copyfile)
        for folder in [root, *(p for p in root.rglob("*") if p.is_dir())]:
            folder.chmod(0o755)
        (actor,) = (root / "input").iterdir()
        (output,) = (root / "output").iterdir()
        return cls(root, actor, output)

    @property
    def checkpoint(self) -> Path:
        return self.output / "checkpoint"

    def frames(self) -> list[Path]:
        return sorted(self.checkpoint.glob("*.frame"))

    def edit_frames(self, change: Callable[[dict[str, Any]], None]) -> None:
        """Apply ``change`` to the content of every .frame."""
        for path in self.frames():
            edit_frame(path, change)


def edit_frame(path: Path, change: Callable[[dict[str, Any]], None]) -> None:
    content = read_torch(path).content
    assert isinstance(content, dict)
    change(content)
    write_torch(path, content, stem=path.stem, tensors=False)


def naive_K(bbox: list[int]) -> Callable[[dict[str, Any]], None]:
    def change(content: dict[str, Any]) -> None:
        content["opencv"]["K"][0, 0, 2] += bbox[0]
        content["opencv"]["K"][0, 1, 2] += bbox[2]

    return change


def source_K(crop_from_source: np.ndarray) -> Callable[[dict[str, Any]], None]:
    inverse = np.linalg.inv(crop_from_source)

    def change(content: dict[str, Any]) -> None:
        content["opencv"]["K"] = (inverse @ content["opencv"]["K"][0])[None].astype(np.float32)

    return change


def without_camera_block(content: dict[str, Any]) -> None:
    del content["camera"]


def transposed_R(content: dict[str, Any]) -> None:
    content["opencv"]["R"] = np.ascontiguousarray(np.swapaxes(content["opencv"]["R"], 1, 2))


def swapped_size(content: dict[str, Any]) -> None:
    content["img_size"] = content["img_size"][::-1].copy()
