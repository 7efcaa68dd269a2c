"""Recovering a lost bbox.pt from a track's crops and the frames they were cut from.

One frame is solved from scratch (`search`, `refine`), the answer is proved on it (`certificate`),
and a few frames spread over the track must confirm it. Where they do not, the cause is looked for
and named: nothing is written that a frame contradicts.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from converter.errors import MissingInputError
from converter.geometry.crop import BBox, Crop
from converter.geometry.pixels import Floats
from converter.media.images import ImageFiles
from converter.track import Frames
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
from fitting.crop.pixelwise import descend_by_pixels, off_by_look, rank_by_look
from fitting.crop.pyramid import find_places
from fitting.crop.refine import (
    Agreement,
    Pair,
    Ranking,
    climb,
    climb_by_pixels,
    descend,
    pixel_error,
    residual,
)
from fitting.crop.search import Estimate, find_features, mirrored
from fitting.crop.sequences import Crops, Sources, guess_sources, spread

# Right crops agree in at least 0.69 (noise of 10 grey levels) and 0.915, wrong ones in at most
# 0.46 and 0.845 (docs/recover-bbox.md); the limits lie between.
_MIN_SHARE = 0.60
_MIN_MEDIAN = 0.88
_MIN_CERTAINTY = 4.0
_MAX_OFF_LATTICE_PX = 0.35
_MAX_CORNER_PX = 0.35
_MIN_BLOCKS = 8
_BLANK_STD = 1.5
_DARK = 24
_MAX_ANGLE_DEG = 1.0
_MAX_STRETCH = 0.02
_MANY_INLIERS = 16
_MORE_FRAMES = 9
_SHRINKS = (1, 2, 4)
_MAX_TWINS = 64
_NEAREST = 16

Progress = Callable[[str, int, int], None]


def recover_crop(
    crops: Frames,
    sources: Frames,
    guesses: Sequence[int] | None = None,
    *,
    n_frames: int = 3,
    progress: Progress | None = None,
) -> CropCertificate:
    """Find the box by which ``crops`` were cut from ``sources``, and prove it.

    Parameters
    ----------
    crops
        The tracker's square images, or bare cuts of another shape.
    sources
        Source frames, any number of them.
    guesses
        For each crop, the position of its source frame; by names or order if None. Off by a few
        frames does no harm: pairs are found by content.
    n_frames
        Frames to check, spread over the track. More are read where that is not enough.
    progress
        Called with ("recover bbox", done, total).

    Returns
    -------
    CropCertificate, refused with the cause where there is no certain answer.

    Raises
    ------
    MissingInputError
        If there are no crops or no source frames.
    UncropError
        If an image cannot be read.

    """
    for frames, what in ((crops, "crops"), (sources, "source frames")):
        if len(frames) == 0:
            raise MissingInputError(what, "at least one image", "none")
    guessed = guess_sources(crops, sources) if guesses is None else list(guesses)
    work = _Recovery(Crops(crops), Sources(sources), guessed, n_frames, progress)
    return work.run()


@dataclass(frozen=True, slots=True)
class _Refusal:
    cause: str
    reason: str

    def certificate(self) -> CropCertificate:
        return CropCertificate("refused", cause=self.cause, reason=self.reason)


@dataclass(frozen=True, slots=True)
class _Checked:
    """One frame whose crop was compared with its re-render."""

    pair: Pair
    comparison: Comparison
    crops: tuple[Crop, ...]
    """Crops that give the compared image, the best first."""
    agreement: Agreement


@dataclass(frozen=True, slots=True)
class _Padding:
    """How much of the mapping was cut: the crop, and others that no pixel tells from it."""

    crops: tuple[Crop, ...]
    comparison: Comparison


class _Recovery:
    def __init__(
        self,
        crops: Crops,
        sources: Sources,
        guesses: list[int],
        n_frames: int,
        progress: Progress | None,
    ) -> None:
        self._crops, self._sources, self._guesses = crops, sources, guesses
        self._offset = 0
        self._n_frames = n_frames
        self._progress = progress
        self._size = sources.frames.size
        self._output = crops.frames.size

    def run(self) -> CropCertificate:
        if self._output.width != self._output.height:
            return self._bare_cut()
        picks = spread(len(self._crops), self._n_frames)
        self._sources.prefetch([self._guess(i) for i in picks])
        first = self._first(picks)
        if isinstance(first, _Refusal):
            return first.certificate()
        self._report(1)
        mapping = Mapping.of_crop(first.crops[0])
        checked = self._others(first, mapping, [i for i in picks if i != first.pair.index])
        if isinstance(checked, _Refusal):
            return checked.certificate()
        return self._verdict(mapping, [first, *checked])

    def _report(self, done: int) -> None:
        if self._progress is not None:
            self._progress("recover bbox", done, max(self._n_frames, done))

    # --- one frame from scratch ---------------------------------------------------------------

    def _guess(self, index: int) -> int:
        return int(np.clip(self._guesses[index] + self._offset, 0, len(self._sources) - 1))

    def _first(self, picks: list[int]) -> _Checked | _Refusal:
        """Solve the first frame that can be solved; middle frames are the likeliest to show much.

        Frames without content prove nothing and are passed over; any other failure is final.
        """
        more = [i for i in spread(len(self._crops), _MORE_FRAMES) if i not in picks]
        refusal = _Refusal("blank", "the crops are blank")
        for index in sorted(picks, key=lambda i: abs(i - picks[len(picks) // 2])) + more:
            found = self._solve(index)
            if isinstance(found, _Checked):
                self._offset = found.pair.source_index - self._guesses[index]
                return found
            refusal = found
            if found.cause not in ("blank", "too-little-texture"):
                break
        return refusal

    def _solve(self, index: int) -> _Checked | _Refusal:
        grey = self._crops.grey(index)
        refusal = _without_content(grey, self._crops.name(index))
        if refusal is not None:
            blank = refusal.cause == "blank"
            return refusal if blank else self._by_pixels_alone(index) or refusal
        solved: tuple[Pair, Mapping] | None = None
        for source_index in self._near(index, 1):
            pair = self._pair(index, source_index)
            solved = self._locate(pair)
            if solved is not None:
                break
        found = None if solved is None else self._proved(*solved)
        return found or self._by_pixels_alone(index) or self._diagnosis(index)

    def _by_pixels_alone(self, index: int) -> _Checked | None:
        """Find a crop of little texture by its slopes; nothing but equal pixels is taken for proof.

        One level is allowed as ever. The place has to be the only one of its kind in the frame.
        """
        guessed = self._pair(index, self._guess(index))
        for place in find_places(guessed.crop, guessed.source):
            start = descend_by_pixels(guessed, place.edges)
            if start is None or not start.is_possible(self._size):
                continue
            for source_index in self._near(index, 2):
                pair = self._pair(index, source_index)
                best = climb_by_pixels(pair, start, self._size)
                checked = self._check(pair, best)
                if checked.comparison.max_abs_diff <= 1:
                    return None if _is_repeated(pair, best) else checked
        return None

    def _pair(self, index: int, source_index: int) -> Pair:
        grey, source = self._crops.grey(index), self._sources.grey(source_index)
        return Pair(grey, source, index, source_index)

    def _near(self, index: int, reach: int) -> list[int]:
        """Positions around the guess, nearest first."""
        guess = self._guess(index)
        steps = sorted(range(-reach, reach + 1), key=abs)
        return [guess + s for s in steps if 0 <= guess + s < len(self._sources)]

    def _locate(self, pair: Pair) -> tuple[Pair, Mapping] | None:
        """Estimate, descend and climb; None where the result does not agree.

        Noise hides the texture of small blocks: then the images are compared at a smaller size.
        """
        estimate = self._sources.searcher(pair.source_index).find(pair.crop)
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
        ranking = climb([pair], found[0], self._size)
        if ranking is None or not _agrees(pair.agreement(ranking.best)):
            return None
        return pair, ranking.best

    def _proved(self, pair: Pair, mapping: Mapping) -> _Checked | None:
        """Compare every pixel; if they differ, look for the right source frame first."""
        checked = self._check(pair, mapping)
        if not checked.comparison.is_equal:
            better, there = self._best_source(pair, mapping, reach=2)
            if better.source_index != pair.source_index:
                checked = self._check(better, there)
        if not checked.comparison.is_equal:
            checked = self._by_pixels(checked)
        return checked if _agrees(checked.agreement) else None

    def _by_pixels(self, checked: _Checked) -> _Checked:
        """Look for an exact neighbour by plain differences.

        Correlation of dark or noisy blocks may miss by a pixel what unaltered pixels still tell.
        """
        pair, mapping = checked.pair, Mapping.of_crop(checked.crops[0])
        best = climb_by_pixels(pair, mapping, self._size)
        if best == mapping:
            return checked
        found = self._check(pair, best)
        return found if found.comparison.max_abs_diff <= 1 else checked

    def _best_source(self, pair: Pair, mapping: Mapping, reach: int) -> tuple[Pair, Mapping]:
        """Find the source frame whose re-render is most like the crop, and its mapping.

        Frames around the pair's own are tried, further while they become better. Each gets its own
        mapping: in a crop of nothing but a face, a neighbouring frame fits where the face was.
        """
        best, where, score = pair, mapping, pair.similarity(mapping)
        tried = {pair.source_index}
        centres = {pair.source_index, *self._by_rate(pair.index)}
        while centres:
            centre = centres.pop()
            for j in range(centre - reach, centre + reach + 1):
                if j in tried or not 0 <= j < len(self._sources):
                    continue
                tried.add(j)
                other = self._pair(pair.index, j).shrunk(pair.shrink)
                here = self._moved(other, mapping)
                if other.similarity(here) > score:
                    best, where, score = other, here, other.similarity(here)
                    centres.add(j)
        if best is pair:
            return pair, mapping
        ranking = climb([best], where, self._size)
        return (best, ranking.best) if ranking is not None else (pair, mapping)

    def _moved(self, pair: Pair, mapping: Mapping) -> Mapping:
        """The mapping near ``mapping`` that fits best, found at a small size first."""
        edges = mapping.edges
        for other in (pair.shrunk(4), pair):
            found = descend(other, edges)
            if found is not None:
                edges = found[0].edges
        return max(mapping, Mapping.rounded(edges), key=pair.similarity)

    def _by_rate(self, index: int) -> list[int]:
        """Where the source frame would be if both sequences ran over the same time."""
        n_crops, n_sources = len(self._crops), len(self._sources)
        if n_crops in (1, n_sources) or not isinstance(self._sources.frames, ImageFiles):
            return []
        return [round(index * (n_sources - 1) / (n_crops - 1))] if n_crops < n_sources else []

    def _check(self, pair: Pair, mapping: Mapping) -> _Checked:
        padding = self._padding(pair, mapping)
        return _Checked(pair, padding.comparison, padding.crops, pair.agreement(mapping))

    # --- padding ------------------------------------------------------------------------------

    def _padding(self, pair: Pair, mapping: Mapping) -> _Padding:
        """Settle what was cut and what padded; the mapping, hence the cameras, is the same for all.

        Every padding that the border of the crop suggests is compared whole; where none is equal,
        the rows in question decide (`fitting.crop.padding`).
        """
        least = next(mapping.crops(self._size, self._output))
        best, best_crop = self._compare(pair, least), least
        if best.max_abs_diff > 1:
            for crop in self._suggested(pair, mapping, least):
                comparison = self._compare(pair, crop)
                if comparison.max_abs_diff < best.max_abs_diff:
                    best, best_crop = comparison, crop
        if best.max_abs_diff <= 1:
            return _Padding(self._twins(pair, mapping, best_crop, best), best)
        crops = PaddingSearch(pair, mapping).settle()
        crops = tuple(sorted(crops, key=lambda c: self._preference(c.bbox)))
        return _Padding(crops, self._compare(pair, crops[0]))

    def _suggested(self, pair: Pair, mapping: Mapping, least: Crop) -> list[Crop]:
        """Crops with more padding than needed, as the black border of an unaltered crop shows."""
        found = []
        extents = mapping.size.width / self._output.width, mapping.size.height / self._output.height
        needed = (least.pad_x, least.pad_y)
        for axis, dark in enumerate(border(pair.crop, 0, _DARK)):
            rows = round(dark * extents[axis])
            near = range(max(rows - 3, needed[axis] + 1), rows + 5)
            found += [padded(mapping, self._size, self._output, axis, p) for p in near if dark]
        return [c for c in found if c is not None]

    def _twins(
        self, pair: Pair, mapping: Mapping, crop: Crop, comparison: Comparison
    ) -> tuple[Crop, ...]:
        """All crops of the mapping with the very same image, a legal one first."""
        twins = [crop]
        reference = render_grey(pair.source, mapping, self._output, crop.bbox)
        for axis in (0, 1):
            for direction in (-1, 1):
                pad = (crop.pad_x, crop.pad_y)[axis]
                for _ in range(_MAX_TWINS):
                    pad += direction
                    other = padded(mapping, self._size, self._output, axis, pad)
                    if other is None or not np.array_equal(
                        render_grey(pair.source, mapping, self._output, other.bbox), reference
                    ):
                        break
                    if self._compare(pair, other) != comparison:
                        break
                    twins.append(other)
        return tuple(sorted(dict.fromkeys(twins), key=lambda c: self._preference(c.bbox)))

    def _preference(self, bbox: BBox) -> tuple[bool, int]:
        return not is_legal(bbox, self._size), -bbox.size.n_pixels

    def _compare(self, pair: Pair, crop: Crop) -> Comparison:
        image = self._crops.image(pair.index)
        return compare(image, self._sources.image(pair.source_index), crop)

    # --- the other frames ---------------------------------------------------------------------

    def _others(
        self, first: _Checked, mapping: Mapping, picks: list[int]
    ) -> list[_Checked] | _Refusal:
        checked = []
        for index in picks:
            found = self._confirm(first, mapping, index)
            if isinstance(found, _Refusal):
                return found
            if found is not None:
                checked.append(found)
            self._report(1 + len(checked))
        return checked

    def _confirm(self, first: _Checked, mapping: Mapping, index: int) -> _Checked | _Refusal | None:
        """Hold a further frame against the mapping; None where it has nothing to say."""
        pair = self._pair(index, self._guess(index))
        for crop in first.crops[:2]:
            comparison = self._compare(pair, crop)
            if comparison.is_equal:
                crops = self._twins(pair, mapping, crop, comparison)
                return _Checked(pair, comparison, crops, pair.agreement(mapping))
        if _without_content(pair.crop, self._crops.name(index)) is not None:
            return None
        pair, there = self._best_source(pair.shrunk(first.pair.shrink), mapping, reach=1)
        checked = self._check(pair, mapping)
        if checked.comparison.max_abs_diff <= 1:
            return checked
        if there == mapping and _agrees(checked.agreement):
            ranking = climb([pair], mapping, self._size)
            if ranking is None or ranking.best == mapping or not _prefers(ranking, mapping):
                return checked
        alone = self._solve(index)
        if isinstance(alone, _Checked):
            other = Mapping.of_crop(alone.crops[0])
            if other == mapping:
                return alone
            return self._two_boxes(first, alone)
        if alone.cause in ("blank", "too-little-texture"):
            return None
        return replace(
            alone,
            reason=f"{alone.reason}; {self._crops.name(first.pair.index)} alone fits bbox "
            f"{first.crops[0].bbox}",
        )

    def _two_boxes(self, one: _Checked, other: _Checked) -> _Refusal:
        """Find by bisection where the boxes change."""
        a, b = sorted((one, other), key=lambda c: c.pair.index)
        low, high = a.pair.index, b.pair.index
        first, second = Mapping.of_crop(a.crops[0]), Mapping.of_crop(b.crops[0])
        while high - low > 1:
            middle = (low + high) // 2
            if self._fits_better(middle, first, second):
                low = middle
            else:
                high = middle
        name = self._crops.name
        start, end = a.pair.index, b.pair.index
        if self._fits_better(0, first, second):
            start = 0
        if self._fits_better(len(self._crops) - 1, second, first):
            end = len(self._crops) - 1
        return _Refusal(
            "two-boxes",
            f"the folder holds crops of two boxes: {name(start)} to {name(low)} were cut by "
            f"{a.crops[0].bbox}, {name(high)} to {name(end)} by {b.crops[0].bbox} "
            "(the change was found by bisection)",
        )

    def _fits_better(self, index: int, one: Mapping, other: Mapping) -> bool:
        pair = self._pair(index, self._guess(index))
        return pair.similarity(one) >= pair.similarity(other)

    # --- verdict ------------------------------------------------------------------------------

    def _verdict(self, mapping: Mapping, checked: list[_Checked]) -> CropCertificate:
        worst = max(c.comparison.max_abs_diff for c in checked)
        if worst <= 1:
            ranking = climb([checked[0].pair], mapping, self._size)
            twin = self._other_mapping(checked, mapping, ranking, worst)
            if twin is not None:
                return _Refusal(
                    "too-little-texture",
                    f"boxes with different cameras give the same images, {checked[0].crops[0].bbox}"
                    f" and {twin}: the crops show too little",
                ).certificate()
            return self._certificate(checked, ranking, "exact" if worst == 0 else
                                     "exact-up-to-build")  # fmt: skip
        return self._consistent(mapping, checked)

    def _other_mapping(
        self, checked: list[_Checked], mapping: Mapping, ranking: Ranking | None, limit: int
    ) -> BBox | None:
        """Return a box of another mapping that no frame rules out, if there is one."""
        if ranking is None:
            pair = checked[0].pair
            near = mapping.neighbours(self._size)
            near = sorted(near, key=lambda m: pixel_error(pair, m))[:_NEAREST]
        else:
            near = sorted(
                (m for m in ranking.costs if m != mapping), key=lambda m: ranking.costs[m]
            )[:3]
        for other in near:
            crop = next(other.crops(self._size, self._output))
            if all(self._compare(c.pair, crop).max_abs_diff <= limit for c in checked):
                return crop.bbox
        return None

    def _consistent(self, mapping: Mapping, checked: list[_Checked]) -> CropCertificate:
        used = {c.pair.index for c in checked}
        more = [i for i in spread(len(self._crops), _MORE_FRAMES) if i not in used]
        while True:
            pairs = [c.pair for c in checked]
            ranking = self._ranked(pairs, mapping)
            if ranking is not None and ranking.certainty >= _MIN_CERTAINTY:
                break
            if not more:
                off = self._off_the_lattice(pairs, mapping)
                return (off or self._uncertain(mapping, ranking)).certificate()
            found = self._confirm(checked[0], mapping, more.pop(len(more) // 2))
            if isinstance(found, _Refusal):
                return found.certificate()
            if found is not None:
                checked = [*checked, found]
                self._report(len(checked))
        if ranking.best != mapping:
            mapping = ranking.best
            checked = [self._check(pair, mapping) for pair in pairs]
            if not all(_agrees(c.agreement) for c in checked):
                return self._uncertain(mapping, ranking).certificate()
        refusal = self._off_the_lattice(pairs, mapping)
        if refusal is not None:
            return refusal.certificate()
        return self._certificate(checked, ranking, "consistent")

    def _ranked(self, pairs: Sequence[Pair], mapping: Mapping) -> Ranking | None:
        """Rank the neighbourhood by correlation; where that leaves doubt, by the pixels themselves.

        Neither may be sure of another mapping than the other is sure of.
        """
        ranking = climb(pairs, mapping, self._size)
        if ranking is None or ranking.certainty >= _MIN_CERTAINTY:
            return ranking
        near = sorted(ranking.costs, key=ranking.costs.__getitem__)[:_NEAREST]
        by_look = rank_by_look(pairs, ranking.best, near)
        if by_look is not None and by_look.best != ranking.best:
            by_look = rank_by_look(pairs, by_look.best, [*near, ranking.best])
        return by_look if by_look is not None else ranking

    def _off_the_lattice(self, pairs: Sequence[Pair], mapping: Mapping) -> _Refusal | None:
        """Refuse edges that are no whole numbers, and rotation: no tracker cut these images."""
        left = residual(pairs, mapping)
        if left is None:
            return _Refusal("too-little-texture", "too little texture agrees with the source")
        if left.corner_px > _MAX_CORNER_PX:
            pair = pairs[0]
            estimate = self._sources.searcher(pair.source_index).find(pair.crop)
            angle = left.angle_deg if estimate is None else estimate.angle_deg
            return _rotated(self._crops.name(pair.index), angle)
        worst = float(np.max(np.abs(left.edges)))
        if worst > _MAX_OFF_LATTICE_PX:  # noise alone may say so: the pixels themselves decide
            by_look = off_by_look(pairs, mapping)
            if by_look is not None:
                worst = float(np.max(np.abs(by_look)))
        if worst > _MAX_OFF_LATTICE_PX:
            return _Refusal(
                "off-lattice",
                f"the best edges lie {worst:.2f} px off whole pixels: the crops were resized, "
                "shifted or cut by something else than the tracker",
            )
        return None

    def _uncertain(self, mapping: Mapping, ranking: Ranking | None) -> _Refusal:
        boxes = [str(next(mapping.crops(self._size, self._output)).bbox)]
        if ranking is not None:
            others = [m for m in (ranking.best, ranking.runner_up) if m not in (None, mapping)]
            boxes += [str(next(m.crops(self._size, self._output)).bbox) for m in others if m]
        return _Refusal(
            "not-certain",
            f"boxes with different cameras fit equally well ({' and '.join(boxes[:2])})",
        )

    def _certificate(
        self, checked: list[_Checked], ranking: Ranking | None, verdict: Verdict
    ) -> CropCertificate:
        crops = [c for c in checked[0].crops if all(c in other.crops for other in checked[1:])]
        if not crops:  # frames disagree on the padding: none of them is certain of it
            crops = list(dict.fromkeys(c for each in checked for c in each.crops))
        crop = crops[0]
        name = (self._crops.name, self._sources.name)
        worst = max(checked, key=lambda c: (c.comparison.max_abs_diff, c.comparison.differing_px))
        reason, cause = "", ""
        if len(crops) > 1:
            verdict, cause = "ambiguous", "same-image"
            reason = (
                "these boxes give the same images and the same cameras; the one that the tracker "
                "itself can make comes first"
            )
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
                FramePair(name[0](c.pair.index), name[1](c.pair.source_index)) for c in checked
            ),
        )

    # --- what went wrong ----------------------------------------------------------------------

    def _diagnosis(self, index: int) -> _Refusal:
        """Name the fault of a crop that fits nowhere."""
        grey, name = self._crops.grey(index), self._crops.name(index)
        source_index = self._guess(index)
        pair = self._pair(index, source_index)
        if self._is_whole_frame(pair):
            return _Refusal("not-cropped", f"{name} is the whole source frame, not cropped at all")
        searcher = self._sources.searcher(source_index)
        for fault, upright in mirrored(grey):
            flipped = Pair(upright, pair.source, index, source_index)
            if self._locate(flipped) is not None:
                return _Refusal("mirrored", f"{name} is {fault}")
        estimate = searcher.find(grey)
        if estimate is not None and estimate.n_inliers >= _MANY_INLIERS:
            if abs(estimate.angle_deg) > _MAX_ANGLE_DEG:
                return _rotated(name, estimate.angle_deg)
            if _MAX_STRETCH < abs(estimate.stretch - 1) < 1:
                return _Refusal(
                    "stretched", f"{name} is stretched by {estimate.stretch:.3f} in width"
                )
        if len(find_features(grey, 512)) < 16:
            return _Refusal("too-little-texture", f"{name} has too little texture to be found")
        return _Refusal(
            "other-video",
            f"{name} shows nothing of source frame {self._sources.name(source_index)} or those "
            "beside it: another video, or other frames of it",
        )

    def _is_whole_frame(self, pair: Pair) -> bool:
        import cv2

        size = (self._output.width, self._output.height)
        whole = cv2.resize(pair.source, size, interpolation=cv2.INTER_AREA)
        agreement = pair.agreement_with(np.asarray(whole, np.uint8))
        return agreement.share >= 0.75 and agreement.median >= _MIN_MEDIAN

    # --- bare cuts ----------------------------------------------------------------------------

    def _bare_cut(self) -> CropCertificate:
        """Images that are not square: cut and never resized, or whole frames."""
        import cv2

        checked: list[_Checked] = []
        for index in spread(len(self._crops), self._n_frames):
            pair = self._pair(index, self._guess(index))
            refusal = _without_content(pair.crop, self._crops.name(index))
            if refusal is not None and len(self._crops) == 1:
                return refusal.certificate()
            if refusal is None and self._is_whole_frame(pair):
                name = self._crops.name(index)
                return _Refusal(
                    "not-cropped", f"{name} is the whole source frame, not cropped at all"
                ).certificate()
            found = None
            for source_index in self._near(index, 2):
                source = self._sources.grey(source_index)
                if any(a > b for a, b in zip(pair.crop.shape, source.shape, strict=True)):
                    break
                score = cv2.matchTemplate(source, pair.crop, cv2.TM_SQDIFF)
                x, y = (int(v) for v in cv2.minMaxLoc(score)[2])
                box = BBox(x, x + self._output.width, y, y + self._output.height)
                crop = Crop(box, 0, 0, self._size, self._output)
                here = self._pair(index, source_index)
                comparison = self._compare(here, crop)
                if comparison.max_abs_diff == 0:
                    found = _Checked(here, comparison, (crop,), Agreement(0, 1.0, 1.0))
                    break
            if found is None or (checked and checked[0].crops != found.crops):
                return _Refusal(
                    "not-square",
                    f"{self._crops.name(index)} is not square, and is no plain cut of a source "
                    "frame that all crops share",
                ).certificate()
            checked.append(found)
        return self._certificate(checked, None, "exact")


def _agrees(agreement: Agreement) -> bool:
    return (
        agreement.n_blocks >= _MIN_BLOCKS
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


def _prefers(ranking: Ranking, mapping: Mapping) -> bool:
    """Whether a frame alone fits another mapping clearly better."""
    near = max(abs(ranking.best.edges - mapping.edges)) <= 1
    return ranking.certainty >= (_MIN_CERTAINTY if not near else 2 * _MIN_CERTAINTY)


def _without_content(grey: Grey, name: str) -> _Refusal | None:
    if float(np.std(grey)) < _BLANK_STD:
        return _Refusal("blank", f"{name} is blank")
    if Pair(grey, grey).textured_blocks() < _MIN_BLOCKS:
        return _Refusal("too-little-texture", f"{name} has too little texture")
    return None


def _rotated(name: str, angle_deg: float) -> _Refusal:
    return _Refusal(
        "rotated", f"{name} is rotated by {abs(angle_deg):.1f} degrees against the source"
    )
