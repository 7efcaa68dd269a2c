"""Our own HDF5 bundle: docs/bundle.md gives the schema, converter.bundle.schema is its table."""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from converter.findings import Finding, counted
from converter.registry import Progress, Written

if TYPE_CHECKING:
    from converter.track import Track


@dataclass(frozen=True)
class Options:
    """Options of --to bundle."""

    with_images: bool = False
    """Put the encoded crops and source frames (a video as its file) in, so that the bundle is
    enough for every target."""
    meshes: Literal["all", "mean"] = "all"
    """Mesh of every frame, or only their mean (much smaller)."""
    central: bool = False
    """Keep a second pose for a principal point in the centre of the source frame as well, which
    --canvas full of other targets then takes."""
    max_residual: float = 0.5
    """How far that pose may move the mesh, px of the source frame (median)."""


class Bundle:
    """Target ``bundle``."""

    name = "bundle"
    summary = "self-describing HDF5 file with everything of the track (track.h5)"
    options = Options

    def require(self, track: Track, options: Any) -> None:
        """Accept every consistent track whose every part the schema has a place for."""
        from converter.bundle.write import require_places

        track.require_consistent()
        require_places(track)
        _prepared(track, options)

    def write(
        self, track: Track, out: Path, options: Any, *, overwrite: bool, progress: Progress
    ) -> Written:
        """Write the file whole or not at all, and read it back."""
        from converter.bundle.write import write_bundle

        track = _prepared(track, options)
        write_bundle(
            track,
            out,
            meshes=options.meshes,
            with_images=options.with_images,
            overwrite=overwrite,
            progress=progress,
        )
        size, n_frames = out.stat().st_size, counted(len(track), "frame")
        holds_source = options.with_images and track.source_frames is not None
        return Written(
            path=out,
            summary=(f"{n_frames}, {size / 1e6:.1f} MB", *_central_lines(track)),
            findings=(
                *_without_depth(track),
                *(_lacking(track, out) if options.with_images else ()),
            ),
            next_command=f"convert {shlex.quote(str(out))} --to gaussiantalker -o OUT"
            + ("" if holds_source else " --source DIR_OR_VIDEO"),
            facts={"n_frames": len(track), "n_bytes": size},
        )

    def check(self, out: Path) -> list[Finding]:
        """Read every dataset and compare it with its hash."""
        from converter.bundle.read import check_bundle

        return check_bundle(out)


def _prepared(track: Track, options: Any) -> Track:
    """Return the track with the second pose, if it was asked for."""
    if not options.central:
        return track
    from converter.dataset.central import with_central

    return with_central(track, options.max_residual)


def _central_lines(track: Track) -> tuple[str, ...]:
    if track.central is None:
        return ()
    return (
        "holds a second pose, for a principal point in the centre of the source frame: it moves "
        f"the mesh by {track.central.residual_text}",
    )


def _without_depth(track: Track) -> tuple[Finding, ...]:
    if track.depth is None:
        return ()
    return (
        Finding("depth-left-out", "info", f"{track.name}: depth", "a bundle has no place for the "
                "tracker's depth maps; they can be rendered from the meshes."),
    )  # fmt: skip


def _lacking(track: Track, out: Path) -> tuple[Finding, ...]:
    """Say which images were asked for and are not there."""
    images = {"crop images": track.crop_frames, "source frames": track.source_frames}
    lost = " and ".join(name for name, frames in images.items() if frames is None)
    if not lost:
        return ()
    return (
        Finding("images-missing", "warning", str(out), f"it holds no {lost}: the track has none.",
                fix="Give --source DIR_OR_VIDEO, or --actor DIR."),
    )  # fmt: skip


TARGET = Bundle()
