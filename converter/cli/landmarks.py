"""``uncrop landmarks TRACK``: the 68 landmarks that a track lacks, in the tracker's own files."""

from __future__ import annotations

import dataclasses
import json
import os
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import tyro

from converter.cli.arguments import parse
from converter.cli.exits import EXIT_FINE
from converter.cli.report import Reporter
from converter.errors import MissingInputError, OutputError
from converter.findings import counted
from converter.geometry.pixels import index_from_pixels
from converter.media.arrays import write_npy
from converter.media.atomic import replace_file
from converter.media.images import list_images, read_image
from converter.registry import ReadOptions


@dataclasses.dataclass(frozen=True)
class LandmarksArguments:
    """Detect 68 landmarks on the tracker's crops, and write kpt/ beside them.

    Needs the extra: pip install 'uncrop[landmarks]'. Images that have landmarks keep them, so that
    an interrupted run goes on where it was.
    """

    track: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="TRACK")]
    """The track (any of its folders), or an actor folder with images/."""
    actor: Annotated[Path | None, tyro.conf.arg(metavar="DIR")] = None
    """The actor folder, if it is not found beside the track."""
    out: Annotated[Path | None, tyro.conf.arg(aliases=["-o"], metavar="DIR")] = None
    """Where to write. Default: kpt/ of the actor folder."""
    device: Literal["auto", "cpu", "cuda", "mps"] = "auto"
    """Where to run; auto: the GPU, if torch has one."""
    single_pass: bool = False
    """Look at each face once, not a second time mirrored: half the time, a little less steady."""
    overwrite: bool = False
    """Detect again where landmarks exist."""
    dry_run: bool = False
    """Say what would be done, and whether the weights are there."""
    quiet: bool = False
    """Print errors only."""
    json: bool = False
    """Print one JSON object to standard output instead of text."""


def run(arguments: list[str]) -> int:
    """Detect and write; raises UncropError."""
    command = parse(arguments, "uncrop landmarks", LandmarksArguments)
    from fitting.detectors import LandmarkDetector, require_weights

    actor = _actor(command)
    images = list_images(actor / "images") if (actor / "images").is_dir() else []
    if not images:
        raise MissingInputError(
            actor / "images", "the tracker's crops", "none", "Give --actor DIR (with images/)."
        )
    out = command.out or actor / "kpt"
    wanted = [p for p in images if command.overwrite or not _place(out, p).exists()]
    with Reporter(quiet=command.quiet, json=command.json) as reporter:
        lost: list[str] = []
        if command.dry_run or not wanted:
            require_weights()
        else:
            detector = LandmarkDetector(command.device, mirrored=not command.single_pass)
            _make_folder(out)
            for n_done, image in enumerate(wanted):
                if not _write(_place(out, image), detector, image):
                    lost.append(image.name)
                reporter.progress("landmarks", n_done + 1, len(wanted))
        reporter.steps(_said(command, out, len(images), len(wanted), lost))
    if command.json:
        result = {
            "ok": True,
            "out": str(out),
            "n_images": len(images),
            "n_detected": 0 if command.dry_run else len(wanted) - len(lost),
            "n_kept": len(images) - len(wanted),
            "no_face": lost,
        }
        print(json.dumps(result, indent=1))
    return EXIT_FINE


def _actor(command: LandmarksArguments) -> Path:
    """The actor folder: given, the path itself, or found as for every other verb."""
    from converter.sources.metrical_tracker.folders import find_folders

    if command.actor is None and (command.track / "images").is_dir():
        return command.track
    folders = find_folders(command.track, ReadOptions(actor=command.actor))
    if folders.actor is None:
        raise MissingInputError(
            command.track, "the actor folder, with the tracker's crops", "none",
            "Give --actor DIR (with images/).",
        )  # fmt: skip
    return folders.actor


def _place(out: Path, image: Path) -> Path:
    return out / f"{image.stem}.npy"


def _make_folder(out: Path) -> None:
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(out, "a folder to write to", error.strerror or os.strerror(0)) from None


def _write(place: Path, detector: Any, image: Path) -> bool:
    """One file as the tracker writes it: whole numbers as float32, or float64 zeros for no face."""
    points = detector.detect(read_image(image))
    content = np.zeros((68, 2))
    if points is not None:
        content = np.floor(index_from_pixels(points)).astype(np.float32)
    with replace_file(place, overwrite=True) as path:
        write_npy(path, content)
    return points is not None


def _said(
    command: LandmarksArguments, out: Path, n_images: int, n_wanted: int, lost: list[str]
) -> list[str]:
    kept = f"; {n_images - n_wanted} had landmarks" if n_wanted < n_images else ""
    if command.dry_run:
        return [f"dry run: {n_wanted} of {n_images} images would be looked at{kept}; "
                "the weights are there"]  # fmt: skip
    faces, images = counted(n_wanted - len(lost), "face"), counted(n_wanted, "image")
    lines = [f"{faces} in {images}{kept}; wrote {out}"]
    if lost:
        more = ", ..." if len(lost) > 8 else ""
        lines.append(f"no face in {len(lost)}: {', '.join(lost[:8])}{more}")
    return lines
