"""One frame: where its crop lies in its source frame, found from scratch and proved.

`Solver` ends with a `Checked` frame, or with a `Refusal` that names the cause.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np

from converter.geometry.crop import BBox, Crop
from converter.geometry.pixels import Floats
from converter.media.images import ImageFiles
from converter.media.parallel import ordered_map
from fitting.crop.certificate import (
    Comparison,
    CropCertificate,
    FramePair,
    Verdict,
    compare,
    is_legal,
)
from fitting.crop.mapping import Grey, Mapping, render_grey
from fitting.crop.padding import PaddingSearch, border, padded
from fitting.crop.pixelwise import descend_by_pixels
from fitting.crop.pyramid import find_places
from fitting.crop.refine import Agreement, Pair, Ranking, climb, climb_by_pixels, descend, squared
from fitting.crop.search import Estimate, find_features, mirrored
from fitting.crop.sequences import Crops, Sources

# Right crops agree in at least 0.69 (noise of 10 grey levels) and 0.915, wrong ones in at most
# 0.46 and 0.845 (docs/recover-bbox.md); the limits lie between.
_MIN_SHARE = 0.60
_MIN_MEDIAN = 0.88
MIN_BLOCKS = 8
_BLANK_STD = 1.5
_DARK = 24
_MAX_ANGLE_DEG = 1.0
_MAX_STRETCH = 0.02
_MANY_INLIERS = 16
_SHRINKS = (1, 2, 4)
_MAX_TWINS = 64
_LIKELY_PLACE = 0.9


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why there is no answer: a stable id, and a sentence."""

    cause: str
    reason: str

    def certificate(self) -> CropCertificate:
        """Return it as the result of the whole recovery."""
        return CropCertificate("refused", cause=self.cause, reason=self.reason)


@dataclass(frozen=True, slots=True)
class Checked:
    """One frame whose crop was compared with its re-render.

    Attributes
    ----------
    pair
        Crop and source frame.
    comparison
        What differs.
    crops
        Crops that give the compared image, the best first.
    agreement
        How the textured blocks compare.

    """

    pair: Pair
    comparison: Comparison
    crops: tuple[Crop, ...]
    agreement: Agreement


@dataclass(frozen=True, slots=True)
class _Padding:
    """How much of the mapping was cut: the crop, and others that no pixel tells from it."""

    crops: tuple[Crop, ...]
    comparison: Comparison


class Solver:
    """Solves single frames of one track.

    Parameters
    ----------
    crops, sources
        The two sequences.
    guesses
        For each crop, the position of its source frame, as far as names or order tell; it may lie
        outside the sequence.

    """

    def __init__(self, crops: Crops, sources: Sources, guesses: Sequence[int]) -> None:
        self.crops, self.sources, self.guesses = crops, sources, guesses
        self.offset = 0
        """By how many frames the guesses were wrong where the last frame was solved."""
        self.size = sources.frames.size
        self.output = crops.frames.size

    def guess(self, index: int) -> int:
        """Position of a crop's source frame, as far as is known, inside the sequence."""
        return int(np.clip(self.guesses[index] + self.offset, 0, len(self.sources) - 1))

    def solve(self, index: int) -> Checked | Refusal:
        """Find and prove the mapping of one crop from scratch."""
        grey = self.crops.grey(index)
        refusal = without_content(grey, self.crops.name(index))
        if refusal is not None:
            blank = refusal.cause == "blank"
            return refusal if blank else self._by_pixels_alone(index) or refusal
        solved: tuple[Pair, Mapping] | None = None
        for source_index in self.near(index, 1):
            pair = self.pair(index, source_index)
            solved = self._locate(pair)
            if solved is not None:
                break
        found = None if solved is None else self._proved(*solved)
        return found or self._by_pixels_alone(index) or self._diagnosis(index)

    def _by_pixels_alone(self, index: int) -> Checked | None:
        """Find a crop of little texture by its slopes; nothing but equal pixels is taken for proof.

        One level is allowed as ever. The place has to be the only one of its kind in the frame.
        """
        guessed = self.pair(index, self.guess(index))
        for place in find_places(guessed.crop, guessed.source):
            start = descend_by_pixels(guessed, place.edges)
            if start is None or not start.is_possible(self.size):
                continue
            for source_index in self.near(index, 2):
                pair = self.pair(index, source_index)
                best = climb_by_pixels(pair, start, self.size)
                checked = self.check(pair, best)
                if checked.comparison.max_abs_diff <= 1:
                    return None if _is_repeated(pair, best) else checked
        return None

    def with_source(self, index: int) -> int:
        """Return the crop nearest to ``index`` whose source frame is there.

        The frames of the first or last crops are missing where a video was cut shorter.
        """
        last = len(self.crops) - 1
        step = 1 if self.guesses[index] + self.offset < 0 else -1
        here = index
        while 0 <= here <= last:
            if 0 <= self.guesses[here] + self.offset < len(self.sources):
                return here
            here += step
        return index

    def pair(self, index: int, source_index: int) -> Pair:
        """Return a crop and a source frame as grey images."""
        grey, source = self.crops.grey(index), self.sources.grey(source_index)
        return Pair(grey, source, index, source_index)

    def near(self, index: int, reach: int) -> list[int]:
        """Positions around the guess, nearest first."""
        guess = self.guess(index)
        steps = sorted(range(-reach, reach + 1), key=abs)
        return [guess + s for s in steps if 0 <= guess + s < len(self.sources)]

    def _locate(self, pair: Pair) -> tuple[Pair, Mapping] | None:
        """Estimate, descend and climb; None where the result does not agree.

        Features that cost little come first: what they lead to has to agree like anything else.
        Noise hides the texture of small blocks: then the images are compared at a smaller size.
        """
        searcher = self.sources.searcher(pair.source_index)
        quick = searcher.find_quickly(pair.crop)
        if quick is not None and not _is_askew(quick):
            found = self._settle(pair, quick.edges)
            if found is not None:
                return found
        estimate = searcher.find(pair.crop)
        if estimate is None or _is_askew(estimate):
            return None
        for shrink in _SHRINKS:
            found = self._settle(pair.shrunk(shrink), estimate.edges)
            if found is not None:
                return found
        return None

    def _settle(self, pair: Pair, edges: Floats) -> tuple[Pair, Mapping] | None:
        """Descend and climb from an estimate; None where the result does not agree."""
        found = descend(pair, edges)
        if found is None:
            return None
        ranking = climb([pair], found[0], self.size)
        if ranking is None or not agrees(pair.agreement(ranking.best)):
            return None
        return pair, ranking.best

    def _proved(self, pair: Pair, mapping: Mapping) -> Checked | None:
        """Compare every pixel; if they differ, look for the right source frame first."""
        checked = self.check(pair, mapping)
        if not checked.comparison.is_equal:
            better, there = self.best_source(pair, mapping, reach=2)
            if better.source_index != pair.source_index:
                checked = self.check(better, there)
        if not checked.comparison.is_equal:
            checked = self._by_pixels(checked)
        return checked if agrees(checked.agreement) else None

    def _by_pixels(self, checked: Checked) -> Checked:
        """Look for an exact neighbour by plain differences.

        Correlation of dark or noisy blocks may miss by a pixel what unaltered pixels still tell.
        """
        pair, mapping = checked.pair, Mapping.of_crop(checked.crops[0])
        best = climb_by_pixels(pair, mapping, self.size)
        if best == mapping:
            return checked
        found = self.check(pair, best)
        return found if found.comparison.max_abs_diff <= 1 else checked

    def best_source(self, pair: Pair, mapping: Mapping, reach: int) -> tuple[Pair, Mapping]:
        """Find the source frame whose re-render is most like the crop, and its mapping.

        Frames around the pair's own are tried, further while they become better. Each gets its own
        mapping: in a crop of nothing but a face, a neighbouring frame fits where the face was.
        """
        best, where, score = pair, mapping, pair.similarity(mapping)
        tried = {pair.source_index}
        centres = {pair.source_index, *self._by_rate(pair.index)}
        while centres:
            near = {c + k for c in centres for k in range(-reach, reach + 1)}
            new = sorted(j for j in near - tried if 0 <= j < len(self.sources))
            tried.update(new)
            centres = set()
            self.sources.prefetch(new)
            others = [self.pair(pair.index, j).shrunk(pair.shrink) for j in new]
            for other, (here, found) in zip(
                others, ordered_map(partial(self._moved, mapping), others), strict=True
            ):
                if found > score:
                    best, where, score = other, here, found
                    centres = {other.source_index}
        if best is pair:
            return pair, mapping
        ranking = climb([best], where, self.size)
        return (best, ranking.best) if ranking is not None else (pair, mapping)

    def _moved(self, mapping: Mapping, pair: Pair) -> tuple[Mapping, float]:
        """The mapping near ``mapping`` that fits best, found at a small size first; how well."""
        edges = mapping.edges
        for other, n_steps in ((pair.shrunk(4), 12), (pair, 4)):
            found = descend(other, edges, n_steps)
            if found is not None:
                edges = found[1]
        scores = {m: pair.similarity(m) for m in (mapping, Mapping.rounded(squared(edges)))}
        return max(scores.items(), key=lambda item: item[1])

    def _by_rate(self, index: int) -> list[int]:
        """Where the source frame would be if both sequences ran over the same time."""
        n_crops, n_sources = len(self.crops), len(self.sources)
        if n_crops in (1, n_sources) or not isinstance(self.sources.frames, ImageFiles):
            return []
        return [round(index * (n_sources - 1) / (n_crops - 1))] if n_crops < n_sources else []

    def check(self, pair: Pair, mapping: Mapping) -> Checked:
        """Settle the padding under a mapping, and compare every pixel."""
        padding = self._padding(pair, mapping)
        return Checked(pair, padding.comparison, padding.crops, pair.agreement(mapping))

    # --- padding ------------------------------------------------------------------------------

    def _padding(self, pair: Pair, mapping: Mapping) -> _Padding:
        """Settle what was cut and what padded; the mapping, hence the cameras, is the same for all.

        Every padding that the border of the crop suggests is compared whole; where none is equal,
        the rows in question decide (`fitting.crop.padding`).
        """
        least = next(mapping.crops(self.size, self.output))
        best, best_crop = self.compare(pair, least), least
        if best.max_abs_diff > 1:
            for crop in self._suggested(pair, mapping, least):
                comparison = self.compare(pair, crop)
                if comparison.max_abs_diff < best.max_abs_diff:
                    best, best_crop = comparison, crop
        if best.max_abs_diff <= 1:
            return _Padding(self.twins(pair, mapping, best_crop, best), best)
        crops = PaddingSearch(pair, mapping).settle()
        crops = tuple(sorted(crops, key=lambda c: self._preference(c.bbox)))
        return _Padding(crops, self.compare(pair, crops[0]))

    def _suggested(self, pair: Pair, mapping: Mapping, least: Crop) -> list[Crop]:
        """Crops with more padding than needed, as the black border of an unaltered crop shows."""
        found = []
        extents = mapping.size.width / self.output.width, mapping.size.height / self.output.height
        needed = (least.pad_x, least.pad_y)
        for axis, dark in enumerate(border(pair.crop, 0, _DARK)):
            rows = round(dark * extents[axis])
            near = range(max(rows - 3, needed[axis] + 1), rows + 5)
            found += [padded(mapping, self.size, self.output, axis, p) for p in near if dark]
        return [c for c in found if c is not None]

    def twins(
        self, pair: Pair, mapping: Mapping, crop: Crop, comparison: Comparison
    ) -> tuple[Crop, ...]:
        """All crops of the mapping with the very same image, a legal one first."""
        twins = [crop]
        reference = render_grey(pair.source, mapping, self.output, crop.bbox)
        for axis in (0, 1):
            for direction in (-1, 1):
                pad = (crop.pad_x, crop.pad_y)[axis]
                for _ in range(_MAX_TWINS):
                    pad += direction
                    other = padded(mapping, self.size, self.output, axis, pad)
                    if other is None or not np.array_equal(
                        render_grey(pair.source, mapping, self.output, other.bbox), reference
                    ):
                        break
                    if self.compare(pair, other) != comparison:
                        break
                    twins.append(other)
        return tuple(sorted(dict.fromkeys(twins), key=lambda c: self._preference(c.bbox)))

    def _preference(self, bbox: BBox) -> tuple[bool, int]:
        return not is_legal(bbox, self.size), -bbox.size.n_pixels

    def compare(self, pair: Pair, crop: Crop) -> Comparison:
        """Compare every pixel, all channels."""
        image = self.crops.image(pair.index)
        return compare(image, self.sources.image(pair.source_index), crop)

    # --- what went wrong ----------------------------------------------------------------------

    def _diagnosis(self, index: int) -> Refusal:
        """Name the fault of a crop that fits nowhere."""
        grey, name = self.crops.grey(index), self.crops.name(index)
        source_index = self.guess(index)
        pair = self.pair(index, source_index)
        if self.is_whole_frame(pair):
            return Refusal("not-cropped", f"{name} is the whole source frame, not cropped at all")
        searcher = self.sources.searcher(source_index)
        for fault, upright in mirrored(grey):
            flipped = Pair(upright, pair.source, index, source_index)
            if self._locate(flipped) is not None:
                return Refusal("mirrored", f"{name} is {fault}")
        estimate = searcher.find(grey)
        if estimate is not None and estimate.n_inliers >= _MANY_INLIERS:
            if abs(estimate.angle_deg) > _MAX_ANGLE_DEG:
                return rotated(name, estimate.angle_deg)
            if _MAX_STRETCH < abs(estimate.stretch - 1) < 1:
                return Refusal(
                    "stretched", f"{name} is stretched by {estimate.stretch:.3f} in width"
                )
        places = find_places(grey, pair.source)
        if len(find_features(grey, 512)) < 16 or (places and places[0].score > _LIKELY_PLACE):
            return Refusal(
                "too-little-texture",
                f"{name} has too little texture, or lost too much of it, to be found for certain",
            )
        return Refusal(
            "other-video",
            f"{name} shows nothing of source frame {self.sources.name(source_index)} or those "
            "beside it: another video, or other frames of it",
        )

    def is_whole_frame(self, pair: Pair) -> bool:
        """Whether the crop is its whole source frame, resized."""
        import cv2

        size = (self.output.width, self.output.height)
        whole = cv2.resize(pair.source, size, interpolation=cv2.INTER_AREA)
        agreement = pair.agreement_with(np.asarray(whole, np.uint8))
        return agreement.share >= 0.75 and agreement.median >= _MIN_MEDIAN


def certificate_of(
    solver: Solver, checked: Sequence[Checked], ranking: Ranking | None, verdict: Verdict
) -> CropCertificate:
    """Sum up what was checked; several boxes of one image make the verdict ambiguous."""
    crops = [c for c in checked[0].crops if all(c in other.crops for other in checked[1:])]
    if not crops:  # frames disagree on the padding: none of them is certain of it
        crops = list(dict.fromkeys(c for each in checked for c in each.crops))
    crop = crops[0]
    name, guesses = (solver.crops.name, solver.sources.name), solver.guesses
    worst = max(checked, key=lambda c: (c.comparison.max_abs_diff, c.comparison.differing_px))
    reason, cause = "", ""
    if len(crops) > 1:
        verdict, cause = "ambiguous", "same-image"
        reason = (
            "these boxes give the same images and the same cameras; the one that the tracker "
            "itself can make comes first"
        )
    pairs = sorted((c.pair for c in checked), key=lambda p: p.index)
    return CropCertificate(
        verdict=verdict,
        bbox=crop.bbox,
        crop=crop,
        candidates=tuple(c.bbox for c in crops),
        reason=reason,
        cause=cause,
        frames_checked=len(checked),
        max_abs_diff=worst.comparison.max_abs_diff,
        differing_px=worst.comparison.differing_px,
        runner_up_gap=float("nan") if ranking is None else ranking.gap,
        certainty=float("nan") if ranking is None else ranking.certainty,
        agreement=min(c.agreement.share for c in checked),
        pairs=tuple(
            FramePair(name[0](p.index), name[1](p.source_index), p.source_index - guesses[p.index])
            for p in pairs
        ),
        n_crops=len(solver.crops),
    )


def agrees(agreement: Agreement) -> bool:
    """Whether enough textured blocks agree, and well enough."""
    return (
        agreement.n_blocks >= MIN_BLOCKS
        and agreement.share >= _MIN_SHARE
        and agreement.median >= _MIN_MEDIAN
    )


def _is_repeated(pair: Pair, mapping: Mapping) -> bool:
    """Whether the source shows the very same rectangle somewhere else: tiles, stripes, one colour.

    What is cut from there at the same size would give the same crop.
    """
    import cv2

    height, width = pair.source.shape
    x0, x1 = max(mapping.x_min, 0), min(mapping.x_max, width - 1)
    y0, y1 = max(mapping.y_min, 0), min(mapping.y_max, height - 1)
    part = pair.source[y0:y1, x0:x1]
    scores = cv2.matchTemplate(pair.source, part, cv2.TM_SQDIFF)
    scores[y0, x0] = np.inf
    for _ in range(_MAX_TWINS):
        _, _, (x, y), _ = cv2.minMaxLoc(scores)
        if scores[y, x] > part.size:  # one squared level per pixel; sums of floats are not exact
            return False
        if np.array_equal(pair.source[y : y + part.shape[0], x : x + part.shape[1]], part):
            return True
        scores[y, x] = np.inf
    return False


def _is_askew(estimate: Estimate) -> bool:
    return abs(estimate.angle_deg) > 2 * _MAX_ANGLE_DEG


def without_content(grey: Grey, name: str) -> Refusal | None:
    """Refuse a crop that shows next to nothing."""
    if float(np.std(grey)) < _BLANK_STD:
        return Refusal("blank", f"{name} is blank")
    if Pair(grey, grey).textured_blocks() < MIN_BLOCKS:
        return Refusal("too-little-texture", f"{name} has too little texture")
    return None


def rotated(name: str, angle_deg: float) -> Refusal:
    """Refuse a crop that is turned."""
    return Refusal(
        "rotated", f"{name} is rotated by {abs(angle_deg):.1f} degrees against the source"
    )
