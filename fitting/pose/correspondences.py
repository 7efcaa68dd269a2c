"""Pairs of head points and where they are seen, from whatever a track holds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal, TypeAlias

import numpy as np

from converter.errors import ConventionError, MissingInputError
from converter.geometry import Pose
from converter.geometry.pixels import Floats
from converter.track import Meshes, Track
from fitting.pose.embedding import Embedding, FoundEmbedding, find_embedding, turned_deg
from fitting.pose.problem import IBUG_68, Group, Ints

Using: TypeAlias = Literal["kpt", "dense", "mesh"]

N_DENSE = 478
"""Points of MediaPipe's face mesh, irises included."""

_MESH_POINTS = 500


@dataclass(frozen=True, slots=True, eq=False)
class Correspondences:
    """What a fit is fed with.

    Attributes
    ----------
    what
        For people: which points, and how it is known where on the head they are.
    points
        (N, P, 3) head points, world space, metres.
    landmarks
        (N, P, 2) edge-origin px of the track's image; NaN where not seen.
    groups
        Terms of the objective; None: all alike.
    exact
        Whether the landmarks are projections, without a detector's noise.

    """

    what: str
    points: Floats
    landmarks: Floats
    groups: tuple[Group, ...] | None
    exact: bool = False

    def distances(self, track: Track) -> Floats:
        """(N, P) px between projected points and landmarks under the track's cameras."""
        there = track.intrinsics.project(track.w2c(self.points))
        apart: Floats = np.linalg.norm(there - self.landmarks, axis=-1)
        return apart


def correspondences(
    track: Track, using: Using, embedding: Embedding | FoundEmbedding | None = None
) -> Correspondences:
    """Pair head points with what was seen of them.

    Parameters
    ----------
    track
        K of the crop (`Track.in_crop`), meshes, and the landmarks asked for.
    using
        ``"kpt"``: the 68 landmarks; ``"dense"``: MediaPipe's; ``"mesh"``: the projections of the
        track's own vertices, which is the same picture and no measurement.
    embedding
        Where on the meshes the landmarks are. None: for ``"kpt"`` it is found on the track; for
        ``"dense"`` the meshes have to be MediaPipe's own.

    Raises
    ------
    MissingInputError
        If the track lacks meshes or landmarks.
    ConventionError
        If the embedding does not fit the meshes or the landmarks.

    """
    if using == "mesh":
        return _from_mesh(track)
    seen = track.landmarks if using == "kpt" else track.dense_landmarks
    if seen is None or track.meshes is None:
        what = "meshes" if track.meshes is None else _LANDMARKS[using]
        remedies = {
            "meshes": "With --flame FILE they are made from the track's coefficients.",
            "landmarks": "uncrop landmarks TRACK detects them; --using mesh does without.",
        }
        raise MissingInputError(
            track.name, f"{what} to fit cameras to", "none", remedies.get(what, "")
        )
    n_vertices = len(track.meshes.mean)
    if embedding is None and using == "dense":
        if n_vertices not in (N_DENSE, N_DENSE - 10):  # without irises
            raise MissingInputError(
                track.name,
                "--landmark-embedding, to know where on the meshes MediaPipe's points are",
                f"none, and meshes of {n_vertices} vertices",
            )
        what = f"{n_vertices} dense landmarks, each on its vertex"
        return Correspondences(what, _vertices(track.meshes), seen[:, :n_vertices], None)
    located = find_embedding(track) if embedding is None else embedding
    origin = "by the given embedding"
    if isinstance(located, FoundEmbedding):
        origin = f"found on the meshes ({located.residual_px:.2f} px median in held-out frames)"
        located = located.embedding
    located.require_mesh(track.name, n_vertices)
    if located.columns.max(initial=0) >= seen.shape[1]:
        raise ConventionError(
            f"{track.name}: embedding", f"landmarks below {seen.shape[1]}",
            f"{located.columns.max()}", "Does it belong to the other detector?",
        )  # fmt: skip
    what = f"{located.n_landmarks} {_LANDMARKS[using]} {origin}"
    groups = _named(IBUG_68, located.columns) if using == "kpt" else None
    points = _embedded(track.meshes, track.w2c, located)
    return Correspondences(what, points, seen[:, located.columns], groups)


_LANDMARKS = {"kpt": "landmarks", "dense": "dense landmarks"}


def _named(groups: Sequence[Group], columns: Ints) -> tuple[Group, ...]:
    """The groups, with landmarks replaced by their positions among ``columns``."""
    at = {landmark: position for position, landmark in enumerate(columns.tolist())}
    kept = [replace(g, indices=tuple(at[i] for i in g.indices if i in at)) for g in groups]
    return tuple(g for g in kept if g.indices)


def _embedded(meshes: Meshes, w2c: Pose, embedding: Embedding) -> Floats:
    yaw = turned_deg(w2c.R)
    return np.stack(
        [
            embedding.points(meshes.vertices(i).astype(np.float64), float(yaw[i]))
            for i in range(len(meshes))
        ]
    )


def _vertices(meshes: Meshes, chosen: Ints | slice = slice(None)) -> Floats:
    return np.stack([meshes.vertices(i)[chosen] for i in range(len(meshes))]).astype(np.float64)


def _from_mesh(track: Track) -> Correspondences:
    if track.meshes is None:
        raise MissingInputError(
            track.name, "meshes to refit the pose to", "none", "Fit with --using kpt."
        )
    points = _vertices(track.meshes, spread_vertices(len(track.meshes.mean)))
    seen = track.intrinsics.project(track.w2c(points))
    if not np.isfinite(seen).all():
        raise ConventionError(track.name, "meshes in front of their cameras", "some behind")
    what = f"{points.shape[1]} projected vertices of the track's own meshes"
    return Correspondences(what, points, seen, None, exact=True)


def spread_vertices(n_vertices: int) -> Ints:
    """Some 500 vertices, spread over the mesh by number."""
    return np.unique(np.linspace(0, n_vertices - 1, _MESH_POINTS).round()).astype(np.int64)
