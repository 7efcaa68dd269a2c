"""Reading the model as COLMAP does, text and binary, and holding it against the track."""

from __future__ import annotations

from pathlib import Path

from converter.dataset.record import Reference, check_files
from converter.dataset.scene import check_scene, check_sizes
from converter.errors import UncropError
from converter.findings import Finding
from converter.targets.colmap.model import read_text, require_binary_like_text

NAME = "colmap"
MODEL = "sparse/0"


def check_dataset(out: Path) -> list[Finding]:
    """Re-read, reproject, and compare every part; an UncropError becomes a finding."""
    try:
        reference, model = Reference.read(out, NAME), read_text(out / MODEL)
        require_binary_like_text(out / MODEL, model)
    except UncropError as error:
        return [Finding.of_error("dataset-unreadable", error)]
    sizes = {
        name: model.sizes[camera - 1]
        for name, camera in zip(model.names, model.camera_ids, strict=True)
    }
    return [
        *check_scene(out, reference, list(model.names), model.project),
        *check_sizes(out, sizes),
        *check_files(out, reference, _is_core),
    ]


def _is_core(name: str) -> bool:
    """Whether a changed file makes cameras or pixels doubtful; masks may be remade."""
    return name.startswith(("images/", MODEL))
