"""A track as a static scene: images, mattes and points for tools that know nothing of heads.

The head rests and the camera moves round it, so whatever does not move with the head (the room, the
shoulders) contradicts the cameras: it has to be masked.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from converter.dataset.canvas import Canvas
from converter.dataset.images import draw_images
from converter.dataset.matte import Matte
from converter.dataset.options import SceneOptions
from converter.dataset.proof import proof_sheet, require_aligned
from converter.dataset.record import Reference, common_facts
from converter.dataset.reprojection import compare_mean_mesh
from converter.dataset.view import (
    choose_view,
    head_points,
    landmarks_on,
    meshes_for_proof,
    view_facts,
)
from converter.errors import UncropError
from converter.findings import Finding, counted
from converter.geometry.pixels import Floats, Size
from converter.media.images import encode_image, read_image, read_size
from converter.media.manifest import DatasetFolder
from converter.registry import Progress
from converter.track import Image, Track


@dataclass(frozen=True, slots=True)
class Scene:
    """What will be written.

    Attributes
    ----------
    track, canvas
        The track and its images.
    positions
        (M,) position in the track of every image.
    matte
        When given.
    findings
        What was doubtful.
    suffix
        Ending of the images' names.

    """

    track: Track
    canvas: Canvas
    positions: NDArray[np.int64]
    matte: Matte | None
    findings: tuple[Finding, ...]
    suffix: str = ".jpg"

    @property
    def names(self) -> list[str]:
        """Name of every image: the tracker's frame number."""
        return [f"{int(i):05d}{self.suffix}" for i in self.track.frame_ids[self.positions]]


def make_scene(track: Track, options: SceneOptions) -> Scene:
    """Decide everything; raises TargetError or MissingInputError before anything is written."""
    canvas, findings = choose_view(track, options)
    matte = Matte.given(options.matte, options.matte_names, track, canvas)
    if matte is None:
        findings.append(
            Finding("matte-missing", "warning", track.name, "the head rests and the camera moves "
                    "in this format; without --matte the room and the shoulders contradict it.",
                    fix="Give --matte DIR.")
        )  # fmt: skip
    return Scene(canvas.kept(track), canvas, np.arange(len(track)), matte, tuple(findings))


def write_scene_images(
    scene: Scene,
    dataset: DatasetFolder,
    mask_name: Callable[[str], str],
    options: SceneOptions,
    progress: Progress,
) -> None:
    """Write images/NAME, and the mask of each where there are mattes."""
    names, size = scene.names, scene.canvas.size

    def write(step: int, image: Image) -> None:
        data = encode_image(image, ".jpg", options.quality)
        dataset.write(f"images/{names[step]}", data)
        if scene.matte is not None:
            mask = scene.matte.read(int(scene.positions[step]), size)
            dataset.write(mask_name(names[step]), encode_image(mask, ".png"))

    draw_images(scene.canvas, scene.positions, write, progress)


def require_scene_aligned(scene: Scene, folder: Path) -> str:
    """Hold written images against the tracker's crops; see `proof.require_aligned`."""
    points = head_points(scene.track, scene.canvas, scene.positions)
    return require_aligned(
        scene.track, scene.canvas, scene.positions, points,
        lambda step: read_image(folder / "images" / scene.names[step]),
    )  # fmt: skip


def scene_proof(scene: Scene, folder: Path, project: Callable[[int, Floats], Floats]) -> bytes:
    """Picture of the mesh on written images; ``project(step, points)`` as the consumer does."""

    def tile(step: int, vertices: Floats) -> tuple[Image, Floats, str]:
        image = read_image(folder / "images" / scene.names[step])
        return image, project(step, vertices), scene.names[step]

    landmarks = landmarks_on(scene.track, scene.canvas, scene.positions)
    meshes = meshes_for_proof(scene.track)
    return proof_sheet(scene.track, meshes, scene.canvas, scene.positions, landmarks, tile)


def scene_line(scene: Scene) -> str:
    """One line for the summary."""
    canvas = scene.canvas
    k = canvas.window.intrinsics
    varies = " (medians; K differs between frames)" if k.n_frames is not None else ""
    return (
        f"images {canvas.title}, focal {canvas.focal:.2f} px, principal point "
        f"({np.median(k.cx):.2f}, {np.median(k.cy):.2f}){varies}{canvas.drawn}; "
        f"{counted(len(scene.positions), 'frame')}"
    )


def scene_facts(scene: Scene, options: SceneOptions) -> dict[str, Any]:
    """What the manifest keeps."""
    return {
        **common_facts(scene.track, scene.positions, options, scene.findings),
        "canvas": view_facts(scene.canvas),
    }


def head_cloud(track: Track) -> tuple[NDArray[np.float32], NDArray[np.uint8]]:
    """Points (V, 3) of the mean mesh, metres, and a colour (V, 3) of skin for each."""
    points = meshes_for_proof(track).mean
    return points, np.tile(np.array([200, 170, 150], np.uint8), (len(points), 1))


def check_scene(
    out: Path,
    reference: Reference,
    names: list[str],
    project: Callable[[int, Floats], Floats],
    suffix: str = ".jpg",
) -> list[Finding]:
    """Hold what a consumer reads against the track.

    Parameters
    ----------
    out, reference
        The dataset, and what it should say.
    names
        Image names as read, in order.
    project
        ``project(step, points)``: edge-origin px of world points (P, 3), metres.
    suffix
        Ending of the names.

    """
    expected = [f"{int(i):05d}{suffix}" for i in reference.track.frame_ids[reference.positions]]
    if names != expected:
        return [
            Finding("frames-differ", "error", str(out), f"its images are {', '.join(names[:3])} "
                    f"..., expected {', '.join(expected[:3])} ...")
        ]  # fmt: skip
    numbers = [int(i) for i in reference.track.frame_ids[reference.positions]]
    return compare_mean_mesh(reference, project, what="frame", names=numbers)


def check_sizes(out: Path, sizes: dict[str, Size]) -> list[Finding]:
    """Hold every image against the size that its camera states."""
    findings = []
    for name, stated in sizes.items():
        path = out / "images" / name
        try:
            size = read_size(path)
        except UncropError as error:
            findings.append(Finding.of_error("image-unreadable", error))
            continue
        if size != stated:
            message = f"is {size}, its camera says {stated}."
            findings.append(Finding("image-size", "error", str(path), message))
    return findings
