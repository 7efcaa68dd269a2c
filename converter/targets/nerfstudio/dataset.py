"""Writing the dataset, proving it, and only then giving it its name."""

from __future__ import annotations

from pathlib import Path
from shlex import quote
from typing import Any

import numpy as np

from converter.dataset.matte import missing_mattes
from converter.dataset.options import SceneOptions
from converter.dataset.record import write_record
from converter.dataset.scene import (
    Scene,
    head_cloud,
    require_scene_aligned,
    scene_facts,
    scene_line,
    scene_proof,
    write_scene_images,
)
from converter.dataset.view import one_intrinsics
from converter.geometry.intrinsics import Intrinsics
from converter.geometry.pose import OPENCV_FROM_OPENGL, Pose
from converter.media.manifest import DatasetFolder, to_json
from converter.media.meshes import point_ply_bytes
from converter.registry import Progress, Written
from converter.targets.nerfstudio.check import load_dataset


def write_files(
    scene: Scene, dataset: DatasetFolder, options: SceneOptions, progress: Progress
) -> tuple[str, ...]:
    """Write every file but the manifest; return lines for the summary."""
    folder = dataset.root
    write_scene_images(scene, dataset, _mask_name, options, progress)
    aligned = require_scene_aligned(scene, folder)
    write_record(scene.track, dataset)
    if scene.track.meshes is not None:
        dataset.write("head.ply", point_ply_bytes(*head_cloud(scene.track)))
    dataset.write("transforms.json", to_json(_content(scene)))
    dataset.write("proof.jpg", scene_proof(scene, folder, load_dataset(folder).project))
    return (scene_line(scene), aligned)


facts = scene_facts
"""What the manifest keeps."""


def report(scene: Scene, out: Path, options: SceneOptions) -> Written:
    """Say what was written, and what to do next."""
    return Written(
        path=out,
        findings=scene.findings,
        missing=missing_mattes(scene.matte, "masks/"),
        run_in=", then convert again with --matte DIR",
        next_command=f"ns-train splatfacto nerfstudio-data --data {quote(str(out.absolute()))} "
        "--center-method none --auto-scale-poses False",
        facts={"n_frames": len(scene.positions), "size": str(scene.canvas.size)},
    )


def _mask_name(name: str) -> str:
    return f"masks/{Path(name).stem}.png"


def _content(scene: Scene) -> dict[str, Any]:
    shared = one_intrinsics(scene.canvas)
    matrices = _camera_to_world(scene.canvas.w2c[scene.positions])
    frames = []
    for step, name in enumerate(scene.names):
        frame: dict[str, Any] = {"file_path": f"images/{name}"}
        if scene.matte is not None:
            frame["mask_path"] = _mask_name(name)
        if shared is None:
            k = scene.canvas.window.intrinsics[int(scene.positions[step])]
            frame.update(_intrinsics(k))
        frame["transform_matrix"] = matrices[step].tolist()
        frames.append(frame)
    content: dict[str, Any] = {"camera_model": "OPENCV", "orientation_override": "none"}
    if shared is not None:
        content.update(_intrinsics(shared))
    if scene.track.meshes is not None:
        content["ply_file_path"] = "head.ply"
    return {**content, "frames": frames}


def _camera_to_world(w2c: Pose) -> Any:
    """OpenGL camera-to-world matrices (N, 4, 4): ``inv(W) diag(1, -1, -1, 1)``."""
    c2w = w2c.change_axes(OPENCV_FROM_OPENGL).inverse()
    out = np.tile(np.eye(4), (len(w2c), 1, 1))
    out[:, :3, :3], out[:, :3, 3] = c2w.R, c2w.t
    return out


def _intrinsics(k: Intrinsics) -> dict[str, float]:
    return {
        "fl_x": float(k.fx),
        "fl_y": float(k.fy),
        "cx": float(k.cx),
        "cy": float(k.cy),
        "w": k.size.width,
        "h": k.size.height,
    }
