"""What the tests of ``uncrop recover-bbox`` share."""

from __future__ import annotations

from pathlib import Path

from converter.cli.main import main
from converter.media.limits import DEFAULT_LIMITS
from converter.sources.metrical_tracker.reader import read_bbox
from fixtures.synthetic.crop_cases import CropCase, write_case


def recover(*arguments: object) -> int:
    """Run the verb; return its exit code."""
    return main(["recover-bbox", *map(str, arguments)])


def box_of(path: Path) -> tuple[int, int, int, int]:
    """x_min, x_max, y_min, y_max that a bbox.pt holds."""
    box = read_bbox(path, DEFAULT_LIMITS)
    return box.x_min, box.x_max, box.y_min, box.y_max


def write_actor(folder: Path, case: CropCase) -> Path:
    """Write an actor folder that was never tracked, crops and source frames; return it."""
    crops, _ = write_case(folder, case)
    crops.rename(folder / "images")
    return folder
