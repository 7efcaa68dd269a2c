"""Writing the model, proving it, and only then giving it its name."""

from __future__ import annotations

from pathlib import Path
from shlex import quote

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
from converter.dataset.stand_in import stand_in_findings
from converter.dataset.view import meshes_for_proof, one_intrinsics
from converter.findings import Finding
from converter.geometry.intrinsics import Intrinsics
from converter.media.manifest import DatasetFolder
from converter.registry import Progress, Written
from converter.targets.colmap.check import MODEL
from converter.targets.colmap.model import (
    Model,
    binary_files,
    quaternions_from_matrices,
    read_text,
    text_files,
)

_OFF_CENTRE_PX = 0.5


def write_files(
    scene: Scene, dataset: DatasetFolder, options: SceneOptions, progress: Progress
) -> tuple[str, ...]:
    """Write every file but the manifest; return lines for the summary."""
    folder = dataset.root
    write_scene_images(scene, dataset, _mask_name, options, progress)
    aligned = require_scene_aligned(scene, folder)
    write_record(scene.track, dataset)
    model = _model(scene)
    for name, text in text_files(model).items():
        dataset.write(f"{MODEL}/{name}", text)
    for name, data in binary_files(model).items():
        dataset.write(f"{MODEL}/{name}", data)
    dataset.write("proof.jpg", scene_proof(scene, folder, read_text(folder / MODEL).project))
    return (scene_line(scene), aligned)


facts = scene_facts
"""What the manifest keeps."""


def report(scene: Scene, out: Path, options: SceneOptions) -> Written:
    """Say what was written, and what to do next."""
    findings = [*scene.findings, *_off_centre(scene)]
    findings += stand_in_findings(scene.track, meshes_for_proof(scene.track))
    return Written(
        path=out,
        findings=tuple(findings),
        missing=missing_mattes(scene.matte, "masks/"),
        run_in=", then convert again with --matte DIR",
        next_command=f"colmap model_analyzer --path {quote(str(out.absolute() / MODEL))}",
        facts={"n_frames": len(scene.positions), "size": str(scene.canvas.size)},
    )


def _mask_name(name: str) -> str:
    return f"masks/{name}.png"


def _off_centre(scene: Scene) -> list[Finding]:
    """3DGS' reader of this very model takes the image centre for the principal point."""
    k = scene.canvas.window.intrinsics
    off = float(np.max(np.hypot(k.cx - k.size.width / 2, k.cy - k.size.height / 2)))
    if off <= _OFF_CENTRE_PX:
        return []
    return [
        Finding("principal-point", "warning", scene.track.name,
                f"the principal point is {off:.1f} px off the centre. COLMAP honours it; "
                "3D Gaussian Splatting's reader of the same files does not.", off, unit="px",
                fix="For such readers use --space window.")
    ]  # fmt: skip


def _model(scene: Scene) -> Model:
    shared = one_intrinsics(scene.canvas)
    each = scene.canvas.window.intrinsics
    ks: list[Intrinsics] = [shared] if shared is not None else [
        each[int(p)] for p in scene.positions
    ]  # fmt: skip
    w2c = scene.canvas.w2c[scene.positions]
    points, colours = head_cloud(scene.track)
    n = len(scene.positions)
    return Model(
        np.array([[k.fx, k.fy, k.cx, k.cy] for k in ks], np.float64),
        tuple(k.size for k in ks),
        quaternions_from_matrices(w2c.R),
        w2c.t,
        (1,) * n if shared is not None else tuple(range(1, n + 1)),
        tuple(scene.names),
        points.astype(np.float64),
        colours,
    )
