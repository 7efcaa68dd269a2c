"""Writing the dataset, proving it, and only then giving it its name."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from shlex import quote
from typing import Any

import numpy as np
from numpy.typing import NDArray

from converter.dataset.background import derive_background, read_background
from converter.dataset.canvas import residual_lines
from converter.dataset.images import draw_images
from converter.dataset.proof import proof_sheet, require_aligned
from converter.dataset.record import canvas_facts, common_facts, write_record
from converter.dataset.sound import write_sound
from converter.findings import counted
from converter.geometry.pixels import Floats
from converter.media.images import encode_image, read_image
from converter.media.manifest import DatasetFolder, to_json
from converter.media.torchfile import write_torch
from converter.registry import Missing, Progress, Written
from converter.targets.gaussiantalker import layers
from converter.targets.gaussiantalker.blink import au_csv
from converter.targets.gaussiantalker.cameras import stored_from_w2c, transform_matrices
from converter.targets.gaussiantalker.check import load_dataset
from converter.targets.gaussiantalker.landmarks import lms_text
from converter.targets.gaussiantalker.options import Options
from converter.targets.gaussiantalker.plan import Plan
from converter.track import Image

SOUND = "aud.wav"


def write_files(
    plan: Plan, dataset: DatasetFolder, options: Options, progress: Progress
) -> tuple[str, ...]:
    """Write every file but the manifest; return lines for the summary."""
    folder = dataset.root
    write_images(plan, dataset, options, progress)
    aligned = require_aligned(
        plan.track, plan.canvas, plan.positions, plan.landmarks, partial(_read_written, folder)
    )
    write_record(plan.track, dataset)
    _write_cameras(plan, dataset, options)
    dataset.write("frames.csv", _frames_csv(plan))
    dataset.write("au.csv", au_csv(plan.blinks.closure, plan.times, options.blink_full))
    if plan.audio_features is not None:
        _write_npy(dataset, "aud_ds.npy", plan.audio_features)
    _write_sound(plan, dataset)
    dataset.write("proof.jpg", _proof(plan, folder, options))
    return (*_canvas_lines(plan), aligned)


def report(plan: Plan, out: Path, options: Options) -> Written:
    """Say what was written, and what to do next."""
    return Written(
        path=out,
        findings=plan.findings,
        missing=tuple(_missing(plan, out, (out / SOUND).is_file())),
        run_in=", to be made in a clone of GaussianTalker (the .mp4 named there need not exist)",
        next_command=f"python train.py -s {quote(str(out.absolute()))} "
        f"--model_path output/{plan.track.name} --configs arguments/64_dim_1_transformer.py",
        facts={"n_frames": len(plan.positions), "size": str(plan.canvas.size),
               "focal_px": plan.canvas.focal, "canvas": plan.canvas.kind},
    )  # fmt: skip


# --- images -----------------------------------------------------------------------------------


def write_images(plan: Plan, dataset: DatasetFolder, options: Options, progress: Progress) -> None:
    """Write every per-frame file."""
    background = _background(plan, options)
    if background is not None:
        dataset.write("bc.jpg", encode_image(background, ".jpg", options.quality))

    def write(image_id: int, image: Image) -> None:
        dataset.write(f"ori_imgs/{image_id}.jpg", encode_image(image, ".jpg", options.quality))
        dataset.write(f"ori_imgs/{image_id}.lms", lms_text(plan.landmarks[image_id]))
        if plan.parsing is not None:
            _write_layers(plan, dataset, image_id, image, background, options)

    draw_images(plan.canvas, plan.positions, write, progress)


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
        return read_background(options.background, plan.track, plan.canvas)
    if plan.parsing is not None:
        return derive_background(plan.track, plan.canvas, plan.parsing)
    return None


# --- cameras and tables -----------------------------------------------------------------------


def _write_cameras(plan: Plan, dataset: DatasetFolder, options: Options) -> None:
    w2c = plan.canvas.w2c[plan.positions]
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


def _write_sound(plan: Plan, dataset: DatasetFolder) -> None:
    """aud.wav from time 0 on (aud_id counts from there), and its parts for both splits."""
    step = 1 / plan.track.fps
    begin, end = float(plan.times[0]), float(plan.times[-1]) + step
    split = float(plan.times[plan.n_train])
    parts = ((SOUND, 0.0, None), ("aud_train.wav", begin, split), ("aud_novel.wav", split, end))
    write_sound(plan.track, dataset, parts)


# --- proof and record -------------------------------------------------------------------------


def _read_written(folder: Path, image_id: int) -> Image:
    return read_image(folder / "ori_imgs" / f"{image_id}.jpg")


def _proof(plan: Plan, folder: Path, options: Options) -> bytes:
    """Contact sheet of the written images under the cameras as the loader reads them."""
    loaded = load_dataset(folder)

    def tile(image_id: int, vertices: Floats) -> tuple[Image, Floats, str]:
        seen = loaded.project(image_id, options.units_per_metre * vertices)
        return _read_written(folder, image_id), seen, f"img_id {image_id}"

    return proof_sheet(plan.track, plan.meshes, plan.canvas, plan.positions, plan.landmarks, tile)


def _canvas_lines(plan: Plan) -> Iterator[str]:
    canvas = plan.canvas
    yield (
        f"canvas {canvas.title}, focal {canvas.focal:.2f} px, principal point at the "
        f"centre{canvas.drawn}; {counted(len(plan.positions), 'frame')} "
        f"({plan.n_train} train, {len(plan.positions) - plan.n_train} val)"
    )
    yield from residual_lines(canvas)


def facts(plan: Plan, options: Options) -> dict[str, Any]:
    """Return what the manifest keeps."""
    return {
        **common_facts(plan.track, plan.positions, options, plan.findings),
        "canvas": canvas_facts(plan.canvas),
        "units_per_metre": options.units_per_metre,
        "blinks_from": plan.blinks.origin,
    }


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
