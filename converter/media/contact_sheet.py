"""The picture that proves an alignment: mesh and landmarks over the written images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from converter.geometry.pixels import Floats, PixelAffine, Size, index_from_pixels
from converter.media.images import encode_image
from converter.media.resampling import resample
from converter.track import Image

_TILE = 640
_COLUMNS = 3
_MARGIN = 1.35
_THUMBNAIL = 150
_SHIFT = 4  # cv2 draws with 1/16 px
_MESH_COLOUR, _LANDMARK_COLOUR = (240, 220, 60), (40, 60, 255)


@dataclass(frozen=True, slots=True)
class ProofFrame:
    """One tile: an image as it was written, and what the written cameras put on it.

    Attributes
    ----------
    image
        (H, W, 3), blue first.
    vertices
        (V, 2) projected mesh, edge-origin px of the image.
    landmarks
        (68, 2) edge-origin px of the image.
    label
        One line for the corner.

    """

    image: Image
    vertices: Floats
    landmarks: Floats
    label: str


def contact_sheet(frames: Sequence[ProofFrame], faces: NDArray[np.int32], title: str) -> bytes:
    """JPEG of all tiles, each zoomed on the head, with the whole image in its corner."""
    tiles = [proof_tile(frame, faces) for frame in frames]
    blank = np.zeros_like(tiles[0])
    tiles += [blank] * (-len(tiles) % _COLUMNS)
    rows = [np.hstack(tiles[i : i + _COLUMNS]) for i in range(0, len(tiles), _COLUMNS)]
    sheet = np.vstack([_heading(title, rows[0].shape[1]), *rows])
    return encode_image(sheet, ".jpg", 92)


def proof_tile(frame: ProofFrame, faces: NDArray[np.int32]) -> Image:
    """One tile, 640x640: zoomed on the head, with the whole image in its corner."""
    import cv2

    seen = frame.vertices[np.isfinite(frame.vertices).all(axis=1)]
    low, high = seen.min(axis=0), seen.max(axis=0)
    side = _MARGIN * float(max(high - low))
    scale = _TILE / side
    corner = (low + high) / 2 - side / 2
    tile_from_image = PixelAffine(scale, scale, -scale * corner[0], -scale * corner[1])
    tile = resample(frame.image, tile_from_image, Size(_TILE, _TILE))
    overlay = tile.copy()
    points = tile_from_image(frame.vertices)
    _draw_mesh(overlay, points, faces)
    opacity = _opacity(points, faces)
    tile = np.asarray(cv2.addWeighted(tile, 1 - opacity, overlay, opacity, 0), np.uint8)
    for point in _fixed(tile_from_image(frame.landmarks)):
        cv2.circle(tile, point, 2 << _SHIFT, _LANDMARK_COLOUR, -1, cv2.LINE_AA, _SHIFT)
    _inset(tile, frame.image, corner, side)
    _text(tile, frame.label, (12, _TILE - 14))
    return tile


def _opacity(points: Floats, faces: NDArray[np.int32]) -> float:
    """Lines of a dense mesh are drawn fainter, so that the face stays visible."""
    lengths = np.linalg.norm(points[faces[:, 0]] - points[faces[:, 1]], axis=1)
    return float(np.clip(np.nanmedian(lengths) / 45, 0.15, 0.45))


def _draw_mesh(tile: Image, points: Floats, faces: NDArray[np.int32]) -> None:
    """Edges of the triangles that face the camera; of all where the mesh has no clear outside."""
    import cv2

    shown = faces
    if _is_oriented(faces):
        a, b, c = (points[faces[:, k]] for k in range(3))
        area = (b[:, 0] - a[:, 0]) * (c[:, 1] - a[:, 1]) - (b[:, 1] - a[:, 1]) * (c[:, 0] - a[:, 0])
        shown = faces[area < 0]  # counter-clockwise outside, with y pointing down
    triangles = index_from_pixels(points)[shown]
    triangles = triangles[np.isfinite(triangles).all(axis=(1, 2))]
    corners = np.round(triangles * (1 << _SHIFT)).astype(np.int32)
    cv2.polylines(tile, list(corners), True, _MESH_COLOUR, 1, cv2.LINE_AA, _SHIFT)


def _is_oriented(faces: NDArray[np.int32]) -> bool:
    """Whether neighbouring triangles run through their common edge in opposite directions."""
    edges = np.concatenate([faces[:, [0, 1]], faces[:, [1, 2]], faces[:, [2, 0]]])
    return len(np.unique(edges, axis=0)) == len(edges)


def _fixed(points: Floats) -> list[tuple[int, int]]:
    """Fixed-point index coordinates, as cv2's drawing functions take them."""
    scaled = np.round(index_from_pixels(points) * (1 << _SHIFT))
    return [(int(x), int(y)) for x, y in scaled if np.isfinite([x, y]).all()]


def _inset(tile: Image, image: Image, corner: Floats, side: float) -> None:
    """Draw the whole image small in the upper right corner, with the tile's square in it."""
    import cv2

    scale = _THUMBNAIL / max(image.shape[:2])
    size = (round(image.shape[1] * scale), round(image.shape[0] * scale))
    small = np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_AREA), np.uint8)
    first = (round(corner[0] * scale), round(corner[1] * scale))
    second = (round((corner[0] + side) * scale), round((corner[1] + side) * scale))
    cv2.rectangle(small, first, second, (255, 255, 255), 1)
    tile[8 : 8 + size[1], _TILE - 8 - size[0] : _TILE - 8] = small


def _heading(title: str, width: int) -> Image:
    heading = np.full((40, width, 3), 24, np.uint8)
    _text(heading, title, (12, 27))
    return heading


def _text(image: Image, text: str, at: tuple[int, int]) -> None:
    """White on a dark strip."""
    import cv2

    shown = text.encode("ascii", "replace").decode("ascii")
    (width, height), below = cv2.getTextSize(shown, cv2.FONT_HERSHEY_SIMPLEX, 0.6, 1)
    corners = (at[0] - 6, at[1] - height - 6), (at[0] + width + 6, at[1] + below + 2)
    cv2.rectangle(image, *corners, (24, 24, 24), -1)
    cv2.putText(image, shown, at, cv2.FONT_HERSHEY_SIMPLEX, 0.6, (255, 255, 255), 1, cv2.LINE_AA)
