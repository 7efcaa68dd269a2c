"""Where a detector's landmarks sit on a head mesh: given by the user, or found on the track itself.

An embedding names, for each landmark, the three vertices of a triangle and their weights. Who has
one for the mesh's topology gives it; for everybody else a track says where its landmarks are: the
surface point whose projection stays on the landmark in all frames (metrical-tracker spec, 3.10).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from converter.errors import ConventionError, MissingInputError
from converter.geometry import OPENCV_FROM_OPENGL
from converter.geometry.pixels import Floats
from converter.track import Track
from fitting.pose.problem import Ints

N_FRAMES = 120
FEWEST_FRAMES = 2
_CAP = 20 / 512
"""Share of the image's shorter side; farther landmarks are all as wrong."""
_AS_GOOD = 1.5
_LARGEST_YAW_DEG = 39
CONTOUR_ROWS = 2 * _LARGEST_YAW_DEG + 1
"""Of a dynamic embedding: 0 to 39 degrees to one side, 1 to 39 to the other."""


@dataclass(frozen=True, slots=True, eq=False)
class Contour:
    """Jaw landmarks that slide over the skin as the head turns: one set of points per degree.

    Attributes
    ----------
    landmarks
        (J,) which landmarks they are.
    corners
        (79, J, 3) vertices; rows 0 to 39 for heads turned 0 to 39 degrees to the left of the
        image, rows 40 to 78 for 1 to 39 degrees to its right (FLAME's dynamic embedding,
        https://github.com/soubhiksanyal/FLAME_PyTorch, flame_pytorch/flame.py).
    weights
        (79, J, 3).

    """

    landmarks: Ints
    corners: Ints
    weights: Floats


@dataclass(frozen=True, slots=True, eq=False)
class Embedding:
    """Landmarks as points of triangles.

    Attributes
    ----------
    landmarks
        (P,) which of the detector's points they are, ascending.
    corners
        (P, 3) vertices of the triangle that holds each one.
    weights
        (P, 3) of those vertices; they sum to 1.
    contour
        Landmarks that are not fixed to the skin; they take part as well.

    """

    landmarks: Ints
    corners: Ints
    weights: Floats
    contour: Contour | None = None

    @property
    def n_landmarks(self) -> int:
        """Number of points that `points` gives."""
        return len(self.landmarks) + (0 if self.contour is None else len(self.contour.landmarks))

    @property
    def columns(self) -> Ints:
        """Which of the detector's points `points` gives, in its order."""
        if self.contour is None:
            return self.landmarks
        return np.concatenate([self.contour.landmarks, self.landmarks])

    def points(self, vertices: Floats, yaw_deg: float = 0.0) -> Floats:
        """Head points (P, 3) of one mesh (V, 3), metres; contour landmarks first.

        ``yaw_deg`` is how far the face is turned to the right of the image (`turned_deg`).
        """
        fixed = _weighted(vertices, self.corners, self.weights)
        if self.contour is None:
            return fixed
        row = _contour_row(yaw_deg)
        sliding = _weighted(vertices, self.contour.corners[row], self.contour.weights[row])
        return np.concatenate([sliding, fixed])

    def require_mesh(self, where: object, n_vertices: int) -> None:
        """Raise ConventionError if a corner is no vertex of a mesh of ``n_vertices``."""
        largest = int(self.corners.max(initial=0))
        if self.contour is not None:
            largest = max(largest, int(self.contour.corners.max(initial=0)))
        if largest >= n_vertices:
            raise ConventionError(
                where,
                f"vertices below {n_vertices}, those of the track's meshes",
                f"{largest}",
                "The embedding belongs to meshes of another topology.",
            )


def _weighted(vertices: Floats, corners: Ints, weights: Floats) -> Floats:
    points: Floats = (vertices[corners] * weights[..., None]).sum(axis=-2)
    return points


def _contour_row(yaw_deg: float) -> int:
    turned = int(round(float(np.clip(-yaw_deg, -_LARGEST_YAW_DEG, _LARGEST_YAW_DEG))))
    return turned if turned >= 0 else _LARGEST_YAW_DEG - turned


def turned_deg(R: Floats) -> Floats:
    """How far faces are turned to the right of the image, degrees: y angle of the head, (N,)."""
    head = OPENCV_FROM_OPENGL @ R
    angle = np.arctan2(-head[..., 2, 0], np.hypot(head[..., 0, 0], head[..., 1, 0]))
    degrees: Floats = np.degrees(angle)
    return degrees


@dataclass(frozen=True, slots=True, eq=False)
class FoundEmbedding:
    """An embedding that a track itself implies.

    Attributes
    ----------
    embedding
        For all landmarks.
    residual_px
        Median distance of projected points and landmarks, in frames that had no say in where the
        points are.
    far_px
        Distance that four in five of them stay below; infinite if they are behind the camera.

    """

    embedding: Embedding
    residual_px: float
    far_px: float


def four_in_five(distances: Floats) -> float:
    """Distance that four in five stay below; NaN, a point behind the camera, is infinitely far."""
    far = np.where(np.isfinite(distances), distances, np.inf)
    return float(np.percentile(far, 80, method="lower"))


def find_embedding(track: Track, n_frames: int = N_FRAMES) -> FoundEmbedding:
    """Find the surface points that the track's landmarks follow, under the track's own cameras.

    Parameters
    ----------
    track
        With meshes and landmarks; K of the crop (`Track.in_crop`).
    n_frames
        At most so many frames are looked at, spread over the track.

    Raises
    ------
    MissingInputError
        If there are no meshes, or fewer than two frames with landmarks.

    """
    views = _views(track, n_frames)
    half = len(views.projected) // 2
    held = slice(half, None)
    trial = _fitted(views.take(slice(0, half)))
    there = np.einsum("npcx,pc->npx", views.projected[held][:, trial.corners], trial.weights)
    distance = np.linalg.norm(there - views.landmarks[held], axis=-1)
    median = float(np.median(np.where(np.isfinite(distance), distance, np.inf)))
    return FoundEmbedding(_fitted(views), median, four_in_five(distance))


@dataclass(frozen=True, slots=True, eq=False)
class _Views:
    """Some frames: projected vertices (F, V, 2), landmarks (F, P, 2), mean depth (V,), faces."""

    projected: Floats
    landmarks: Floats
    depth: Floats
    faces: Ints
    cap: float

    def take(self, index: slice) -> _Views:
        return _Views(
            self.projected[index], self.landmarks[index], self.depth, self.faces, self.cap
        )


def _views(track: Track, n_frames: int) -> _Views:
    if track.landmarks is None:
        raise MissingInputError(
            track.name, "landmarks to fit cameras to", "none",
            "uncrop landmarks TRACK detects them; --using mesh does without.",
        )  # fmt: skip
    if track.meshes is None:
        raise MissingInputError(
            track.name, "meshes, the head that the landmarks are on", "none",
            "With --flame FILE they are made from the track's coefficients.",
        )  # fmt: skip
    usable = np.flatnonzero(np.isfinite(track.landmarks).all(axis=(1, 2)))
    if len(usable) < FEWEST_FRAMES:
        raise MissingInputError(
            track.name, "landmarks in two frames or more", f"in {len(usable)}",
            "uncrop landmarks TRACK detects them.",
        )  # fmt: skip
    spread = np.unique(np.linspace(0, len(usable) - 1, n_frames).round().astype(int))
    # First every second one, then the others: either half is spread over the track.
    picks = usable[np.concatenate([spread[0::2], spread[1::2]])]
    projected, depth = [], np.zeros(len(track.meshes.mean))
    for index in picks.tolist():
        vertices = track.meshes.vertices(index).astype(np.float64)
        projected.append(track.project(index, vertices))
        depth += track.w2c[index](vertices)[:, 2]
    size = track.intrinsics.size
    return _Views(
        np.stack(projected),
        track.landmarks[picks],
        depth / len(picks),
        track.meshes.faces.astype(np.int64),
        _CAP * min(size.width, size.height),
    )


def _fitted(views: _Views) -> Embedding:
    """Nearest vertex first, then the best point of the triangles around it."""
    used = np.unique(views.faces)
    cost = np.zeros((len(used), views.landmarks.shape[1]))
    for points, landmarks in zip(views.projected, views.landmarks, strict=True):
        x = points[used, None, 0] - landmarks[None, :, 0]
        y = points[used, None, 1] - landmarks[None, :, 1]
        cost += np.fmin(np.hypot(x, y), views.cap)  # NaN, behind the camera: as far as can be
    cost /= len(views.projected)
    edges = views.projected[0][views.faces[:, 0]] - views.projected[0][views.faces[:, 1]]
    spacing = float(np.nanmedian(np.linalg.norm(edges, axis=1)))
    near = cost <= cost.min(axis=0) + spacing
    front = used[np.where(near, views.depth[used][:, None], np.inf).argmin(axis=0)]
    nearest = used[cost.argmin(axis=0)]
    around = _triangles_around(views.faces, len(views.depth))
    corners, weights = [], []
    for k in range(views.landmarks.shape[1]):
        found = [
            _best_point(views, views.faces[around(int(vertex))], views.landmarks[:, k])
            for vertex in (front[k], nearest[k])
        ]
        # Of two surfaces in line, a detector sees the one in front, if it fits about as well.
        best = found[0] if found[0].cost <= _AS_GOOD * found[1].cost else found[1]
        corners.append(best.corners)
        weights.append(best.weights)
    n = views.landmarks.shape[1]
    return Embedding(np.arange(n, dtype=np.int64), np.array(corners), np.array(weights))


class _triangles_around:  # noqa: N801 - used as a function
    """Triangles within two rings of a vertex."""

    def __init__(self, faces: Ints, n_vertices: int) -> None:
        self._faces = faces
        order = np.argsort(faces, axis=None, kind="stable")
        self._triangles = order // 3
        self._begin = np.searchsorted(faces.ravel()[order], np.arange(n_vertices + 1))

    def _at(self, vertex: int) -> Ints:
        found: Ints = self._triangles[self._begin[vertex] : self._begin[vertex + 1]]
        return found

    def __call__(self, vertex: int) -> Ints:
        ring = np.unique(self._faces[self._at(vertex)])
        return np.unique(np.concatenate([self._at(v) for v in ring.tolist()]))


@dataclass(frozen=True, slots=True, eq=False)
class _SurfacePoint:
    """A point of a triangle, and its mean squared distance from a landmark, px^2."""

    corners: Ints
    weights: Floats
    cost: float


def _best_point(views: _Views, triangles: Ints, landmark: Floats) -> _SurfacePoint:
    """Point of the triangles (T, 3) that is nearest to the landmark in all frames."""
    a, b, c = (views.projected[:, triangles[:, k]] for k in range(3))  # (F, T, 2)
    own = landmark[:, None]
    candidates = [
        _least_squares(b - a, c - a, own - a),
        *(_on_edge(views, triangles, landmark, k) for k in range(3)),
    ]
    weights = np.stack(candidates)  # (4, T, 3)
    inside = weights.min(axis=-1) >= 0
    there = weights[:, None, :, :1] * a + weights[:, None, :, 1:2] * b + weights[:, None, :, 2:] * c
    distance = np.fmin(np.linalg.norm(there - own, axis=-1), views.cap)
    cost = np.where(inside, (distance**2).mean(axis=1), np.inf)
    where, triangle = np.unravel_index(int(cost.argmin()), cost.shape)
    return _SurfacePoint(
        triangles[triangle], weights[where, triangle], float(cost[where, triangle])
    )


def _least_squares(u: Floats, v: Floats, d: Floats) -> Floats:
    """Barycentric weights (T, 3) of the point ``a + s u + t v`` nearest to ``a + d``."""
    uu, vv, uv = ((p * q).sum(axis=(0, 2)) for p, q in ((u, u), (v, v), (u, v)))
    ud, vd = ((p * d).sum(axis=(0, 2)) for p in (u, v))
    determinant = uu * vv - uv * uv
    flat = ~(determinant > 1e-9 * uu * vv)
    safe = np.where(flat, 1.0, determinant)
    s, t = (ud * vv - vd * uv) / safe, (vd * uu - ud * uv) / safe
    outside = np.where(flat, -1.0, s)  # seen edge on, a triangle has only its edges
    return np.stack([1 - s - t, outside, t], axis=-1)


def _on_edge(views: _Views, triangles: Ints, landmark: Floats, k: int) -> Floats:
    """Weights (T, 3) of the nearest point of the edge from corner k to corner k + 1."""
    first, second = k, (k + 1) % 3
    begin = views.projected[:, triangles[:, first]]
    along = views.projected[:, triangles[:, second]] - begin
    length = (along**2).sum(axis=(0, 2))
    share = (along * (landmark[:, None] - begin)).sum(axis=(0, 2)) / np.maximum(length, 1e-12)
    share = np.clip(share, 0.0, 1.0)
    weights = np.zeros((len(triangles), 3))
    weights[:, first], weights[:, second] = 1 - share, share
    return weights
