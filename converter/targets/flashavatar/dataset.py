"""Writing the folders, proving them, and only then giving them their name."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from shlex import quote
from typing import Any

import numpy as np
from numpy.typing import NDArray

from converter.dataset.canvas import Canvas, choose_canvas, residual_lines
from converter.dataset.doubts import canvas_doubts
from converter.dataset.frame_blocks import frame_contents, neutral_blocks, require_coefficients
from converter.dataset.images import draw_images
from converter.dataset.matte import Matte, missing_mattes
from converter.dataset.proof import proof_sheet, require_aligned
from converter.dataset.record import canvas_facts, common_facts, write_record
from converter.dataset.view import head_points, landmarks_on, meshes_for_proof
from converter.findings import Finding, counted
from converter.geometry.pixels import Floats, Size
from converter.media.images import encode_image, read_image
from converter.media.manifest import DatasetFolder
from converter.media.torchfile import torch_bytes
from converter.registry import Missing, Progress, Written
from converter.targets.flashavatar import Options
from converter.targets.flashavatar.check import (
    checkpoint_folder,
    image_number,
    images_folder,
    load_dataset,
)
from converter.targets.flashavatar.masks import HEAD_ENDING, MOUTH_ENDING, FaceMasks
from converter.track import Flame, Image, Track

_N_SHAPE, _N_EXPRESSION = 300, 100
_THEIR_SIZE = Size(512, 512)
_THEIR_TEST = 500


@dataclass(frozen=True, slots=True)
class Plan:
    """What will be written: the track, its images, the masks, and what is said about them."""

    track: Track
    canvas: Canvas
    positions: NDArray[np.int64]
    matte: Matte | None
    masks: FaceMasks | None
    findings: tuple[Finding, ...]


def make_plan(track: Track, options: Options) -> Plan:
    """Decide everything; raises TargetError or MissingInputError before anything is written."""
    require_coefficients(track, _N_SHAPE, _N_EXPRESSION)
    canvas, findings = choose_canvas(track, options)
    masks = None
    if options.parsing is not None:
        masks = FaceMasks.find(options.parsing, options.parsing_names, track, canvas)
    return Plan(
        track=canvas.kept(track),
        canvas=canvas,
        positions=np.arange(len(track)),
        matte=Matte.given(options.matte, options.matte_names, track, canvas),
        masks=masks,
        findings=(*findings, *canvas_doubts(canvas), *_doubts(track, canvas)),
    )


def _doubts(track: Track, canvas: Canvas) -> list[Finding]:
    """What FlashAvatar will stumble over although every camera is right."""
    findings = neutral_blocks(track)
    size, n = canvas.size, len(track)
    if size != _THEIR_SIZE:
        swapped = "" if size.width == size.height else (
            " img_size in the .frame files is (width, height), as it is read there, not "
            "(height, width), as the tracker writes it."
        )  # fmt: skip
        findings.append(
            Finding("images-not-512", "warning", f"canvas {canvas.title}",
                    f"FlashAvatar loads 512x512 images only.{swapped}",
                    fix="Use --canvas crop, or in its scene/__init__.py make bg_image "
                    f"torch.zeros((3, {size.height}, {size.width})).")
        )  # fmt: skip
    if not np.array_equal(track.frame_ids, np.arange(n)):
        findings.append(
            Finding("frames-renumbered", "warning", track.name,
                    f"it has {counted(n, 'frame')}, {track.frame_ids[0]:05d} to "
                    f"{track.frame_ids[-1]:05d}; FlashAvatar counts files, so they become "
                    "00000, 00001 ... without gaps. frame_ids in uncrop.json has the tracker's "
                    "numbers.")
        )  # fmt: skip
    if n <= _THEIR_TEST:
        findings.append(
            Finding("frames-few", "warning", track.name, f"FlashAvatar keeps the last {_THEIR_TEST}"
                    f" frames for testing: {n} leave it none to train on.",
                    fix="Lower test_num in its scene/__init__.py.")
        )  # fmt: skip
    return findings


def write_files(
    plan: Plan, dataset: DatasetFolder, options: Options, progress: Progress
) -> tuple[str, ...]:
    """Write every file but the manifest; return lines for the summary."""
    folder = dataset.root
    write_images(plan, dataset, options, progress)
    aligned = require_aligned(
        plan.track, plan.canvas, plan.positions,
        head_points(plan.track, plan.canvas, plan.positions),
        lambda step: _read_written(plan, folder, step),
    )  # fmt: skip
    write_record(plan.track, dataset)
    _write_frames(plan, dataset)
    dataset.write("proof.jpg", _proof(plan, folder))
    return (*_lines(plan), aligned)


def report(plan: Plan, out: Path, options: Options) -> Written:
    """Say what was written, and what to do next."""
    return Written(
        path=out,
        findings=plan.findings,
        missing=_missing(plan),
        run_in=", from the video or the tracker's crops (not from imgs/, which is moved), then "
        "convert again with --matte DIR and --parsing DIR",
        next_command=_next_command(plan, out),
        facts={"n_frames": len(plan.positions), "size": str(plan.canvas.size),
               "focal_px": plan.canvas.focal, "canvas": plan.canvas.kind},
    )  # fmt: skip


def write_images(plan: Plan, dataset: DatasetFolder, options: Options, progress: Progress) -> None:
    """Write imgs/, and alpha/ and parsing/ where there is something to make them of."""
    folder, size = images_folder(plan.track.name), plan.canvas.size

    def write(step: int, image: Image) -> None:
        number, position = image_number(step), int(plan.positions[step])
        data = encode_image(image, ".jpg", options.quality)
        dataset.write(f"{folder}/imgs/{number}.jpg", data)
        if plan.matte is not None:
            alpha = encode_image(plan.matte.read(position, size), ".jpg", options.quality)
            dataset.write(f"{folder}/alpha/{number}.jpg", alpha)
        if plan.masks is not None:
            head, mouth = plan.masks.read(position, size)
            for ending, mask in ((HEAD_ENDING, head), (MOUTH_ENDING, mouth)):
                dataset.write(f"{folder}/parsing/{number}{ending}", encode_image(mask, ".png"))

    draw_images(plan.canvas, plan.positions, write, progress)


def _read_written(plan: Plan, folder: Path, step: int) -> Image:
    return read_image(folder / images_folder(plan.track.name) / f"imgs/{image_number(step)}.jpg")


def _write_frames(plan: Plan, dataset: DatasetFolder) -> None:
    """The .frame files, numbered from 0, with the canvas' K and poses."""
    k = plan.canvas.window.intrinsics
    placed = replace(
        plan.track,
        frame_ids=np.arange(len(plan.positions)),
        intrinsics=k,
        w2c=plan.canvas.w2c,
        flame=_whole(plan.track.flame),
    )
    folder = checkpoint_folder(plan.track.name)
    content: Any
    for content in frame_contents(placed):
        # Theirs to read as (width, height); the same for square images.
        content["img_size"] = np.array([k.size.width, k.size.height], np.int64)
        stem = str(content["frame_id"])
        name = f"{folder}/{stem}.frame"
        dataset.write(name, torch_bytes(content, stem=stem, tensors=False, where=name))


def _whole(flame: Flame) -> Flame:
    """As many coefficients as FlashAvatar's network reads; those that are lacking are 0."""

    def padded(block: Floats | None, n: int) -> Floats | None:
        if block is None:
            return None
        return np.pad(block, [(0, 0)] * (block.ndim - 1) + [(0, n - block.shape[-1])])

    return replace(
        flame,
        shape=padded(flame.shape, _N_SHAPE),
        expression=padded(flame.expression, _N_EXPRESSION),
    )


# --- proof and record -------------------------------------------------------------------------


def _proof(plan: Plan, folder: Path) -> bytes:
    loaded = load_dataset(folder, plan.track.name)

    def tile(step: int, vertices: Floats) -> tuple[Image, Floats, str]:
        name = f"imgs/{image_number(step)}"
        return _read_written(plan, folder, step), loaded.project(step, vertices), name

    landmarks = landmarks_on(plan.track, plan.canvas, plan.positions)
    meshes = meshes_for_proof(plan.track)
    return proof_sheet(plan.track, meshes, plan.canvas, plan.positions, landmarks, tile)


def _lines(plan: Plan) -> list[str]:
    canvas = plan.canvas
    return [
        f"canvas {canvas.title}, focal {canvas.focal:.2f} px, principal point at the centre"
        f"{canvas.drawn}; {counted(len(plan.positions), 'frame')}, image 00001 for 00000.frame",
        *residual_lines(canvas),
    ]


def facts(plan: Plan, options: Options) -> dict[str, Any]:
    """Return what the manifest keeps."""
    return {
        **common_facts(plan.track, plan.positions, options, plan.findings),
        "idname": plan.track.name,
        "canvas": canvas_facts(plan.canvas),
    }


def _missing(plan: Plan) -> tuple[Missing, ...]:
    missing = list(missing_mattes(plan.matte, "alpha/"))
    if plan.masks is None:
        missing.append(
            Missing("parsing/", "head with neck, and mouth, from a face parsing",
                    "python test.py  (zllrunning/face-parsing.PyTorch: the PNG of labels it saves)")
        )  # fmt: skip
    return tuple(missing)


def _next_command(plan: Plan, out: Path) -> str:
    folders = " ".join(quote(str(out.absolute() / p)) for p in ("dataset", "metrical-tracker"))
    name = quote(plan.track.name)
    return f"cp -r {folders} FLASHAVATAR && cd FLASHAVATAR && python train.py --idname {name}"
