"""``uncrop fit TRACK -o OUT``: the cameras of a track fitted again, with a report."""

from __future__ import annotations

import csv
import dataclasses
import io
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import numpy as np
import tyro

from converter import registry
from converter.bundle.schema import SUFFIXES
from converter.cli.arguments import TrackArguments, parse
from converter.cli.exits import EXIT_USAGE
from converter.cli.report import Reporter
from converter.errors import ConventionError, FormatError, MissingInputError
from converter.media.atomic import replace_file, require_free
from converter.media.manifest import MANIFEST

if TYPE_CHECKING:
    from converter.track import Track
    from fitting.pose.problem import Ears
    from fitting.pose.refit import TrackFit


@dataclasses.dataclass(frozen=True)
class FitArguments(TrackArguments):
    """Fit the cameras of a track again, and write the track with them.

    A K that was rewritten in a known way is repaired on the way. OUT.fit.jpg and OUT.fit.csv say
    what it did to every frame.
    """

    track: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="TRACK")]
    """The tracker's output, checkpoint or actor folder, a parent of both, or a bundle (.h5)."""
    out: Annotated[Path, tyro.conf.arg(aliases=["-o"], metavar="OUT")]
    """What to write: a folder in metrical-tracker's layout, or a bundle if it ends in .h5 or
    .hdf5."""
    keep_k: bool = False
    """Fit poses only; K stays as it is. The default."""
    shared_focal: bool = False
    """Fit one focal length for the sequence as well, held to K's by --focal-prior."""
    central: bool = False
    """Put the principal point into the crop's centre, with one focal length."""
    smooth: Annotated[str | None, tyro.conf.arg(metavar="auto|SIGMA")] = None
    """Take out jitter: as much as the data show (auto), or as SIGMA px of landmark noise make."""
    using: Literal["auto", "kpt", "dense", "mesh"] = "auto"
    """What to fit to: the 68 landmarks, MediaPipe's dense ones, or the track's own projected mesh,
    which keeps its poses. auto: mesh for --central and --smooth, kpt otherwise."""
    flame: Annotated[Path | None, tyro.conf.arg(metavar="FILE")] = None
    """Your FLAME model (generic_model.pkl, flame2023.pkl or .npz), for tracks without meshes."""
    landmark_embedding: Annotated[tuple[Path, ...], tyro.conf.arg(metavar="FILE")] = ()
    """Where the landmarks are on the mesh (FLAME's static, dynamic or MediaPipe embedding; several
    may be given). Default: found on the track's own meshes."""
    ears: Annotated[Path | None, tyro.conf.arg(metavar="FILE.npz")] = None
    """Vertices left and right (E,), and landmarks (N, E, 2) in px of the crops, of both ears."""
    focal_prior: Annotated[float, tyro.conf.arg(metavar="FRACTION")] = 0.07
    """How far --shared-focal may go from K's focal length: a standard deviation."""
    solver: Literal["lm", "adam"] = "lm"
    """adam: flame-head-tracker's own schedule, to compare with."""
    max_residual: Annotated[float, tyro.conf.arg(metavar="PX")] = 8.0
    """Refuse if the landmarks are farther than this from the head afterwards (median RMS)."""
    overwrite: bool = False
    """Replace an earlier output."""
    dry_run: bool = False
    """Fit and report on the terminal, check OUT, write nothing."""
    quiet: bool = False
    """Print warnings and errors only."""
    json: bool = False
    """Print one JSON object to standard output instead of text."""


def run(arguments: list[str]) -> int:
    """Read, fit, write, report; raises UncropError."""
    command = parse(arguments, "uncrop fit", FitArguments)
    wrong = _misuse(command)
    if wrong:
        print(f"uncrop fit: {wrong}", file=sys.stderr)
        return EXIT_USAGE
    from fitting.pose.refit import require_residual

    with Reporter(quiet=command.quiet, json=command.json) as reporter:
        require_free(command.out, command.overwrite, MANIFEST)
        for path in _reports(command.out):
            require_free(path, command.overwrite)
        source = registry.detect_source(command.track)
        options = command.read_options(hold_intrinsics=False, progress=reporter.progress)
        track = _with_flame(command, source.read(command.track, options))
        reporter.steps(track.provenance.steps)
        reporter.findings(track.findings)
        fit = _fitted(command, track)
        reporter.findings(fit.findings)
        reporter.steps(fit.summary())
        require_residual(fit, command.max_residual)
        if not command.dry_run:
            written = _write(command, fit, reporter)
            reporter.written(written, wrote=True)
    if command.json:
        print(json.dumps(_as_json(command, fit), indent=1))
    return 0


def _misuse(command: FitArguments) -> str:
    chosen = [n for n in ("keep_k", "shared_focal", "central") if getattr(command, n)]
    if len(chosen) > 1:
        names = " and ".join(f"--{n.replace('_', '-')}" for n in chosen)
        return f"{names} exclude each other."
    if command.smooth is not None and _sigma(command.smooth) is None:
        return f"--smooth: expected auto, or a number of px above 0, found {command.smooth!r}."
    if not 0 < command.focal_prior < 1:
        return "--focal-prior: expected a fraction between 0 and 1, like 0.07."
    if not command.max_residual > 0:
        return "--max-residual: expected px above 0."
    if command.solver == "adam" and (command.smooth is not None or _using(command) == "mesh"):
        return "--solver adam fits to landmarks, without --smooth; it is there to compare with."
    return ""


def _sigma(text: str) -> float | Literal["auto"] | None:
    """What --smooth means; None if it means nothing."""
    if text == "auto":
        return "auto"
    try:
        value = float(text)
    except ValueError:
        return None
    return value if np.isfinite(value) and value > 0 else None


def _using(command: FitArguments) -> Literal["kpt", "dense", "mesh"]:
    if command.using != "auto":
        return command.using
    same_poses = (command.central or command.smooth is not None) and not command.shared_focal
    return "mesh" if same_poses and command.solver == "lm" else "kpt"


def _with_flame(command: FitArguments, track: Track) -> Track:
    """Make meshes of the coefficients where a track has none."""
    if command.flame is None:
        return track
    from fitting.flame import FlameMeshes, read_flame

    model = read_flame(command.flame)
    if track.meshes is not None:
        n, own = len(track.meshes.mean), len(model.template)
        if n != own:
            raise ConventionError(
                f"{track.name}: meshes", f"{own} vertices, as {command.flame.name} has", f"{n}",
                "Leave --flame out: the track's own meshes are used.",
            )  # fmt: skip
        return track
    meshes = FlameMeshes(model, track.flame, len(track))
    return dataclasses.replace(track, meshes=meshes)


def _fitted(command: FitArguments, track: Track) -> TrackFit:
    from fitting.flame import read_embedding
    from fitting.pose.refit import refit_track

    embedding = None
    if command.landmark_embedding:
        if track.meshes is None:
            raise MissingInputError(
                track.name, "meshes that the embedding speaks of", "none",
                "With --flame FILE they are made from the track's coefficients.",
            )  # fmt: skip
        embedding = read_embedding(command.landmark_embedding, track.meshes.faces)
    return refit_track(
        track,
        embedding=embedding,
        ears=None if command.ears is None else _ears(command.ears, track),
        using=_using(command),
        intrinsics=("shared" if command.shared_focal else "central" if command.central else "keep"),
        smooth=None if command.smooth is None else _sigma(command.smooth),
        solver=command.solver,
        focal_prior=command.focal_prior,
    )


def _ears(path: Path, track: Track) -> Ears:
    """Points of both ears by the user's table of vertices, and their landmarks."""
    from converter.media.arrays import read_npz
    from fitting.pose.problem import Ears

    found = read_npz(path, only=("left", "right", "landmarks"))
    missing = [n for n in ("left", "right", "landmarks") if n not in found]
    if missing or track.meshes is None:
        raise FormatError(
            path, "arrays left, right and landmarks, and a track with meshes",
            f"no {' and '.join(missing) or 'meshes'}",
        )  # fmt: skip
    n = len(track.meshes.mean)
    for name in ("left", "right"):
        table = found[name]
        fits = table.ndim == 1 and table.size and table.dtype.kind in "iu"
        if not fits or table.min() < 0 or table.max() >= n:
            raise ConventionError(
                f"{path}: {name}", f"vertex numbers (E,) from 0 to {n - 1}",
                f"{table.dtype} {table.shape}",
            )  # fmt: skip
    sides = [
        np.stack([track.meshes.vertices(i)[found[name].astype(np.int64)]
                  for i in range(len(track))]).astype(np.float64)
        for name in ("left", "right")
    ]  # fmt: skip
    return Ears(sides[0], sides[1], found["landmarks"].astype(np.float64))


def _is_bundle(out: Path) -> bool:
    return out.suffix.lower() in SUFFIXES


def _reports(out: Path) -> tuple[Path, Path]:
    """The picture and the table, beside the output."""
    stem = out.with_suffix("") if _is_bundle(out) else out
    return stem.with_name(f"{stem.name}.fit.jpg"), stem.with_name(f"{stem.name}.fit.csv")


def _write(command: FitArguments, fit: TrackFit, reporter: Reporter) -> registry.Written:
    from fitting.pose.picture import fit_picture

    target = "bundle" if _is_bundle(command.out) else "metrical_tracker"
    picture, table = _reports(command.out)
    drawn, rows = fit_picture(fit), _table(fit)
    written = registry.write_track(
        fit.track, target, command.out, overwrite=command.overwrite, progress=reporter.progress
    )
    with replace_file(picture, command.overwrite) as path:
        path.write_bytes(drawn)
    with replace_file(table, command.overwrite) as path:
        path.write_text(rows, encoding="utf-8", newline="")
    return dataclasses.replace(
        written, summary=(*written.summary, f"report: {picture} and {table.name}")
    )


def _table(fit: TrackFit) -> str:
    """One line per frame."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(
        ["frame", "rms_before_px", "rms_after_px", "turned_deg", "moved_mm", "std_rotation_deg",
         "std_depth_percent", "fitted", "iterations", "stopped"]
    )  # fmt: skip
    std = fit.fit.std
    for i, frame in enumerate(fit.track.frame_ids.tolist()):
        numbers = (fit.before_px[i], fit.after_px[i], fit.turned_deg[i], 1000 * fit.moved_m[i],
                   std.rotation_deg[i], 100 * std.depth[i])  # fmt: skip
        texts = [f"{x:.4f}" if np.isfinite(x) else "" for x in numbers]
        writer.writerow(
            [f"{frame:05d}", *texts, int(fit.fitted[i]), int(fit.fit.iterations[i]),
             fit.fit.stop_reasons[i]]
        )  # fmt: skip
    return out.getvalue()


def _as_json(command: FitArguments, fit: TrackFit) -> dict[str, Any]:
    k = fit.after.intrinsics
    jitter = fit.jitter_deg
    return {
        "ok": True,
        "out": None if command.dry_run else str(command.out),
        "fitted_to": fit.pairs.what,
        "n_frames": len(fit.track),
        "n_fitted": int(fit.fitted.sum()),
        "rms_before_px": _number(np.sqrt(np.nanmean(fit.before_px**2))),
        "rms_after_px": _number(np.sqrt(np.nanmean(fit.after_px**2))),
        "noise_px": _number(fit.fit.std.noise_px),
        "jitter_before_deg": None if jitter is None else jitter[0],
        "jitter_after_deg": None if jitter is None else jitter[1],
        "turned_deg_median": _number(np.median(fit.turned_deg)),
        "moved_mm_median": _number(1000 * np.median(fit.moved_m)),
        "crop_focal_px": _number(np.mean(k.fx)),
        "crop_principal_point_px": [_number(np.mean(k.cx)), _number(np.mean(k.cy))],
        "findings": [dataclasses.asdict(f) for f in fit.track.findings],
    }


def _number(value: Any) -> float | None:
    """JSON has no NaN."""
    return float(value) if np.isfinite(value) else None
