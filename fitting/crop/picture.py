"""The picture that shows a recovered box to the eye."""

from __future__ import annotations

import numpy as np

from converter.errors import printable
from converter.geometry.crop import Crop
from converter.geometry.pixels import Size
from converter.media.images import encode_image, render_crop
from converter.track import Frames, Image
from fitting.crop.certificate import CropCertificate
from fitting.crop.mapping import Mapping
from fitting.crop.pair import Pair, to_grey

_TILE = 480
_AMPLIFIED = 16
_REACH = 4
_BACKGROUND = 24
_BOX, _SQUARE = (60, 220, 60), (40, 200, 255)
_SMALL = 0.5


def recovery_picture(certificate: CropCertificate, crops: Frames, sources: Frames) -> bytes:
    """JPEG: the box on a source frame; crop, re-render, difference x16; cost around the optimum.

    Parameters
    ----------
    certificate
        A recovered box.
    crops, sources
        The frames it was recovered from.

    """
    crop = certificate.require(crops.origin)
    names = certificate.pairs[0]
    index = next(i for i in range(len(crops)) if crops.name(i) == names.crop)
    source_index = next(i for i in range(len(sources)) if sources.name(i) == names.source)
    image, source = crops.read(index), sources.read(source_index)
    rendered = render_crop(source, crop)
    difference = np.abs(image.astype(np.int16) - rendered) * _AMPLIFIED
    tiles = [
        _labelled(_square(image), f"crop {names.crop}"),
        _labelled(_square(rendered), "re-rendered from the source"),
        _labelled(_square(np.minimum(difference, 255).astype(np.uint8)),
                  f"difference x{_AMPLIFIED}, largest {int(difference.max()) // _AMPLIFIED}"),
    ]  # fmt: skip
    below = np.hstack(tiles)
    costs = _costs(Pair(to_grey(image), to_grey(source)), Mapping.of_crop(crop))
    frame = _on_frame(source, crop, below.shape[1] - costs.shape[1], costs.shape[0])
    above = np.hstack([frame, costs])
    heading = np.full((44, below.shape[1], 3), _BACKGROUND, np.uint8)
    _text(heading, str(certificate), (12, 28))
    return encode_image(np.vstack([heading, above, below]), ".jpg", 92)


def _square(image: Image) -> Image:
    import cv2

    scale = _TILE / max(image.shape[:2])
    size = (max(round(image.shape[1] * scale), 1), max(round(image.shape[0] * scale), 1))
    tile = np.full((_TILE, _TILE, 3), _BACKGROUND, np.uint8)
    how = cv2.INTER_AREA if scale < 1 else cv2.INTER_NEAREST
    tile[: size[1], : size[0]] = cv2.resize(image, size, interpolation=how)
    return tile


def _on_frame(source: Image, crop: Crop, width: int, height: int) -> Image:
    """The whole source frame with what was cut (green) and the padded rectangle (yellow)."""
    import cv2

    mapping = Mapping.of_crop(crop)
    size = Size.of(source)
    left, top = min(mapping.x_min, 0), min(mapping.y_min, 0)
    right, bottom = max(mapping.x_max, size.width), max(mapping.y_max, size.height)
    scale = min(width / (right - left), height / (bottom - top))
    small = (max(int(size.width * scale), 1), max(int(size.height * scale), 1))
    at = round(-left * scale), round(-top * scale)
    tile = np.full((height, width, 3), _BACKGROUND, np.uint8)
    shown = cv2.resize(source, small, interpolation=cv2.INTER_AREA)
    shown = shown[: height - at[1], : width - at[0]]
    tile[at[1] : at[1] + shown.shape[0], at[0] : at[0] + shown.shape[1]] = shown
    box = crop.bbox
    for colour, (x0, x1, y0, y1) in (
        (_SQUARE, (mapping.x_min, mapping.x_max, mapping.y_min, mapping.y_max)),
        (_BOX, (box.x_min, box.x_max, box.y_min, box.y_max)),
    ):
        corners = [(round((x - left) * scale), round((y - top) * scale))
                   for x, y in ((x0, y0), (x1, y1))]  # fmt: skip
        cv2.rectangle(tile, corners[0], corners[1], colour, 2)
    return _labelled(tile, f"bbox {box} of {size}: cut green, padded yellow")


def _costs(pair: Pair, mapping: Mapping) -> Image:
    """Disagreement for shifts in x and y (map) and for the side (bars), around the box."""
    chosen = pair.choose(mapping)
    steps = range(-_REACH, _REACH + 1)
    if not len(chosen):
        return _labelled(np.full((_TILE, _TILE, 3), _BACKGROUND, np.uint8), "no texture")

    def cost(dx: int, dy: int, side: int) -> float:
        return float(pair.costs(mapping + (dx, dx + side, dy, dy + side), chosen).mean())

    shifts = np.array([[cost(dx, dy, 0) for dx in steps] for dy in steps])
    sides = np.array([cost(-(s // 2), -(s // 2), s) for s in steps])
    top = max(float(shifts.max()), float(sides.max()), 1e-9)
    tile = np.full((_TILE, _TILE, 3), _BACKGROUND, np.uint8)
    cell = 36
    for row in range(len(shifts)):
        for column in range(len(shifts)):
            level = int(255 * shifts[row, column] / top)
            x, y = 12 + column * cell, 12 + row * cell
            tile[y : y + cell - 2, x : x + cell - 2] = level
    for bar, value in enumerate(sides):
        x, height = 12 + bar * cell, int(90 * value / top)
        tile[440 - height : 441, x : x + cell - 2] = _SQUARE
    return _labelled(tile, f"cost: shift +-{_REACH} px (map), side +-{_REACH} px (bars)")


def _labelled(tile: Image, text: str) -> Image:
    _text(tile, text, (10, tile.shape[0] - 12))
    return tile


def _text(image: Image, text: str, at: tuple[int, int]) -> None:
    """White on a dark strip; what no font of cv2 has becomes a question mark."""
    import cv2

    shown = printable(text).replace("\\[", "[").encode("ascii", "replace").decode("ascii")
    (width, height), below = cv2.getTextSize(shown, cv2.FONT_HERSHEY_SIMPLEX, _SMALL, 1)
    corners = (at[0] - 5, at[1] - height - 5), (at[0] + width + 5, at[1] + below + 2)
    cv2.rectangle(image, *corners, (_BACKGROUND,) * 3, -1)
    cv2.putText(image, shown, at, cv2.FONT_HERSHEY_SIMPLEX, _SMALL, (255, 255, 255), 1, cv2.LINE_AA)
