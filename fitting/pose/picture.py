"""The picture of a fit: residuals before and after, what moved, jitter, and the face itself."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from converter.errors import printable
from converter.geometry import OPENCV_FROM_OPENGL, euler_xyz_from_matrix
from converter.geometry.pixels import Floats, index_from_pixels
from converter.media.images import encode_image
from converter.track import Image, Track
from fitting.pose.refit import TrackFit

_WIDTH, _PLOT_HEIGHT, _TILE = 1440, 220, 480
_LEFT, _RIGHT, _TOP, _BOTTOM = 64, 16, 34, 26
_BACKGROUND, _PANEL, _GRID, _INK = (24, 24, 24), (34, 34, 34), (62, 62, 62), (225, 225, 225)
_BEFORE, _AFTER, _THIRD = (80, 150, 255), (120, 210, 90), (230, 180, 90)
_LANDMARK = (60, 60, 255)
_SHIFT = 4  # cv2 draws with 1/16 px
_LARGEST_SCALE = 12.0
_LEAST_RANGE = 1e-3


def fit_picture(fit: TrackFit) -> bytes:
    """JPEG: four plots over the frames, and the fitted points on three of the tracker's images."""
    ids = fit.track.frame_ids.astype(np.float64)
    yaw = [_angles(t) for t in (fit.before, fit.after)]
    moved = 1000 * fit.moved_m
    names = ("before", "after")
    plots = [
        _plot("distance of the landmarks, px (RMS)", ids, (fit.before_px, fit.after_px), names),
        _plot("yaw, degrees", ids, (yaw[0][:, 1], yaw[1][:, 1]), names),
        _plot("change of the head's turn from frame to frame, degrees", ids,
              [_changes(t) for t in (fit.before, fit.after)], names),
        _plot("how far the head moved", ids, (fit.turned_deg, moved), ("degrees", "mm")),
    ]  # fmt: skip
    heading = np.full((44, _WIDTH, 3), _BACKGROUND, np.uint8)
    _text(heading, f"{fit.track.name}: {fit.pairs.what}", (14, 28), 0.6)
    parts = [heading, *plots]
    if fit.before.crop_frames is not None:
        parts.append(np.hstack([_face(fit, i) for i in _picks(fit)]))
    return encode_image(np.vstack(parts), ".jpg", 92)


def _angles(track: Track) -> Floats:
    """Pitch, yaw, roll of the head, degrees, (N, 3)."""
    angles: Floats = np.degrees(euler_xyz_from_matrix(track.w2c.change_axes(OPENCV_FROM_OPENGL).R))
    return angles


def _changes(track: Track) -> Floats:
    """Rotation from the frame before, degrees; NaN after a gap."""
    R = track.w2c.R
    cosine = (np.einsum("nij,nij->n", R[1:], R[:-1]) - 1) / 2
    turns = np.degrees(np.arccos(np.clip(cosine, -1, 1)))
    follows = np.diff(track.frame_ids) == 1
    return np.concatenate([[np.nan], np.where(follows, turns, np.nan)])


def _picks(fit: TrackFit) -> list[int]:
    """Three frames: the worst, the median, and the one that moved most."""
    off = np.where(np.isfinite(fit.after_px), fit.after_px, -1.0)
    order = np.argsort(off)
    most = int(np.argmax(fit.turned_deg))
    return [int(order[len(order) // 2]), int(order[-1]), most]


def _face(fit: TrackFit, index: int) -> Image:
    """Landmarks (red), points before (orange) and after (green) on the image, zoomed."""
    import cv2

    frames = fit.before.crop_frames
    if frames is None:
        return np.full((_TILE, _TILE, 3), _BACKGROUND, np.uint8)
    image = frames.read(index)
    points = [t.project(index, fit.pairs.points[index]) for t in (fit.before, fit.after)]
    seen = fit.pairs.landmarks[index]
    known = np.concatenate([points[1], seen])
    known = known[np.isfinite(known).all(axis=1)]
    low, high = known.min(axis=0), known.max(axis=0)
    side = max(float(1.15 * (high - low).max()), 2.0)
    scale = min(_TILE / side, _LARGEST_SCALE)
    corner = (low + high) / 2 - _TILE / scale / 2
    to_tile = np.array([[scale, 0, -scale * corner[0]], [0, scale, -scale * corner[1]]])
    to_tile[:, 2] += 0.5 * scale - 0.5  # index coordinates
    tile = np.asarray(cv2.warpAffine(image, to_tile, (_TILE, _TILE)), np.uint8)
    for where, colour, radius in ((seen, _LANDMARK, 4), (points[0], _BEFORE, 2),
                                  (points[1], _AFTER, 2)):  # fmt: skip
        for x, y in index_from_pixels((where - corner) * scale):
            if np.isfinite([x, y]).all() and max(abs(x), abs(y)) < 4 * _TILE:
                at = (round(x * (1 << _SHIFT)), round(y * (1 << _SHIFT)))
                cv2.circle(tile, at, radius << _SHIFT, colour, -1, cv2.LINE_AA, _SHIFT)
    before, after = fit.before_px[index], fit.after_px[index]
    label = f"{fit.track.frame_ids[index]:05d}: {before:.2f} -> {after:.2f} px"
    _text(tile, label, (10, _TILE - 12), 0.55)
    return tile


def _plot(title: str, ids: Floats, lines: Sequence[Floats], names: Sequence[str]) -> Image:
    """Lines over frame ids, gaps left open."""
    import cv2

    panel = np.full((_PLOT_HEIGHT, _WIDTH, 3), _PANEL, np.uint8)
    known = np.concatenate([line[np.isfinite(line)] for line in lines])
    low, high = (float(known.min()), float(known.max())) if len(known) else (0.0, 1.0)
    low = min(low, 0.0) if low < 0.5 * high else low
    ticks = _ticks(low, max(high, low + _LEAST_RANGE))
    low, high = min(low, ticks[0]), max(high, ticks[-1])
    across = max(float(ids[-1] - ids[0]), 1.0)

    def place(x: Floats, y: Floats) -> Floats:
        u = _LEFT + (x - ids[0]) / across * (_WIDTH - _LEFT - _RIGHT)
        v = _PLOT_HEIGHT - _BOTTOM - (y - low) / (high - low) * (_PLOT_HEIGHT - _TOP - _BOTTOM)
        return np.stack([u, v], axis=-1)

    for tick in ticks:
        row = round(float(place(ids[:1], np.array([tick]))[0, 1]))
        cv2.line(panel, (_LEFT, row), (_WIDTH - _RIGHT, row), _GRID, 1)
        _text(panel, f"{tick:g}", (10, row + 5), 0.42)
    runs = np.split(np.arange(len(ids)), np.flatnonzero(np.diff(ids) != 1) + 1)
    for line, colour in zip(lines, (_BEFORE, _AFTER, _THIRD), strict=False):
        for run in runs:
            shown = run[np.isfinite(line[run])]
            corners = np.round(place(ids[shown], line[shown]) * (1 << _SHIFT)).astype(np.int32)
            if len(corners) > 1:
                cv2.polylines(panel, [corners], False, colour, 1, cv2.LINE_AA, _SHIFT)
            elif len(corners):
                at = (int(corners[0, 0]), int(corners[0, 1]))
                cv2.circle(panel, at, 2 << _SHIFT, colour, -1, cv2.LINE_AA, _SHIFT)
    _text(panel, title, (_LEFT, 22), 0.5)
    for k, name in enumerate(names):
        colour = (_BEFORE, _AFTER, _THIRD)[k]
        cv2.line(panel, (_WIDTH - 320 + 150 * k, 18), (_WIDTH - 290 + 150 * k, 18), colour, 2)
        _text(panel, name, (_WIDTH - 280 + 150 * k, 22), 0.5)
    for column, x in ((_LEFT, ids[0]), (_WIDTH - 90, ids[-1])):
        _text(panel, f"{int(x):05d}", (column, _PLOT_HEIGHT - 8), 0.42)
    return panel


def _ticks(low: float, high: float) -> list[float]:
    """Three to six round numbers that span the values."""
    step = 10.0 ** np.floor(np.log10(max(high - low, 1e-9)))
    step *= next(k for k in (0.2, 0.5, 1.0, 2.0) if (high - low) / (k * step) <= 5)
    first = int(np.floor(low / step))
    return [round((first + k) * step, 9) for k in range(int(np.ceil(high / step)) - first + 1)]


def _text(image: Image, text: str, at: tuple[int, int], scale: float) -> None:
    """White on a dark strip; what no font of cv2 has becomes a question mark."""
    import cv2

    shown = printable(text).replace("\\[", "[").encode("ascii", "replace").decode("ascii")
    (width, height), below = cv2.getTextSize(shown, cv2.FONT_HERSHEY_SIMPLEX, scale, 1)
    corners = (at[0] - 3, at[1] - height - 3), (at[0] + width + 3, at[1] + below)
    cv2.rectangle(image, *corners, _PANEL, -1)
    cv2.putText(image, shown, at, cv2.FONT_HERSHEY_SIMPLEX, scale, _INK, 1, cv2.LINE_AA)
