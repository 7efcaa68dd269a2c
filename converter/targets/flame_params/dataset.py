"""Writing the dataset, proving it, and only then giving it its name."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from shlex import quote
from typing import Any

import numpy as np
from numpy.typing import NDArray

from converter.dataset.canvas import Canvas, choose_canvas
from converter.dataset.images import draw_images
from converter.dataset.landmarks import require_landmarks, settle_landmarks
from converter.dataset.matte import Matte, missing_mattes
from converter.dataset.options import CanvasOptions, ViewOptions
from converter.dataset.proof import proof_sheet, require_aligned
from converter.dataset.record import common_facts, write_record
from converter.dataset.view import (
    choose_view,
    head_points,
    meshes_for_proof,
    one_intrinsics,
    view_facts,
)
from converter.errors import TargetError
from converter.findings import Finding, counted
from converter.geometry.intrinsics import Intrinsics
from converter.geometry.pixels import Floats
from converter.geometry.pose import (
    OPENCV_FROM_OPENGL,
    Pose,
    matrix_from_rotation_6d,
    rotation_vector_from_matrix,
)
from converter.media.images import encode_image, read_image
from converter.media.manifest import DatasetFolder, to_json
from converter.registry import Progress, Written
from converter.targets.flame_params import Options
from converter.targets.flame_params.check import FACTOR, load_dataset
from converter.track import Image, Track

_N_SHAPE, _N_EXPRESSION = 100, 50
_MAX_GAP = 5
_HELD_OUT = 350
_DEFAULT_SIDE = 512
_EYELIDS_NOTICED = 0.05


@dataclass(frozen=True, slots=True)
class Plan:
    """What will be written: the track, its images, one K, landmarks (M, 68, 2), the mattes."""

    track: Track
    canvas: Canvas
    intrinsics: Intrinsics
    positions: NDArray[np.int64]
    landmarks: Floats
    matte: Matte | None
    findings: tuple[Finding, ...]

    @property
    def numbers(self) -> list[int]:
        """Name of every image."""
        return [int(i) for i in self.track.frame_ids[self.positions]]


def make_plan(track: Track, options: Options) -> Plan:
    """Decide everything; raises TargetError or MissingInputError before anything is written."""
    if track.flame.shape is None or track.flame.expression is None:
        raise TargetError(
            track.name, "FLAME shape and expression; the avatar is driven by them", "none",
            "Track with a FLAME tracker.",
        )  # fmt: skip
    landmarks = require_landmarks(track)
    canvas, findings = _images_of(track, options)
    k = one_intrinsics(canvas)
    if k is None:
        raise TargetError(track.name, "one K for all frames", "K that differs between frames")
    times = np.arange(len(track)) / track.fps if track.times is None else track.times
    positions, filled, more = settle_landmarks(landmarks, times, _MAX_GAP, f"{track.name}: kpt")
    matte = Matte.given(options.matte, options.matte_names, track, canvas)
    findings += more + _doubts(track, len(positions), matte, options)
    landmarks = canvas.from_crop(positions, filled)
    return Plan(canvas.kept(track), canvas, k, positions, landmarks, matte, tuple(findings))


def _images_of(track: Track, options: Options) -> tuple[Canvas, list[Finding]]:
    """The crops; a canvas where these are not square or K varies, which one file cannot hold."""
    source = options.space == "source"
    canvas, findings = choose_view(
        track,
        ViewOptions("source" if source else "crop", None if source else _side(track, options)),
    )
    square = canvas.size.width == canvas.size.height
    if one_intrinsics(canvas) is not None and (square or source):
        return canvas, findings
    side = options.size or _DEFAULT_SIDE
    canvas, more = choose_canvas(track, CanvasOptions(canvas="crop", size=str(side)))
    why = "its images are not square" if not square else "K differs between frames"
    findings += more
    findings.append(
        Finding("canvas-chosen", "warning", track.name, f"{why}, which flame_params.json cannot "
                f"hold; every image is scaled and shifted onto a {canvas.title} canvas, exactly.")
    )  # fmt: skip
    return canvas, findings


def _side(track: Track, options: Options) -> int | None:
    """--size, where the crops are square: else it is the canvas'."""
    size = track.in_crop().intrinsics.size
    return options.size if size.width == size.height else None


def _doubts(track: Track, n_frames: int, matte: Matte | None, options: Options) -> list[Finding]:
    """What the format cannot hold, and what will train badly."""
    findings = []
    flame = track.flame
    for name, block, n_kept in (
        ("shape", flame.shape, _N_SHAPE), ("expression", flame.expression, _N_EXPRESSION)
    ):  # fmt: skip
        dropped = _dropped(block, n_kept)
        if dropped > 0:
            findings.append(
                Finding("flame-cut", "warning", track.name, f"{name} is cut to {n_kept} "
                        f"coefficients; {dropped:.0%} of its norm is lost.", measured=dropped)
            )  # fmt: skip
    lids = flame.eyelids
    if lids is not None and float(np.abs(lids).max(initial=0.0)) > _EYELIDS_NOTICED:
        closed = int(np.sum(np.abs(lids).max(axis=1) > _EYELIDS_NOTICED))
        findings.append(
            Finding("eyelids-lost", "warning", track.name, "eyelid weights have no place in this "
                    f"format; blinks in {closed} of {len(track)} frames are lost.")
        )  # fmt: skip
    if matte is None:
        findings.append(
            Finding("matte-missing", "warning", track.name, "no --matte: masks are white; the "
                    "trainer takes the room for head.", fix="Give --matte DIR.")
        )  # fmt: skip
    if options.flavour == "splattingavatar" and n_frames <= _HELD_OUT:
        findings.append(
            Finding("frames-few", "warning", track.name, f"{counted(n_frames, 'frame')}: "
                    f"SplattingAvatar holds out the last {_HELD_OUT} by default and trains on "
                    "none.",
                    fix="Set its num_for_train.")
        )  # fmt: skip
    return findings


def _dropped(block: Floats | None, n_kept: int) -> float:
    """Share of the norm that lies beyond the first coefficients."""
    if block is None or block.shape[-1] <= n_kept:
        return 0.0
    norm = float(np.linalg.norm(block))
    return float(np.linalg.norm(block[..., n_kept:])) / norm if norm > 0 else 0.0


def write_files(
    plan: Plan, dataset: DatasetFolder, options: Options, progress: Progress
) -> tuple[str, ...]:
    """Write every file but the manifest; return lines for the summary."""
    folder = dataset.root
    write_images(plan, dataset, options, progress)
    aligned = require_aligned(
        plan.track, plan.canvas, plan.positions,
        head_points(plan.track, plan.canvas, plan.positions),
        lambda step: read_image(folder / f"image/{plan.numbers[step]}.png"),
    )  # fmt: skip
    write_record(plan.track, dataset)
    dataset.write("flame_params.json", to_json(_content(plan, options)))
    dataset.write("proof.jpg", _proof(plan, folder, options))
    return (_line(plan, options), aligned)


def report(plan: Plan, out: Path, options: Options) -> Written:
    """Say what was written, and what to do next."""
    return Written(
        path=out,
        findings=(*plan.findings, *_path_doubts(out)),
        missing=missing_mattes(plan.matte, "mask/"),
        run_in=", then convert again with --matte DIR",
        next_command=_next_command(plan, out, options),
        facts={"n_frames": len(plan.positions), "size": str(plan.canvas.size)},
    )


def _next_command(plan: Plan, out: Path, options: Options) -> str:
    folder = quote(str(out.absolute()))
    if options.flavour == "splattingavatar":
        return (
            "python train_splatting_avatar.py --config configs/splatting_avatar.yaml "
            f"--dat_dir {folder}"
        )
    # The others find data/datasets/SUBJECT/SUBJECT/SUB_DIR by a file of settings.
    name = quote(plan.track.name)
    conf = "IMavatar_supervised" if options.flavour == "imavatar" else "subject1"
    return (
        f"mkdir -p data/datasets/{name}/{name} && ln -s {folder} data/datasets/{name}/{name}/{name}"
        f" && cd code && python scripts/exp_runner.py --conf confs/{conf}.conf  (with subject, "
        f"train and test folder {name} in it)"
    )


def _path_doubts(out: Path) -> list[Finding]:
    """Their loaders find masks by replacing "image" in the whole path."""
    if "image" not in str(out.absolute()):
        return []
    return [
        Finding("path-image", "warning", str(out), "its path holds the word image, which the "
                "loaders replace by mask to find the masks.", fix="Move it elsewhere.")
    ]  # fmt: skip


def write_images(plan: Plan, dataset: DatasetFolder, options: Options, progress: Progress) -> None:
    """Write image/ and mask/."""
    numbers, size = plan.numbers, plan.canvas.size
    everything = np.full(size.shape, 255, np.uint8)
    encoded = encode_image(everything, ".png")

    def write(step: int, image: Image) -> None:
        mask, data = everything, encoded
        if plan.matte is not None:
            mask = plan.matte.read(int(plan.positions[step]), size)
            data = encode_image(mask, ".png")
        if options.flavour == "splattingavatar":
            image = np.dstack([image, mask])
        dataset.write(f"image/{numbers[step]}.png", encode_image(image, ".png"))
        dataset.write(f"mask/{numbers[step]}.png", data)

    draw_images(plan.canvas, plan.positions, write, progress)


def world_matrices(w2c: Pose, flavour: str) -> Floats:
    """``[S R | 4 S t]`` (N, 3, 4); ``[S R^T | 4 S t]`` for PointAvatar."""
    R = np.swapaxes(w2c.R, -1, -2) if flavour == "pointavatar" else w2c.R
    gl = OPENCV_FROM_OPENGL @ R
    return np.concatenate([gl, FACTOR * (w2c.t @ OPENCV_FROM_OPENGL)[..., None]], axis=-1)


def _content(plan: Plan, options: Options) -> dict[str, Any]:
    k, size, flame = plan.intrinsics, plan.canvas.size, plan.track.flame
    matrices = world_matrices(plan.canvas.w2c[plan.positions], options.flavour)
    poses = _poses(plan)
    extent = np.array([size.width, size.height])
    points = 2 * plan.landmarks / extent - 1
    expression = _cut(flame.expression, len(plan.track), _N_EXPRESSION)
    frames = [
        {
            "file_path": f"./image/{number}",
            "world_mat": matrices[step].tolist(),
            "expression": expression[plan.positions[step]].tolist(),
            "pose": poses[step].tolist(),
            "bbox": [*points[step].min(axis=0).tolist(), *points[step].max(axis=0).tolist()],
            "flame_keypoints": points[step].tolist(),
        }
        for step, number in enumerate(plan.numbers)
    ]
    # IMavatar counts from the middle of the first pixel.
    half = 0.5 if options.flavour == "imavatar" else 0.0
    return {
        "frames": frames,
        "shape_params": _cut(None if flame.shape is None else flame.shape[None], 1, _N_SHAPE)[
            0
        ].tolist(),
        "intrinsics": [
            float(-k.fx / size.width),
            float(k.fy / size.height),
            float((k.cx - half) / size.width),
            float((k.cy - half) / size.height),
        ],
    }


def _cut(block: Floats | None, n_rows: int, n_kept: int) -> Floats:
    """The first coefficients, with zeros where there are fewer."""
    out = np.zeros((n_rows, n_kept))
    if block is not None:
        out[:, : min(n_kept, block.shape[1])] = block[:, :n_kept]
    return out


def _poses(plan: Plan) -> Floats:
    """(M, 15): global and neck 0, jaw, left and right eye as rotation vectors."""
    flame, n = plan.track.flame, len(plan.track)
    pose = np.zeros((n, 15))
    if flame.jaw is not None:
        pose[:, 6:9] = _vectors(flame.jaw)
    if flame.eyes is not None:
        pose[:, 9:12], pose[:, 12:15] = _vectors(flame.eyes[:, :6]), _vectors(flame.eyes[:, 6:])
    kept: Floats = pose[plan.positions]
    return kept


def _vectors(rows: Floats) -> Floats:
    return rotation_vector_from_matrix(matrix_from_rotation_6d(rows))


# --- proof and record -------------------------------------------------------------------------


def _proof(plan: Plan, folder: Path, options: Options) -> bytes:
    loaded = load_dataset(folder, options.flavour)

    def tile(step: int, vertices: Floats) -> tuple[Image, Floats, str]:
        image = read_image(folder / f"image/{loaded.numbers[step]}.png")
        return image, loaded.project(step, vertices), f"image {loaded.numbers[step]}"

    meshes = meshes_for_proof(plan.track)
    return proof_sheet(plan.track, meshes, plan.canvas, plan.positions, plan.landmarks, tile)


def _line(plan: Plan, options: Options) -> str:
    k = plan.intrinsics
    return (
        f"for {options.flavour}: images {plan.canvas.title}, focal {plan.canvas.focal:.2f} px, "
        f"principal point ({k.cx:.2f}, {k.cy:.2f}){plan.canvas.drawn}; "
        f"{counted(len(plan.positions), 'frame')}"
    )


def facts(plan: Plan, options: Options) -> dict[str, Any]:
    """Return what the manifest keeps."""
    return {
        **common_facts(plan.track, plan.positions, options, plan.findings),
        "canvas": view_facts(plan.canvas),
        "flavour": options.flavour,
    }
