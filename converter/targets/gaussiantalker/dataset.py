"""Writing the dataset, proving it, and only then giving it its name."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from shlex import quote
from typing import Any

import numpy as np
from numpy.typing import NDArray

from converter.bundle.write import write_bundle
from converter.errors import TargetError
from converter.geometry.pixels import Floats, PixelAffine, Size
from converter.media.atomic import replace_folder
from converter.media.audio import extract_wav
from converter.media.contact_sheet import ProofFrame, contact_sheet
from converter.media.images import encode_image, read_image, resample
from converter.media.manifest import MANIFEST, DatasetFolder, to_json
from converter.media.parallel import ordered_map
from converter.media.torchfile import write_torch
from converter.registry import Missing, Progress, Written
from converter.targets.gaussiantalker import layers
from converter.targets.gaussiantalker.blink import au_csv
from converter.targets.gaussiantalker.cameras import stored_from_w2c, transform_matrices
from converter.targets.gaussiantalker.check import (
    NAME,
    RECORD,
    LoadedDataset,
    check_dataset,
    load_dataset,
)
from converter.targets.gaussiantalker.landmarks import lms_text
from converter.targets.gaussiantalker.options import Options
from converter.targets.gaussiantalker.plan import Plan
from converter.track import Image

_N_PROOFS = 6
_N_PIXEL_CHECKS = 8
_PIXEL_SHIFT_LIMIT_PX = 0.3


def write_dataset(
    plan: Plan, out: Path, options: Options, *, overwrite: bool, progress: Progress
) -> Written:
    """Write the dataset, whole or not at all.

    Raises
    ------
    TargetError
        If the written dataset does not pass its own check; nothing is left then.
    OutputError
        If ``out`` exists or cannot be written.

    """
    with replace_folder(out, overwrite=overwrite, marker=MANIFEST) as folder:
        dataset = DatasetFolder(folder)
        write_images(plan, dataset, options, progress)
        aligned = _require_aligned(plan, folder)
        write_bundle(plan.track, folder / RECORD, meshes="mean")
        dataset.add(RECORD)
        _write_cameras(plan, dataset, options)
        dataset.write("frames.csv", _frames_csv(plan))
        dataset.write("au.csv", au_csv(plan.blinks.closure, plan.times, options.blink_full))
        if plan.audio_features is not None:
            _write_npy(dataset, "aud_ds.npy", plan.audio_features)
        has_sound = _write_sound(plan, dataset)
        dataset.write("proof.jpg", _proof(plan, folder))
        dataset.finish(NAME, _facts(plan, options))
        summary = _require_proof(folder, out)
    return Written(
        path=out,
        summary=tuple(line for line in (_canvas_line(plan), aligned, *summary) if line),
        findings=plan.findings,
        missing=tuple(_missing(plan, out, has_sound)),
        run_in=", to be made in a clone of GaussianTalker (the .mp4 named there need not exist)",
        next_command=f"python train.py -s {quote(str(out.absolute()))} "
        f"--model_path output/{plan.track.name} --configs arguments/64_dim_1_transformer.py",
        facts={"n_frames": len(plan.positions), "size": str(plan.canvas.size),
               "focal_px": plan.canvas.focal, "canvas": plan.canvas.kind},
    )  # fmt: skip


# --- images -----------------------------------------------------------------------------------


def write_images(plan: Plan, dataset: DatasetFolder, options: Options, progress: Progress) -> None:
    """Write every per-frame file."""
    canvas = plan.canvas
    background = _background(plan, options)
    if background is not None:
        dataset.write("bc.jpg", encode_image(background, ".jpg", options.quality))
    positions = [int(p) for p in plan.positions]

    def work(item: tuple[int, Image]) -> None:
        image_id, frame = item
        position = positions[image_id]
        image = resample(frame, canvas.window.canvas_from_image[position], canvas.size)
        dataset.write(f"ori_imgs/{image_id}.jpg", encode_image(image, ".jpg", options.quality))
        dataset.write(f"ori_imgs/{image_id}.lms", lms_text(plan.landmarks[image_id]))
        if plan.parsing is not None:
            _write_layers(plan, dataset, image_id, image, background, options)

    stream = enumerate(canvas.frames.stream(positions))
    for done, _ in enumerate(ordered_map(work, stream), start=1):
        progress("write images", done, len(positions))


def _require_aligned(plan: Plan, folder: Path) -> str:
    """Hold written images against the tracker's crops; returns a line about it, or ''."""
    shift = _pixel_shift(plan, folder)
    if shift is None:
        return ""
    if shift > _PIXEL_SHIFT_LIMIT_PX:
        raise TargetError(
            plan.track.name,
            "written images that lie on the tracker's crops",
            f"a shift of {shift:.2f} px",
            "bbox.pt, the images and the source frames do not belong together.",
        )
    return f"written pixels lie on the tracker's crops within {shift:.3f} px"


def _write_layers(
    plan: Plan,
    dataset: DatasetFolder,
    image_id: int,
    image: Image,
    background: Image | None,
    options: Options,
) -> None:
    if plan.parsing is None:
        return
    parsing = plan.parsing.read(int(plan.positions[image_id]), plan.canvas.size)
    dataset.write(f"parsing/{image_id}.png", encode_image(parsing, ".png"))
    torso = layers.torso_image(image, parsing)
    dataset.write(f"torso_imgs/{image_id}.png", encode_image(torso, ".png"))
    if background is not None:
        truth = layers.ground_truth_image(image, parsing, background)
        dataset.write(f"gt_imgs/{image_id}.jpg", encode_image(truth, ".jpg", options.quality))


def _background(plan: Plan, options: Options) -> Image | None:
    if options.background is not None:
        return layers.read_background(options.background, plan.track, plan.canvas)
    if plan.parsing is not None:
        return layers.derive_background(plan.track, plan.canvas, plan.parsing)
    return None


def _pixel_shift(plan: Plan, folder: Path) -> float | None:
    """Largest shift, crop px, between written images and the tracker's own crops of the frames.

    The tracker's crop is the picture that its cameras were fitted to, so this proves frame
    numbers, bbox and canvas by content. None where there are no crops to compare with.
    """
    images, face = plan.track.crop_frames, plan.landmarks
    if images is None:
        return None
    picks = np.unique(np.linspace(0, len(plan.positions) - 1, _N_PIXEL_CHECKS).round().astype(int))
    shifts = []
    for image_id in picks:
        position = int(plan.positions[image_id])
        canvas_from_crop = plan.canvas.canvas_from_crop[position]
        written = read_image(folder / "ori_imgs" / f"{image_id}.jpg")
        shift = _shift_between(written, images.read(position), canvas_from_crop, face[image_id])
        if shift is not None:
            shifts.append(shift)
    return max(shifts, default=None)


def _shift_between(
    written: Image, crop: Image, canvas_from_crop: PixelAffine, face: Floats
) -> float | None:
    """Shift around the face, crop px (ECC); None where the face is cut off or has no texture."""
    import cv2

    crop_from_canvas = canvas_from_crop.inverse()
    size = Size.of(crop)
    seen = resample(written, crop_from_canvas, size)
    inner = crop_from_canvas([[0, 0], [written.shape[1], written.shape[0]]])
    points = crop_from_canvas(face)
    margin = 0.5 * np.ptp(points, axis=0)
    limits = (size.width, size.height)
    low = np.ceil(np.maximum(points.min(axis=0) - margin, np.maximum(inner[0], 0))).astype(int)
    high = np.floor(np.minimum(points.max(axis=0) + margin, np.minimum(inner[1], limits)))
    if np.any(high - low < 48):
        return None
    part = np.s_[low[1] : int(high[1]), low[0] : int(high[0])]
    a, b = (cv2.cvtColor(x[part], cv2.COLOR_BGR2GRAY) for x in (seen, crop))
    start = np.eye(2, 3, dtype=np.float32)
    try:
        _, warp = cv2.findTransformECC(a, b, start, cv2.MOTION_TRANSLATION)
    except cv2.error:  # it does not converge: too little texture, or another picture
        return None
    return float(np.hypot(warp[0, 2], warp[1, 2]))


# --- cameras and tables -----------------------------------------------------------------------


def _write_cameras(plan: Plan, dataset: DatasetFolder, options: Options) -> None:
    w2c = plan.track.w2c[plan.positions]
    k = options.units_per_metre
    euler, trans = stored_from_w2c(w2c, k)
    tensors: dict[Any, Any] = {
        "euler": euler,
        "trans": trans,
        # The loader only takes the mean over the first axis; one mesh loads as all of them would.
        "vertices": (k * plan.meshes.mean.astype(np.float64))[None].astype(np.float32),
        "focal": np.array([plan.canvas.focal], np.float32),
    }
    write_torch(dataset.root / "track_params.pt", tensors, stem="track_params", tensors=True)
    dataset.add("track_params.pt")
    matrices = transform_matrices(w2c)
    frames = [
        {
            "img_id": i,
            "aud_id": int(plan.audio_ids[i]),
            "transform_matrix": matrices[i].tolist(),
        }
        for i in range(len(plan.positions))
    ]
    size = plan.canvas.size
    for split, part in (("train", frames[: plan.n_train]), ("val", frames[plan.n_train :])):
        # Whole numbers: with floats the loader resizes bc.jpg to a float size and fails.
        content: dict[str, Any] = {
            "focal_len": plan.canvas.focal,
            "cx": size.width // 2,
            "cy": size.height // 2,
            "w": size.width,
            "h": size.height,
            "frames": part,
        }
        dataset.write(f"transforms_{split}.json", to_json(content))


def _frames_csv(plan: Plan) -> str:
    """Which .frame and which place in the video every img_id is."""
    indices = plan.track.source_indices
    lines = ["img_id,frame_id,source_index,time_s,aud_id,split"]
    for image_id, position in enumerate(plan.positions):
        source = "" if indices is None else int(indices[position])
        split = "train" if image_id < plan.n_train else "val"
        lines.append(
            f"{image_id},{int(plan.track.frame_ids[position]):05d},{source},"
            f"{plan.times[image_id]:.6g},{plan.audio_ids[image_id]},{split}"
        )
    return "\n".join(lines) + "\n"


def _write_npy(dataset: DatasetFolder, name: str, array: NDArray[np.float32]) -> None:
    import io

    buffer = io.BytesIO()
    np.lib.format.write_array(buffer, array, allow_pickle=False)
    dataset.write(name, buffer.getvalue())


def _write_sound(plan: Plan, dataset: DatasetFolder) -> bool:
    """aud.wav from time 0 on (aud_id counts from there), and its parts for both splits."""
    if plan.track.video is None:
        return False
    path = plan.track.video.locate()
    step = 1 / plan.track.fps
    begin, end = float(plan.times[0]), float(plan.times[-1]) + step
    split = float(plan.times[plan.n_train])
    parts = (("aud.wav", 0.0, None), ("aud_train.wav", begin, split), ("aud_novel.wav", split, end))
    for name, start, stop in parts:
        if not extract_wav(path, dataset.root / name, start_s=start, end_s=stop):
            return False
        dataset.add(name)
    return True


# --- proof and record -------------------------------------------------------------------------


def _proof(plan: Plan, folder: Path) -> bytes:
    """Contact sheet of the written images under the cameras as the loader reads them."""
    dataset = load_dataset(folder)
    picks = np.unique(np.linspace(0, len(plan.positions) - 1, _N_PROOFS).round().astype(int))
    canvas = plan.canvas
    title = (
        f"{plan.track.name}  {canvas.kind} {canvas.size}  focal {canvas.focal:.2f} px  "
        "mesh cyan, landmarks red"
    )
    return contact_sheet(
        list(_proof_frames(plan, dataset, folder, picks)), plan.meshes.faces, title
    )


def _proof_frames(
    plan: Plan, dataset: LoadedDataset, folder: Path, picks: NDArray[np.int64]
) -> Iterator[ProofFrame]:
    k = float(np.median(np.linalg.norm(dataset.w2c.t, axis=1)
              / np.linalg.norm(plan.track.w2c.t[plan.positions], axis=1)))  # fmt: skip
    for image_id in picks:
        position = int(plan.positions[image_id])
        vertices = k * plan.meshes.vertices(position).astype(np.float64)
        yield ProofFrame(
            read_image(folder / "ori_imgs" / f"{image_id}.jpg"),
            dataset.project(int(image_id), vertices),
            plan.landmarks[image_id],
            f"img_id {image_id}  frame {int(plan.track.frame_ids[position]):05d}",
        )


def _require_proof(folder: Path, out: Path) -> tuple[str, ...]:
    findings = check_dataset(folder)
    errors = [f for f in findings if f.severity == "error"]
    if errors:
        raise TargetError(
            out, "a dataset that passes its own check",
            f"{len(errors)} errors, first: {str(errors[0]).replace(str(folder), str(out))}",
            "Nothing was written. This is a bug in uncrop; please report it with the track.",
        )  # fmt: skip
    return tuple(f.message for f in findings if f.check == "reprojection")


def _canvas_line(plan: Plan) -> str:
    canvas = plan.canvas
    drawn = "source frames" if canvas.base == "source" else "the tracker's crops"
    return (
        f"canvas {canvas.kind} {canvas.size}, focal {canvas.focal:.2f} px, principal point at the "
        f"centre, from {drawn}; {len(plan.positions)} frames "
        f"({plan.n_train} train, {len(plan.positions) - plan.n_train} val)"
    )


def _facts(plan: Plan, options: Options) -> dict[str, Any]:
    canvas = plan.canvas
    chosen = {k: v.name if isinstance(v, Path) else v for k, v in asdict(options).items()}
    return {
        "track": plan.track.name,
        "canvas": {
            "kind": canvas.kind,
            "base": canvas.base,
            "width": canvas.size.width,
            "height": canvas.size.height,
            "focal_px": canvas.focal,
            "canvas_from_image": _affine_numbers(canvas.window.canvas_from_image),
            "canvas_from_crop": _affine_numbers(canvas.canvas_from_crop),
        },
        "units_per_metre": options.units_per_metre,
        "track_positions": plan.positions.tolist(),
        "frame_ids": plan.track.frame_ids[plan.positions].tolist(),
        "blinks_from": plan.blinks.origin,
        "options": chosen,
        "steps": list(plan.track.provenance.steps),
        "findings": [asdict(f) for f in (*plan.track.findings, *plan.findings)],
    }


def _affine_numbers(affine: PixelAffine) -> list[Any]:
    return [np.asarray(v).tolist() for v in (affine.sx, affine.sy, affine.tx, affine.ty)]


def _missing(plan: Plan, out: Path, has_sound: bool) -> Iterator[Missing]:
    """What GaussianTalker wants and nothing here can derive, in the order in which to make it."""
    folder = quote(str(out.absolute()))
    process = f"python data_utils/process.py {folder}/{plan.track.name}.mp4 --task"
    if plan.audio_features is None:
        sound = f"{folder}/aud.wav"
        if not has_sound:
            video = plan.track.video
            lack = f"{video.name} has no sound track" if video else "there is no video"
            purpose = f"sound ({lack}); time 0 is the first frame of the video"
            yield Missing("aud.wav", purpose, f"ffmpeg -i VIDEO_WITH_SOUND -ar 16000 -ac 1 {sound}")
        yield Missing(
            "aud_ds.npy", "DeepSpeech features of the sound",
            f"python data_utils/deepspeech_features/extract_ds_features.py --input {sound} "
            f"&& mv {folder}/aud.npy {folder}/aud_ds.npy",
        )  # fmt: skip
    if plan.parsing is None:
        yield Missing("parsing/", "face parsing; the loss looks at its head pixels",
                      f"{process} 4")  # fmt: skip
        yield Missing("bc.jpg", "clean background", f"{process} 5")
        yield Missing("torso_imgs/, gt_imgs/", "torso drawn under the head", f"{process} 6")
