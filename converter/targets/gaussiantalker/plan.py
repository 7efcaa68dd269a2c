"""Everything that is decided before the first byte is written."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from converter.dataset.canvas import Canvas, choose_canvas
from converter.dataset.doubts import canvas_doubts, face_doubts
from converter.dataset.landmarks import require_landmarks, settle_landmarks
from converter.dataset.parsing import Parsing
from converter.dataset.stand_in import meshes_or_stand_in, stand_in_findings
from converter.errors import MissingInputError, TargetError
from converter.findings import Finding, counted
from converter.geometry.pixels import Floats
from converter.media.arrays import read_npy
from converter.targets.gaussiantalker.blink import Blinks, find_blinks
from converter.targets.gaussiantalker.options import Options
from converter.track import Meshes, Track

AUDIO_RATE_HZ = 25.0
"""DeepSpeech windows per second, whatever the video's frame rate."""

_MIN_TRAIN, _MIN_SPLIT = 32, 4
_ALL_TRAIN_RENDERED = 1000
_STILL_HEAD_M = 1e-3


@dataclass(frozen=True, slots=True)
class Plan:
    """What will be written.

    Attributes
    ----------
    track
        The whole track.
    canvas
        The images.
    positions
        (M,) kept frames, as positions in the track; img_id is the position in this array.
    landmarks
        (M, 68, 2) edge-origin px of the canvas.
    audio_ids
        (M,) index of each frame's audio window.
    n_train
        The first n_train frames are for training, the rest for validation (process.py:337).
    blinks
        Eye closure of the kept frames.
    meshes
        The track's meshes.
    parsing, audio_features
        When given.
    findings
        What was repaired, left out or doubted.

    """

    track: Track
    canvas: Canvas
    positions: NDArray[np.int64]
    landmarks: Floats
    times: Floats
    audio_ids: NDArray[np.int64]
    n_train: int
    blinks: Blinks
    meshes: Meshes
    parsing: Parsing | None
    audio_features: NDArray[np.float32] | None
    findings: tuple[Finding, ...]


def make_plan(track: Track, options: Options) -> Plan:
    """Decide everything; raises TargetError or MissingInputError before anything is written."""
    meshes, landmarks, times = _require_parts(track)
    canvas, findings = choose_canvas(track, options)
    findings += stand_in_findings(track, meshes)
    max_gap = options.max_gap if options.missing_landmarks == "interpolate" else 0
    positions, filled, more = settle_landmarks(landmarks, times, max_gap, f"{track.name}: kpt")
    findings += more
    on_canvas = canvas.from_crop(positions, filled)
    n_train = len(positions) * 10 // 11
    eyelids = track.flame.eyelids
    blinks = find_blinks(landmarks[positions], None if eyelids is None else eyelids[positions],
                         times[positions])  # fmt: skip
    audio_ids = np.round(AUDIO_RATE_HZ * times[positions]).astype(np.int64)
    features = _audio_features(options.audio_features, audio_ids, findings)
    findings += _doubts(track, canvas, on_canvas, n_train, blinks)
    return Plan(
        track=canvas.kept(track),
        canvas=canvas,
        positions=positions,
        landmarks=on_canvas,
        times=times[positions],
        audio_ids=audio_ids,
        n_train=n_train,
        blinks=blinks,
        meshes=meshes,
        parsing=_parsing(options, track, canvas),
        audio_features=features,
        findings=tuple(findings),
    )


def _require_parts(track: Track) -> tuple[Meshes, Floats, Floats]:
    meshes = meshes_or_stand_in(track)
    if meshes is None:
        raise MissingInputError(
            track.name, "meshes (output/<name>/mesh/NNNNN.ply); GaussianTalker starts from them",
            "none", "Run the tracker with mesh export, or copy its mesh/ folder back.",
        )  # fmt: skip
    if track.times is None:
        raise MissingInputError(
            track.name, "which image belongs to which frame", "nothing that shows it",
            "Give --begin-frames N (the tracker's default is 0), or --actor DIR with its images/.",
        )  # fmt: skip
    return meshes, require_landmarks(track), track.times


def _parsing(options: Options, track: Track, canvas: Canvas) -> Parsing | None:
    if options.parsing is None:
        return None
    return Parsing.find(options.parsing, options.parsing_names, track, canvas)


def _audio_features(
    path: Path | None, audio_ids: NDArray[np.int64], findings: list[Finding]
) -> NDArray[np.float32] | None:
    """Read and check DeepSpeech features; GaussianTalker clamps ids beyond their end."""
    if path is None:
        return None
    array = read_npy(path)
    if array.ndim != 3 or array.shape[1:] != (16, 29) or array.dtype.kind != "f":
        shape = "x".join(map(str, array.shape))
        hint = "44 values a step are wav2vec's; its model cannot take them. " * (
            array.shape[-1:] == (44,)
        )
        raise TargetError(
            path, "Nx16x29 float (DeepSpeech)", f"{shape} {array.dtype}",
            hint + "Make them with data_utils/deepspeech_features/extract_ds_features.py.",
        )  # fmt: skip
    if not np.isfinite(array).all():
        raise TargetError(path, "finite features", "NaN or infinity")
    beyond = int(np.sum(audio_ids >= len(array)))
    if beyond > len(audio_ids) // 20 + 2:
        raise TargetError(
            path, f"features for {int(audio_ids[-1]) + 1} windows (25 a second)",
            f"{len(array)}", "Are they from this video's whole sound track?",
        )  # fmt: skip
    if beyond:
        findings.append(Finding("audio-short", "warning", str(path),
                                "its last window is repeated for "
                                f"{counted(beyond, 'frame')} beyond its end.",
                                measured=float(beyond), unit="frames"))  # fmt: skip
    return array.astype(np.float32)


def _doubts(
    track: Track, canvas: Canvas, landmarks: Floats, n_train: int, blinks: Blinks
) -> list[Finding]:
    """What will train badly although every camera is right."""
    n = len(landmarks)
    if min(n_train, n - n_train) < 1:
        raise TargetError(
            track.name, "at least 2 frames, one for each split", f"{n}",
            "GaussianTalker cannot load an empty split.",
        )  # fmt: skip
    findings = []
    if n_train < _MIN_TRAIN or n - n_train < _MIN_SPLIT:
        findings.append(_doubt(
            "frames-few", track.name,
            f"{n_train} training and {n - n_train} validation frames: GaussianTalker's batches "
            f"need {_MIN_TRAIN} and {_MIN_SPLIT}, and good results minutes of video."))  # fmt: skip
    findings += canvas_doubts(canvas) + face_doubts(canvas, landmarks)
    centres = track.w2c.inverse().t
    reach = float(np.linalg.norm(centres - centres.mean(axis=0), axis=1).max())
    if reach < _STILL_HEAD_M:
        findings.append(_doubt(
            "head-still", track.name,
            f"the head moves by {reach * 1000:.2f} mm only; GaussianTalker scales its learning "
            "rates with that motion."))  # fmt: skip
    if not blinks.closure.any():
        findings.append(_doubt(
            "blinks-none", "au.csv", "no blink was found; AU45 is 0 in every frame.",
            "If the person blinks, make au.csv with OpenFace."))  # fmt: skip
    return findings


def _doubt(check: str, where: str, message: str, fix: str = "") -> Finding:
    return Finding(check, "warning", where, message, fix=fix)
