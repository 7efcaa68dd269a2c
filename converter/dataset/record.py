"""The record of a dataset: what it was made from, so that a check can hold the files against it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from converter.bundle.read import read_bundle
from converter.bundle.write import write_bundle
from converter.dataset.canvas import Canvas
from converter.errors import FormatError
from converter.findings import Finding
from converter.geometry.pixels import Floats, PixelAffine
from converter.media.files import sha256_of
from converter.media.manifest import RECORD, DatasetFolder, read_manifest
from converter.track import CentralCameras, Track


def write_record(track: Track, dataset: DatasetFolder) -> None:
    """Put the track's record into a dataset."""
    write_bundle(track, dataset.root / RECORD, meshes="mean")
    dataset.add(RECORD)


def canvas_facts(canvas: Canvas) -> dict[str, Any]:
    """Return what the manifest keeps of a canvas; `Reference.read` needs it."""
    return {
        "kind": canvas.kind,
        "base": canvas.base,
        "width": canvas.size.width,
        "height": canvas.size.height,
        "focal_px": canvas.focal,
        **_residual_facts(canvas),
        "canvas_from_image": _numbers(canvas.window.canvas_from_image),
        "canvas_from_crop": _numbers(canvas.canvas_from_crop),
    }


def _residual_facts(canvas: Canvas) -> dict[str, Any]:
    if canvas.central is None:
        return {}
    median_px, max_px = canvas.central.residual_px
    return {"residual_median_px": median_px, "residual_max_px": max_px}


def common_facts(
    track: Track, positions: NDArray[np.int64], options: Any, findings: Sequence[Finding]
) -> dict[str, Any]:
    """Return what every manifest keeps of the track, its frames and how it was made."""
    return {
        "track": track.name,
        "track_positions": positions.tolist(),
        "frame_ids": track.frame_ids[positions].tolist(),
        "options": options_facts(options),
        "steps": list(track.provenance.steps),
        "findings": [asdict(f) for f in (*track.findings, *findings)],
    }


def options_facts(options: Any) -> dict[str, Any]:
    """Return a target's options as JSON holds them; of files only the names."""
    return {k: v.name if isinstance(v, Path) else v for k, v in asdict(options).items()}


def _numbers(affine: PixelAffine) -> list[Any]:
    return [np.asarray(v).tolist() for v in (affine.sx, affine.sy, affine.tx, affine.ty)]


@dataclass(frozen=True, slots=True)
class Reference:
    """What a dataset should say: the track it was made from, and the canvas.

    Attributes
    ----------
    track
        With K of the images that were drawn.
    canvas_from_image, canvas_from_crop
        Maps onto the canvas.
    positions
        (M,) position in the track of every frame that was written.
    files
        SHA-256 of every file.
    manifest
        Everything else that was kept.
    central
        The refitted cameras of canvas full.

    """

    track: Track
    canvas_from_image: PixelAffine
    canvas_from_crop: PixelAffine
    positions: NDArray[np.int64]
    files: dict[str, str]
    manifest: dict[str, Any]
    central: CentralCameras | None = None

    @classmethod
    def read(cls, out: Path, target: str) -> Reference:
        """Read uncrop.json and the track's record beside it; raises UncropError."""
        manifest = read_manifest(out, target)
        track = read_bundle(out / RECORD)
        try:
            canvas = manifest["canvas"]
            track = track.in_source() if canvas["base"] == "source" else track.in_crop()
            return cls(
                track,
                PixelAffine(*canvas["canvas_from_image"]),
                PixelAffine(*canvas["canvas_from_crop"]),
                np.array(manifest["track_positions"], np.int64),
                {str(k): str(v) for k, v in manifest["files"].items()},
                manifest,
                _refitted(track, out) if canvas["kind"] == "full" else None,
            )
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise FormatError(out / "uncrop.json", "canvas, track_positions, files",
                              f"{type(error).__name__} {error}") from None  # fmt: skip

    def project(self, position: int, vertices: Floats) -> Floats:
        """Edge-origin canvas px of world points (V, 3), metres, through the track's own camera."""
        return self.canvas_from_image[position](self.track.project(position, vertices))

    def project_written(self, position: int, vertices: Floats) -> Floats:
        """Project likewise, through the camera that was written: canvas full has another."""
        if self.central is None:
            return self.project(position, vertices)
        return self.central.intrinsics.project(self.central.w2c[position](vertices))


def _refitted(track: Track, out: Path) -> CentralCameras:
    if track.central is None:
        raise FormatError(out / RECORD, "the central cameras of canvas full", "none")
    return track.central


def check_files(out: Path, reference: Reference, is_core: Callable[[str], bool]) -> list[Finding]:
    """Hold every file against its hash; a change of a core file is an error, else a warning."""
    findings = []
    for name, digest in reference.files.items():
        path = out / name
        if not path.is_file():
            findings.append(Finding("file-missing", "error", str(path), "was written and is gone."))
        elif sha256_of(path) != digest:
            severe = is_core(name) or name == RECORD
            findings.append(
                Finding("file-changed", "error" if severe else "warning", str(path),
                        "differs from what was written.")
            )  # fmt: skip
    return findings
