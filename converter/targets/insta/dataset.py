"""Writing the folder, proving it, and only then giving it its name."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from shlex import quote
from typing import Any

import numpy as np
from numpy.typing import NDArray

from converter.dataset.canvas import Canvas
from converter.dataset.depth import Depth, depth_on
from converter.dataset.frame_blocks import frame_contents
from converter.dataset.images import draw_images
from converter.dataset.matte import missing_mattes
from converter.dataset.parsing import canvas_map, numbered_paths
from converter.dataset.record import write_record
from converter.dataset.scene import (
    Scene,
    make_scene,
    require_scene_aligned,
    scene_facts,
    scene_line,
    scene_proof,
)
from converter.dataset.view import one_intrinsics
from converter.errors import MissingInputError, TargetError
from converter.findings import Finding
from converter.geometry.intrinsics import Intrinsics
from converter.geometry.pixels import Floats, PixelAffine
from converter.media.depth import depth_bytes
from converter.media.images import encode_image, read_image, read_size
from converter.media.manifest import DatasetFolder, to_json
from converter.media.resampling import resample_nearest
from converter.media.torchfile import torch_bytes
from converter.registry import Missing, Progress, Written
from converter.targets.insta import Options
from converter.targets.insta.check import load_dataset
from converter.track import Image, Meshes, Track

_THEIR_TEST = 350
_THEIR_VAL = 20
_N_EXPRESSIONS = 100


@dataclass(frozen=True, slots=True)
class SegMasks:
    """INSTA's face parsing, one PNG per track frame, and how it lies on the canvas."""

    paths: tuple[Path, ...]
    canvas_from_mask: PixelAffine

    def read(self, index: int, canvas: Canvas) -> Image:
        """Parsing of one track frame on the canvas; 0, nothing, outside the picture."""
        image = read_image(self.paths[index])
        return resample_nearest(image, self.canvas_from_mask[index], canvas.size, (0, 0, 0))


@dataclass(frozen=True, slots=True)
class Plan:
    """What will be written: the scene, one K for all, and what each frame carries."""

    scene: Scene
    intrinsics: Intrinsics
    meshes: Meshes
    expression: Floats
    masks: SegMasks | None
    depth: Depth | None
    n_test: int
    findings: tuple[Finding, ...]


def make_plan(track: Track, options: Options) -> Plan:
    """Decide everything; raises TargetError or MissingInputError before anything is written."""
    if track.meshes is None:
        raise MissingInputError(
            track.name, "meshes (output/<name>/mesh/NNNNN.ply); INSTA deforms space by them",
            "none", "Run the tracker with mesh export, or copy its mesh/ folder back.",
        )  # fmt: skip
    if track.flame.expression is None:
        raise MissingInputError(track.name, "FLAME expressions", "none",
                                "INSTA's network reads 16 of them in every frame.")  # fmt: skip
    scene = replace(make_scene(track, options), suffix=".png")
    k = one_intrinsics(scene.canvas)
    if k is None:
        raise TargetError(track.name, "one K for all frames", "a K that differs between frames",
                          "Use --space window, which maps them all to one.")  # fmt: skip
    n_test = _n_test(len(track), options.test)
    depth, doubts = depth_on(track, scene.canvas.canvas_from_crop)
    return Plan(
        scene=scene,
        intrinsics=k,
        meshes=track.meshes,
        expression=track.flame.expression,
        masks=_seg_masks(scene, options),
        depth=depth,
        n_test=n_test,
        findings=(*scene.findings, *doubts, *_doubts(track, n_test, options)),
    )


def _n_test(n: int, asked: int | None) -> int:
    """Test frames: INSTA's 350, or a tenth where that would leave too few to train on."""
    if n < 2:
        raise TargetError("the track", "at least 2 frames, one for each split", f"{n}")
    wanted = asked if asked is not None else min(_THEIR_TEST, max(1, n // 10))
    if not 1 <= wanted < n:
        raise TargetError("--test", f"1 to {n - 1}, so that both splits have frames", f"{wanted}")
    return wanted


def _doubts(track: Track, n_test: int, options: Options) -> list[Finding]:
    findings = [
        Finding("canonical-mean", "info", "canonical.obj", "is the mean of all meshes: the "
                "tracker's own, of a neutral face, is not part of a track.")
    ]  # fmt: skip
    if n_test < _THEIR_TEST and options.test is None:
        findings.append(
            Finding("split-clamped", "info", track.name, f"the last {n_test} of {len(track)} "
                    f"frames are for testing; INSTA's own script takes {_THEIR_TEST}.",
                    fix="--test N changes it.")
        )  # fmt: skip
    if len(track) <= _THEIR_TEST:
        findings.append(
            Finding("frames-few", "warning", track.name, f"GaussianBlendshapes keeps the last "
                    f"{_THEIR_TEST} frames for testing, whatever is written: {len(track)} leave it "
                    "none to train on.")
        )  # fmt: skip
    return findings


def _seg_masks(scene: Scene, options: Options) -> SegMasks | None:
    if options.seg_mask is None:
        return None
    paths = numbered_paths(options.seg_mask, options.matte_names, scene.track)
    affine = canvas_map(read_size(paths[0]), scene.track, scene.canvas, str(paths[0]))
    return SegMasks(paths, affine)


def write_files(
    plan: Plan, dataset: DatasetFolder, options: Options, progress: Progress
) -> tuple[str, ...]:
    """Write every file but the manifest; return lines for the summary."""
    scene, folder = plan.scene, dataset.root
    _write_images(plan, dataset, progress)
    aligned = require_scene_aligned(scene, folder)
    write_record(scene.track, dataset)
    dataset.write("canonical.obj", obj_text(plan.meshes.mean, plan.meshes.faces))
    _write_cameras(plan, dataset)
    dataset.write("proof.jpg", scene_proof(scene, folder, load_dataset(folder).project))
    return (scene_line(scene), aligned)


def report(plan: Plan, out: Path, options: Options) -> Written:
    """Say what was written, and what to do next."""
    return Written(
        path=out,
        findings=plan.findings,
        missing=_missing(plan),
        run_in=", then convert again with --matte DIR and --seg-mask DIR",
        next_command=f"./build/rta --config insta.json --scene {quote(str(out.absolute()))}",
        facts={"n_frames": len(plan.scene.positions), "size": str(plan.scene.canvas.size),
               "n_test": plan.n_test},
    )  # fmt: skip


def facts(plan: Plan, options: Options) -> dict[str, Any]:
    """Return what the manifest keeps."""
    return scene_facts(plan.scene, options)


def _write_images(plan: Plan, dataset: DatasetFolder, progress: Progress) -> None:
    """Images, and everything else that there is one of for each frame."""
    scene, faces = plan.scene, _face_lines(plan.meshes.faces)
    stems = [Path(name).stem for name in scene.names]

    def write(step: int, image: Image) -> None:
        position, stem = int(scene.positions[step]), stems[step]
        alpha = np.full(image.shape[:2], 255, np.uint8)
        if scene.matte is not None:
            alpha = scene.matte.read(position, scene.canvas.size)
        rgba = np.dstack([image, alpha])
        dataset.write(f"images/{stem}.png", encode_image(rgba, ".png"))
        vertices = plan.meshes.vertices(position)
        dataset.write(f"meshes/{stem}.obj", _vertex_lines(vertices) + faces)
        padded = np.zeros(_N_EXPRESSIONS)
        values = plan.expression[position][:_N_EXPRESSIONS]
        padded[: len(values)] = values
        dataset.write(f"flame/exp/{stem}.txt", "".join(f"{v:.8f}\n" for v in padded))
        if plan.masks is not None:
            mask = plan.masks.read(position, scene.canvas)
            dataset.write(f"seg_mask/{stem}.png", encode_image(mask, ".png"))
        if plan.depth is not None:
            depth = plan.depth.read(position, scene.canvas.size)
            dataset.write(f"depth/{stem}.png", depth_bytes(depth))

    draw_images(scene.canvas, scene.positions, write, progress)


def obj_text(vertices: NDArray[np.float32], faces: NDArray[np.int32]) -> str:
    """A Wavefront .obj of vertices (V, 3), metres, and triangles (F, 3)."""
    return _vertex_lines(vertices) + _face_lines(faces)


def _vertex_lines(vertices: NDArray[np.float32]) -> str:
    return ("v {:.8f} {:.8f} {:.8f}\n" * len(vertices)).format(*vertices.ravel().tolist())


def _face_lines(faces: NDArray[np.int32]) -> str:
    return ("f {} {} {}\n" * len(faces)).format(*(faces + 1).ravel().tolist())


def _write_cameras(plan: Plan, dataset: DatasetFolder) -> None:
    scene = plan.scene
    frames = _frames(plan)
    test = frames[-plan.n_test :]
    parts = {
        "transforms": frames,
        "transforms_train": frames[: -plan.n_test],
        "transforms_test": test,
        "transforms_val": test[-_THEIR_VAL:],
    }
    for name, part in parts.items():
        dataset.write(f"{name}.json", to_json({**_shared(plan.intrinsics), "frames": part}))
    placed = replace(scene.track, intrinsics=plan.intrinsics, w2c=scene.canvas.w2c)
    content: Any
    for content in frame_contents(placed):
        stem = str(content["frame_id"])
        name = f"checkpoint/{stem}.frame"
        dataset.write(name, torch_bytes(content, stem=stem, tensors=False, where=name))


def _frames(plan: Plan) -> list[dict[str, Any]]:
    """One entry per frame; ``inv(W)``, OpenCV axes, no flip."""
    scene = plan.scene
    c2w = scene.canvas.w2c[scene.positions].inverse()
    frames = []
    for step, name in enumerate(scene.names):
        stem, matrix = Path(name).stem, np.eye(4)
        matrix[:3, :3], matrix[:3, 3] = c2w.R[step], c2w.t[step]
        frame: dict[str, Any] = {
            "transform_matrix": matrix.tolist(),
            "file_path": f"images/{name}",
            "mesh_path": f"meshes/{stem}.obj",
            "exp_path": f"flame/exp/{stem}.txt",
        }
        if plan.masks is not None:
            frame["seg_mask_path"] = f"seg_mask/{stem}.png"
        if plan.depth is not None:
            frame["depth_path"] = f"depth/{stem}.png"
        frames.append(frame)
    return frames


def _shared(k: Intrinsics) -> dict[str, float]:
    """K under every name that some reader takes it from; all floats."""
    angles = [2 * np.arctan(side / (2 * f))
              for side, f in ((k.size.width, k.fx), (k.size.height, k.fy))]  # fmt: skip
    return {
        "w": float(k.size.width), "h": float(k.size.height),
        "cx": float(k.cx), "cy": float(k.cy), "fl_x": float(k.fx), "fl_y": float(k.fy),
        "camera_angle_x": float(angles[0]), "camera_angle_y": float(angles[1]),
        "x_fov": float(np.degrees(angles[0])), "y_fov": float(np.degrees(angles[1])),
        "integer_depth_scale": 0.001,
    }  # fmt: skip


def _missing(plan: Plan) -> tuple[Missing, ...]:
    missing = list(missing_mattes(plan.scene.matte, "images/ (their alpha)"))
    if plan.masks is None:
        missing.append(
            Missing("seg_mask/", "face parsing; INSTA-pytorch wants it, and INSTA's preprocessing "
                    "takes the clothes away by it",
                    "python face_parsing/test.py  (zllrunning/face-parsing.PyTorch, INSTA's copy)")
        )  # fmt: skip
    if plan.depth is None:
        missing.append(
            Missing("depth/", "depth of the head, 16 bit, mm; INSTA-pytorch wants it, INSTA does "
                    "without",
                    "copy the tracker's depth/ back, or render meshes/N.obj with transforms.json")
        )  # fmt: skip
    return tuple(missing)
