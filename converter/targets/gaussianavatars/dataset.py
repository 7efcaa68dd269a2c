"""Writing the dataset, proving it, and only then giving it its name."""

from __future__ import annotations

import io
import zipfile
from dataclasses import dataclass
from math import ceil
from pathlib import Path
from shlex import quote
from typing import Any

import numpy as np
from numpy.typing import NDArray

from converter.dataset.canvas import Canvas, choose_canvas, residual_lines
from converter.dataset.doubts import canvas_doubts
from converter.dataset.frame_blocks import require_coefficients
from converter.dataset.images import draw_images
from converter.dataset.matte import Matte, missing_mattes, on_white
from converter.dataset.options import Space, ViewOptions
from converter.dataset.proof import proof_sheet, require_aligned
from converter.dataset.record import common_facts, write_record
from converter.dataset.view import (
    choose_view,
    head_points,
    landmarks_on,
    meshes_for_proof,
    view_facts,
)
from converter.errors import TargetError
from converter.findings import Finding
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
from converter.targets.gaussianavatars import Options
from converter.targets.gaussianavatars.check import load_dataset
from converter.track import Image, Track

N_FLAME_VERTICES = 5143
"""FLAME's 5023 vertices and the 120 of the teeth that GaussianAvatars adds."""

_N_SHAPE, _N_EXPRESSION = 300, 100
_TRAIN_SHARE = 0.7
_EYELIDS_NOTICED = 0.05


@dataclass(frozen=True, slots=True)
class Plan:
    """What will be written: the track, its images, the mattes, and what is said about them."""

    track: Track
    canvas: Canvas
    positions: NDArray[np.int64]
    matte: Matte | None
    findings: tuple[Finding, ...]

    @property
    def n_train(self) -> int:
        """The first frames are for training (VHAP, export_as_nerf_dataset.py)."""
        return ceil(_TRAIN_SHARE * len(self.positions))


def make_plan(track: Track, options: Options) -> Plan:
    """Decide everything; raises TargetError or MissingInputError before anything is written."""
    require_coefficients(track, _N_SHAPE, _N_EXPRESSION)
    if len(track) < 2:
        raise TargetError(track.name, "at least 2 frames, one for each split", f"{len(track)}")
    canvas, findings = _images_of(track, options)
    positions = np.arange(len(track))
    matte = Matte.given(options.matte, options.matte_names, track, canvas)
    findings += _doubts(track, matte)
    return Plan(canvas.kept(track), canvas, positions, matte, tuple(findings))


def _images_of(track: Track, options: Options) -> tuple[Canvas, list[Finding]]:
    if options.flavour == "gaussianavatars" or options.canvas in ("full", "padded", "window"):
        canvas, findings = choose_canvas(track, options)
        return canvas, findings + canvas_doubts(canvas)
    side = options.size
    space: Space = "crop" if options.canvas == "crop" or side is not None else "auto"
    return choose_view(track, ViewOptions(space, None if side is None else int(side)))


def _doubts(track: Track, matte: Matte | None) -> list[Finding]:
    """What the format cannot hold, and what will train badly."""
    findings = [
        Finding("flame-2020", "warning", track.name,
                "its coefficients are FLAME 2020's; GaussianAvatars and VHAP default to FLAME "
                "2023, whose expressions are others.",
                fix="Set FLAME_MODEL_PATH in flame_model/flame.py to flame2020.pkl "
                "(generic_model.pkl).")
    ]  # fmt: skip
    lids = track.flame.eyelids
    if lids is not None and float(np.abs(lids).max(initial=0.0)) > _EYELIDS_NOTICED:
        closed = int(np.sum(np.abs(lids).max(axis=1) > _EYELIDS_NOTICED))
        findings.append(
            Finding("eyelids-lost", "warning", track.name, "eyelid weights have no place in this "
                    f"format; blinks in {closed} of {len(track)} frames are lost.",
                    measured=float(np.abs(lids).max()))
        )  # fmt: skip
    if matte is None:
        findings.append(
            Finding("matte-missing", "warning", track.name, "no --matte: the background stays in "
                    "the images and fg_masks/ are white; the trainer takes the room for head.",
                    fix="Give --matte DIR.")
        )  # fmt: skip
    return findings


def write_files(
    plan: Plan, dataset: DatasetFolder, options: Options, progress: Progress
) -> tuple[str, ...]:
    """Write every file but the manifest; return lines for the summary."""
    folder = dataset.root
    write_images(plan, dataset, progress)
    aligned = "" if plan.matte is not None else require_aligned(
        plan.track, plan.canvas, plan.positions,
        head_points(plan.track, plan.canvas, plan.positions),
        lambda step: read_image(folder / f"images/{step:05d}_00.png"),
    )  # fmt: skip
    write_record(plan.track, dataset)
    _write_flame(plan, dataset)
    _write_cameras(plan, dataset, options.flavour)
    dataset.write("NOTES.txt", _notes(plan))
    dataset.write("proof.jpg", _proof(plan, folder, options.flavour))
    return (*_lines(plan), aligned)


def report(plan: Plan, out: Path, options: Options) -> Written:
    """Say what was written, and what to do next."""
    return Written(
        path=out,
        findings=plan.findings,
        missing=missing_mattes(plan.matte, "fg_masks/"),
        run_in=", then convert again with --matte DIR",
        next_command=_next_command(out, options),
        facts={"n_frames": len(plan.positions), "size": str(plan.canvas.size),
               "focal_px": plan.canvas.focal, "canvas": plan.canvas.kind},
    )  # fmt: skip


def write_images(plan: Plan, dataset: DatasetFolder, progress: Progress) -> None:
    """Write images/ and fg_masks/."""
    size = plan.canvas.size
    everything = encode_image(np.full(size.shape, 255, np.uint8), ".png")

    def write(step: int, image: Image) -> None:
        mask = everything
        if plan.matte is not None:
            alpha = plan.matte.read(int(plan.positions[step]), size)
            image, mask = on_white(image, alpha), encode_image(alpha, ".png")
        dataset.write(f"images/{step:05d}_00.png", encode_image(image, ".png"))
        dataset.write(f"fg_masks/{step:05d}_00.png", mask)

    draw_images(plan.canvas, plan.positions, write, progress)


# --- FLAME ------------------------------------------------------------------------------------


def _write_flame(plan: Plan, dataset: DatasetFolder) -> None:
    flame, n = plan.track.flame, len(plan.track)
    jaw = np.zeros((n, 3)) if flame.jaw is None else _vectors(flame.jaw)
    eyes = np.zeros((n, 6))
    if flame.eyes is not None:
        eyes = np.concatenate([_vectors(flame.eyes[:, :6]), _vectors(flame.eyes[:, 6:])], axis=1)
    expression = np.zeros((n, _N_EXPRESSION)) if flame.expression is None else flame.expression
    for step, position in enumerate(plan.positions):
        content = _parameters(plan.track, expression[position], jaw[position], eyes[position])
        dataset.write(f"flame_param/{step:05d}.npz", npz_bytes(content))
    neutral = _parameters(plan.track, np.zeros(_N_EXPRESSION), np.array([0.3, 0, 0]), np.zeros(6))
    dataset.write("canonical_flame_param.npz", npz_bytes(neutral))


def _vectors(rows: Floats) -> Floats:
    """Rotation vectors (N, 3) from two rows of each matrix (N, 6)."""
    return rotation_vector_from_matrix(matrix_from_rotation_6d(rows))


def _parameters(
    track: Track, expression: Floats, jaw: Floats, eyes: Floats
) -> dict[str, NDArray[np.float32]]:
    """One timestep: the head rests and the camera moves, as the tracker has it."""
    shape = np.zeros(_N_SHAPE)
    betas = np.zeros(0) if track.flame.shape is None else track.flame.shape
    shape[: len(betas)] = betas
    expr = np.zeros(_N_EXPRESSION)
    expr[: len(expression)] = expression
    content: dict[str, Any] = {
        "translation": np.zeros((1, 3)),
        "rotation": np.zeros((1, 3)),
        "neck_pose": np.zeros((1, 3)),
        "jaw_pose": jaw[None],
        "eyes_pose": eyes[None],
        "shape": shape,
        "expr": expr[None],
        "static_offset": np.zeros((1, N_FLAME_VERTICES, 3)),
    }
    return {name: np.asarray(value, np.float32) for name, value in content.items()}


def npz_bytes(content: dict[str, NDArray[np.float32]]) -> bytes:
    """numpy.savez_compressed with a fixed date: the same content gives the same bytes."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, array in content.items():
            data = io.BytesIO()
            np.lib.format.write_array(data, array, allow_pickle=False)
            info = zipfile.ZipInfo(f"{name}.npy", (1980, 1, 1, 0, 0, 0))
            info.compress_type = zipfile.ZIP_DEFLATED
            archive.writestr(info, data.getvalue())
    return out.getvalue()


# --- cameras ----------------------------------------------------------------------------------


def transform_matrices(w2c: Pose) -> Floats:
    """OpenGL camera-to-world matrices (N, 4, 4), metres: ``inv(W) diag(1, -1, -1, 1)``."""
    c2w = w2c.change_axes(OPENCV_FROM_OPENGL).inverse()
    out = np.tile(np.eye(4), (len(w2c), 1, 1))
    out[:, :3, :3], out[:, :3, 3] = c2w.R, c2w.t
    return out


def _write_cameras(plan: Plan, dataset: DatasetFolder, flavour: str) -> None:
    matrices = transform_matrices(plan.canvas.w2c[plan.positions])
    frames = []
    for step, position in enumerate(plan.positions):
        k = plan.canvas.window.intrinsics[int(position)]
        frames.append({
            "timestep_index": step,
            "timestep_index_original": int(plan.track.frame_ids[position]),
            "timestep_id": f"{step:05d}",
            "camera_index": 0,
            "camera_id": "00",
            **_intrinsics(k, flavour),
            "transform_matrix": matrices[step].tolist(),
            "file_path": f"images/{step:05d}_00.png",
            "fg_mask_path": f"fg_masks/{step:05d}_00.png",
            "flame_param_path": f"flame_param/{step:05d}.npz",
        })  # fmt: skip
    shared = _intrinsics(plan.canvas.window.intrinsics[0], flavour)
    parts = {
        "transforms": frames,
        "transforms_train": frames[: plan.n_train],
        "transforms_val": [],
        "transforms_test": frames[plan.n_train :],
    }
    for name, part in parts.items():
        content = {
            **shared,
            "frames": part,
            "timestep_indices": list(range(len(frames))),
            "camera_indices": [0],
        }
        dataset.write(f"{name}.json", to_json(content))


def _intrinsics(k: Intrinsics, flavour: str) -> dict[str, float]:
    width, height = k.size.width, k.size.height
    return {
        "cx": float(k.cx),
        # VHAP counts the principal point's height from below.
        "cy": float(height - k.cy if flavour == "vhap" else k.cy),
        "fl_x": float(k.fx),
        "fl_y": float(k.fy),
        "h": height,
        "w": width,
        "camera_angle_x": float(2 * np.arctan(width / (2 * k.fx))),
        "camera_angle_y": float(2 * np.arctan(height / (2 * k.fy))),
    }


# --- proof and record -------------------------------------------------------------------------


def _proof(plan: Plan, folder: Path, flavour: str) -> bytes:
    loaded = load_dataset(folder, flavour)

    def tile(step: int, vertices: Floats) -> tuple[Image, Floats, str]:
        image = read_image(folder / loaded.image_paths[step])
        return image, loaded.project(step, vertices), f"timestep {step}"

    landmarks = landmarks_on(plan.track, plan.canvas, plan.positions)
    meshes = meshes_for_proof(plan.track)
    return proof_sheet(plan.track, meshes, plan.canvas, plan.positions, landmarks, tile)


def _lines(plan: Plan) -> list[str]:
    canvas = plan.canvas
    n = len(plan.positions)
    return [
        f"images {canvas.title}, focal {canvas.focal:.2f} px{canvas.drawn}; {n} timesteps "
        f"({plan.n_train} train, {n - plan.n_train} test)",
        *residual_lines(canvas),
    ]


def _notes(plan: Plan) -> str:
    lines = ["Written by uncrop; uncrop.json holds the rest.", ""]
    lines += [f"- {f}" for f in plan.findings]
    lines.append("- The head rests and the camera moves: rotation, neck and translation are 0.")
    return "\n".join(lines) + "\n"


def facts(plan: Plan, options: Options) -> dict[str, Any]:
    """Return what the manifest keeps."""
    return {
        **common_facts(plan.track, plan.positions, options, plan.findings),
        "canvas": view_facts(plan.canvas),
        "flavour": options.flavour,
    }


def _next_command(out: Path, options: Options) -> str:
    if options.flavour == "vhap":
        return ""
    folder = quote(str(out.absolute()))
    return f"python train.py -s {folder} -m output --eval --bind_to_mesh --white_background"
