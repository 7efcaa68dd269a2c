"""Crops that are not square: the tracker cut them and never resized them."""

from __future__ import annotations

from collections.abc import Sequence

from converter.geometry.crop import BBox, Crop
from fitting.crop.certificate import CropCertificate
from fitting.crop.checker import Checked
from fitting.crop.pair import Agreement
from fitting.crop.solver import Refusal, Solver, certificate_of, not_cropped, without_content

_REACH = 2


def recover_bare_cut(solver: Solver, picks: Sequence[int]) -> CropCertificate:
    """Find the one place from which all ``picks`` were cut, pixel by pixel; or say what they are.

    Source: metrical-tracker, generate_dataset.py:72; only a square image_size is resized.
    """
    checked: list[Checked] = []
    for index in picks:
        pair, name = solver.pair(index, solver.guess(index)), solver.crops.name(index)
        refusal = without_content(pair.crop, name)
        if refusal is not None and len(solver.crops) == 1:
            return refusal.certificate()
        if refusal is None and solver.is_whole_frame(pair):
            return not_cropped(name).certificate()
        found = _plain_cut(solver, index)
        if found is None or (checked and checked[0].crops != found.crops):
            return Refusal(
                "not-square",
                f"{name} is not square, and is no plain cut of a source frame that all crops share",
            ).certificate()
        checked.append(found)
    return certificate_of(solver, checked, None, "exact")


def _plain_cut(solver: Solver, index: int) -> Checked | None:
    """Return where a crop equals a rectangle of one of the source frames near its own."""
    import cv2

    for source_index in solver.near(index, _REACH):
        pair = solver.pair(index, source_index)
        if any(a > b for a, b in zip(pair.crop.shape, pair.source.shape, strict=True)):
            return None
        x, y = cv2.minMaxLoc(cv2.matchTemplate(pair.source, pair.crop, cv2.TM_SQDIFF))[2]
        box = BBox(int(x), int(x) + solver.output.width, int(y), int(y) + solver.output.height)
        crop = Crop(box, 0, 0, solver.size, solver.output)
        comparison = solver.checker.compare(pair, crop)
        if comparison.is_equal:
            return Checked(pair, comparison, (crop,), Agreement(0, 1.0, 1.0))
    return None
