"""One frame: where its crop lies in its source frame, found from scratch and proved.

`Solver` ends with a `Checked` frame, or with a `Refusal` that names the cause.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np

from converter.geometry.pixels import Floats
from converter.media.images import ImageFiles
from converter.media.parallel import spread_out
from fitting.crop.certificate import CropCertificate, FramePair, Verdict
from fitting.crop.checker import Checked, Checker
from fitting.crop.mapping import Grey, Mapping
from fitting.crop.pair import MIN_BLOCKS, Agreement, Pair
from fitting.crop.pixelwise import CERTAINLY, descend_by_pixels
from fitting.crop.pyramid import Place, find_places, is_repeated
from fitting.crop.refine import (
    Ranking,
    climb,
    climb_by_pixels,
    descend,
    pixel_error,
    squared,
)
from fitting.crop.search import (
    FAST,
    QUICK,
    SMALL,
    THOROUGH,
    TINY,
    USUAL,
    Attempt,
    Estimate,
    estimates,
    find_mirrored,
)
from fitting.crop.sequences import Crops, Sources, paired
from fitting.crop.still import is_repeated_beside, stands_still

# Right crops agree in at least 0.69 (noise of 10 grey levels) and 0.915, wrong ones in at most
# 0.46 and 0.845 (docs/recover-bbox.md); the limits lie between.
_MIN_SHARE = 0.60
_MIN_MEDIAN = 0.88
_NEARLY_ALL, _MIN_MEDIAN_OF_ALL = 0.9, 0.85
"""Noise in the dark lowers all correlations: a little less will do where nearly all agree."""
_MIN_FACE_SHARE = 0.5
"""Share of the face that has to agree: right ones came to 0.6 behind a hand, 0.83 without."""
_BLANK_STD = 1.5
_MAX_ANGLE_DEG = 1.0
_MAX_STRETCH = 0.02
_MANY_INLIERS = 16
_SHRINKS = (1, 2, 4)
_USUAL_SIDE = 512
_MAX_ENLARGED = 10
_ENLARGED = 3
"""How much a smooth crop was enlarged at the least, unless it is smooth for another reason."""
_EXPLAINED = 0.75
_NEARLY_LEVELS = 8.0
"""Mean difference from which on no neighbour of a mapping can be the one with equal pixels."""
_ROUGH_SIDE, _CLEARLY_LESS = 128, 0.03
"""Size, px, at which pairs are held against each other first, and correlation that decides."""
_LIKELY_PLACE = 0.9
_FEW_FEATURES = 16
_MAX_MISFIT, _MISFIT_LEVELS = 0.5, 2.0
"""Mean difference, in units of the crop's own deviation and in grey levels on top, beyond which
pixels next to a place are not worth a look."""


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why there is no answer: a stable id, and a sentence."""

    cause: str
    reason: str

    def certificate(self) -> CropCertificate:
        """Return it as the result of the whole recovery."""
        return CropCertificate("refused", cause=self.cause, reason=self.reason)


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
        self.checker = Checker(crops, sources)
        self._found_places: dict[int, list[Place]] = {}
        self._repeated: dict[tuple[int, int, Mapping], bool] = {}

    @property
    def is_one_to_one(self) -> bool:
        """Whether there are as many crops as source frames."""
        return len(self.crops) == len(self.sources)

    @property
    def is_numbered(self) -> bool:
        """Whether it is known whose source frame is whose without looking at all of them.

        There are as many files of each, and the one looked at was where its name says.
        """
        is_file = isinstance(self.sources.frames, ImageFiles)
        return is_file and self.is_one_to_one and not self.offset

    def guess(self, index: int) -> int:
        """Position of a crop's source frame, as far as is known, inside the sequence."""
        return int(np.clip(self.guesses[index] + self.offset, 0, len(self.sources) - 1))

    def solve(self, index: int) -> Checked | Refusal:
        """Find and prove the mapping of one crop from scratch."""
        refusal = without_content(self.crops.grey(index), self.crops.name(index))
        if refusal is not None:
            blank = refusal.cause == "blank"
            return refusal if blank else self._by_pixels_alone(index) or refusal
        known: list[Estimate] = []
        for attempts in self._stages(index):
            found = self._locate(index, attempts, known)
            proved = None if found is None else self._proved(*found)
            # What can be proved to be a fault is looked for before what takes long.
            done = proved or self._fault(index, known, attempts)
            if done is not None:
                return done
        return self._by_pixels_alone(index) or self._nothing_found(index)

    def _stages(self, index: int) -> Iterator[Sequence[Attempt]]:
        """Ways to look for a crop, those that cost little first."""
        yield FAST
        is_smooth = self.crops.described(index).is_smooth
        if is_smooth:
            yield TINY
        yield SMALL
        yield [attempt for attempt in USUAL if not (is_smooth and attempt in TINY)]
        yield THOROUGH

    def solve_quickly(self, index: int) -> Checked | None:
        """As `solve`, by features that cost little; None where they do not lead to an answer."""
        if without_content(self.crops.grey(index), self.crops.name(index)) is not None:
            return None
        found = self._locate(index, QUICK, [])
        proved = None if found is None else self._proved(*found)
        return proved if isinstance(proved, Checked) else None

    def _by_pixels_alone(self, index: int) -> Checked | None:
        """Find a crop of little texture by its slopes; nothing but equal pixels is taken for proof.

        One level is allowed as ever. The place has to be the only one of its kind in the frame.
        """
        guessed = self.pair(index, self.guess(index))
        deviation = float(np.mean(np.abs(guessed.crop - np.mean(guessed.crop))))
        limit = _MAX_MISFIT * deviation + _MISFIT_LEVELS
        for place in self._places(index):
            start = descend_by_pixels(guessed, place.edges, limit)
            if start is None or not start.is_possible(self.size):
                continue
            for source_index in self.near(index, 2):
                pair = self.pair(index, source_index)
                if pixel_error(pair, start) > limit:
                    continue
                best = climb_by_pixels(pair, start, self.size)
                found = self.checker.equal(pair, best)
                if found is not None:
                    crops = self.checker.twins(pair, best, *found)
                    checked = Checked(pair, found[1], crops, pair.agreement(best))
                    return None if is_repeated(pair, best) else checked
        return None

    def paired(self) -> list[int]:
        """Crops whose source frame is there, as far as is known; all, if it is of none."""
        return paired([guess + self.offset for guess in self.guesses], len(self.sources))

    def with_source(self, index: int) -> int:
        """Return the crop nearest to ``index`` whose source frame is there."""
        if 0 <= self.guesses[index] + self.offset < len(self.sources):
            return index
        return min(self.paired(), key=lambda i: abs(i - index))

    def pair(self, index: int, source_index: int) -> Pair:
        """Return a crop and a source frame as grey images."""
        grey, source = self.crops.grey(index), self.sources.grey(source_index)
        return Pair(grey, source, index, source_index)

    def stands_still(self, there: Pair, mapping: Mapping, index: int) -> bool:
        """Whether a crop was cut as that of a pair was, by what stands still in its source frame.

        Parameters
        ----------
        there, mapping
            A crop with its source frame, and what the crop shows of it.
        index
            Another crop.

        """
        other = self.pair(index, there.source_index).shrunk(there.shrink)
        if not stands_still(there, other, mapping):
            return False
        key = there.index, there.source_index, mapping
        if key not in self._repeated:
            self._repeated[key] = is_repeated_beside(there, mapping)
        return not self._repeated[key]

    def near(self, index: int, reach: int) -> list[int]:
        """Positions around the guess, nearest first."""
        guess = self.guess(index)
        steps = sorted(range(-reach, reach + 1), key=abs)
        return [guess + s for s in steps if 0 <= guess + s < len(self.sources)]

    def _locate(
        self, index: int, attempts: Sequence[Attempt], known: list[Estimate]
    ) -> tuple[Pair, Mapping] | None:
        """Descend and climb from where the crop may lie until the result agrees.

        What is estimated is added to what is ``known``. Likely places come after features.
        """
        for pair, edges in self._estimated(index, attempts, known):
            found = self._settle(pair, edges)
            if found is not None:
                return found
        if any(_certainly_askew(estimate) for estimate in known):
            return None
        pair = self.pair(index, self.guess(index))
        for place in self._likely(pair, attempts):
            found = self._settle_at(pair, place.edges)
            if found is not None and _is_the_place(*found):
                return found
        return None

    def _estimated(
        self, index: int, attempts: Sequence[Attempt], known: list[Estimate]
    ) -> Iterator[tuple[Pair, Floats]]:
        """Yield where a crop may lie by its features, until it is certainly askew.

        Where the last attempts end, in the frames beside the guessed one, too.
        """
        here, *beside = self.near(index, 1)
        pair = self.pair(index, here)
        crop, source = self.crops.described(index), self.sources.described(here)
        for estimate in estimates(crop, source, attempts, known):
            if _certainly_askew(estimate):
                return
            if not _is_askew(estimate):
                yield pair, estimate.edges
        upright = [estimate for estimate in known if not _is_askew(estimate)]
        if attempts is THOROUGH and upright:
            best = max(upright, key=lambda e: e.n_inliers)
            self.sources.begin(beside)
            for there in beside:
                yield self.pair(index, there), best.edges

    def _likely(self, pair: Pair, attempts: Sequence[Attempt]) -> list[Place]:
        """Likely places of a crop, as far as they are worth a look after these attempts."""
        if attempts is TINY:
            return find_places(pair.crop, pair.source, self.output.width / _ENLARGED)
        return self._places(pair.index) if attempts is THOROUGH else []

    def _places(self, index: int) -> list[Place]:
        """Likely places of a crop in its source frame, whether it has features or not."""
        if index not in self._found_places:
            guessed = self.pair(index, self.guess(index))
            self._found_places[index] = find_places(guessed.crop, guessed.source)
        return self._found_places[index]

    def _settle(self, pair: Pair, edges: Floats) -> tuple[Pair, Mapping] | None:
        """Descend and climb from an estimate; None where the result does not agree.

        Noise hides the texture of small blocks: then the images are compared at a smaller size.
        """
        usual = max(self.output.width // _USUAL_SIDE, 1)  # large crops show no more than these
        for shrink in _SHRINKS:
            found = self._settle_at(pair.shrunk(shrink * usual), edges)
            if found is not None and shrink > 1:
                return self._settle_at(pair.shrunk(usual), found[1].edges) or found
            if found is not None:
                return found
        return None

    def _settle_at(self, pair: Pair, edges: Floats) -> tuple[Pair, Mapping] | None:
        found = descend(pair, edges)
        if found is None:
            return None
        if min(found[0].size.width, found[0].size.height) * _MAX_ENLARGED < self.output.width:
            return None  # blocks would show slopes of a pixel or two, which agree with anything
        best = found[0]
        if not (best.is_possible(self.size) and self.checker.is_equal(pair, best)):
            ranking = climb([pair], best, self.size)
            if ranking is None:
                return None
            best = ranking.best
        return (pair, best) if agrees(pair.agreement(best)) else None

    def _proved(self, pair: Pair, mapping: Mapping) -> Checked | Refusal | None:
        """Compare every pixel; if they differ, look for the right source frame first.

        Correlation of dark or noisy blocks may miss by a pixel what unaltered pixels still tell:
        then the neighbour with the smallest differences is tried. Where the room agrees and the
        face does not, the crop was cut from a frame that is not there.
        """
        is_equal = self.checker.is_equal
        if not is_equal(pair, mapping):
            pair, mapping = self.best_source(pair, mapping, reach=2)
        if not is_equal(pair, mapping) and pixel_error(pair, mapping) <= _NEARLY_LEVELS:
            ranking = climb([pair], mapping, self.size)
            if ranking is None or ranking.certainty < CERTAINLY:
                nearest = climb_by_pixels(pair, mapping, self.size)
                if nearest != mapping and self.checker.equal(pair, nearest) is not None:
                    mapping = nearest
        checked = self.checker.check(pair, mapping)
        if not agrees(checked.agreement):
            return None
        face = pair.agreement_in_the_middle(mapping)
        if face.n_blocks >= MIN_BLOCKS and face.share < _MIN_FACE_SHARE:
            source = source_frame(self.sources.name(pair.source_index))
            return Refusal(
                "other-video",
                f"{self.crops.name(pair.index)} shows the room of {source}, and "
                "another head in it: other frames of the video, or another video made there",
            )
        return checked

    def best_source(self, pair: Pair, mapping: Mapping, reach: int) -> tuple[Pair, Mapping]:
        """Find the source frame whose re-render is most like the crop, and its mapping.

        Frames around the pair's own are tried, further while they become better. Each gets its own
        mapping: in a crop of nothing but a face, a neighbouring frame fits where the face was.
        """
        if self._is_best_crop(pair, mapping, reach):
            return pair, mapping
        best, where, score = pair, mapping, pair.similarity(mapping)
        tried = {pair.source_index}
        centres = {pair.source_index, *self._by_rate(pair.index)}
        while new := _around(centres, tried, reach, len(self.sources)):
            tried.update(new)
            centres = set()
            self.sources.prefetch(new)
            others = [self.pair(pair.index, j).shrunk(pair.shrink) for j in new]
            moved = self._all_moved(pair, mapping, others)
            for other, (here, found) in zip(others, moved, strict=True):
                if found > score:
                    best, where, score = other, here, found
                    centres = {other.source_index}
        if best is pair:
            return pair, mapping
        ranking = climb([best], where, self.size)
        return (best, ranking.best) if ranking is not None else (pair, mapping)

    def _is_best_crop(self, pair: Pair, mapping: Mapping, reach: int) -> bool:
        """Whether no crop beside a pair's own fits its source frame as well.

        Where there is a crop for every source frame, the source frame is its crop's then; crops are
        read in a tenth of the time that source frames take.
        """
        if not self.is_one_to_one or not isinstance(self.sources.frames, ImageFiles):
            return False
        near = _around([pair.index], [pair.index], reach, len(self.crops))
        readable = [i for i in near if self.crops.is_readable(i)]
        others = [self.pair(i, pair.source_index).shrunk(pair.shrink) for i in readable]
        found = self._all_moved(pair, mapping, others)
        own = pair.similarity(mapping)
        return bool(found) and all(score < own for _, score in found)

    def _all_moved(
        self, own: Pair, mapping: Mapping, others: Sequence[Pair]
    ) -> list[tuple[Mapping, float]]:
        """The mappings near ``mapping`` under which other pairs fit best, and how well.

        Small images come first: what fits clearly less than ``own`` there is left at 0.
        """
        shrink = max(self.output.width // _ROUGH_SIDE, 1)
        least = own.shrunk(shrink).similarity(mapping) - _CLEARLY_LESS
        return spread_out(partial(self._moved, mapping, shrink, least), others)

    def _moved(
        self, mapping: Mapping, shrink: int, least: float, other: Pair
    ) -> tuple[Mapping, float]:
        small, edges = other.shrunk(shrink), mapping.edges
        found = descend(small, edges, near=True)
        if found is not None:
            edges = found[1]
        there = Mapping.rounded(squared(edges))
        if max(small.similarity(mapping), small.similarity(there)) < least:
            return mapping, 0.0
        here = mapping, other.similarity(mapping)
        if np.all(np.abs(edges - mapping.edges) < 0.5):
            return here
        found = descend(other, edges, near=True)
        there = there if found is None else Mapping.rounded(squared(found[1]))
        return max(here, (there, other.similarity(there)), key=lambda item: item[1])

    def _by_rate(self, index: int) -> list[int]:
        """Where the source frame would be if both sequences ran over the same time."""
        n_crops, n_sources = len(self.crops), len(self.sources)
        if n_crops in (1, n_sources) or not isinstance(self.sources.frames, ImageFiles):
            return []
        return [round(index * (n_sources - 1) / (n_crops - 1))] if n_crops < n_sources else []

    # --- what went wrong ----------------------------------------------------------------------

    def _fault(
        self, index: int, known: Sequence[Estimate], attempts: Sequence[Attempt]
    ) -> Refusal | None:
        """Name what was done to a crop that fits nowhere, where the ``attempts`` can prove it."""
        name, source_index = self.crops.name(index), self.guess(index)
        estimate = max(known, key=lambda e: (e.is_certain, e.n_inliers), default=None)
        if estimate is not None and _certainly_askew(estimate):
            return rotated(name, estimate.angle_deg)
        pair, thorough = self.pair(index, source_index), attempts is THOROUGH
        soon = attempts is FAST or attempts is TINY
        if (self._would_be_squeezed or not soon) and self.is_whole_frame(pair):
            return not_cropped(name)
        if attempts is TINY:
            return None
        crop, source = self.crops.described(index), self.sources.described(source_index)
        for found in find_mirrored(crop, source, attempts):
            flipped = Pair(found.upright, pair.source, index, source_index)
            if self._settle(flipped, found.estimate.edges) is not None:
                return Refusal("mirrored", f"{name} is {found.fault}")
        if not thorough or estimate is None or estimate.n_inliers < _MANY_INLIERS:
            return None
        if abs(estimate.angle_deg) > _MAX_ANGLE_DEG:
            return rotated(name, estimate.angle_deg, self.sources.name(source_index))
        if _MAX_STRETCH < abs(estimate.stretch - 1) < 1:
            return Refusal("stretched", f"{name} is stretched by {estimate.stretch:.3f} in width")
        return None

    @property
    def _would_be_squeezed(self) -> bool:
        """Whether a whole source frame cannot be mistaken for a crop, which keeps its aspect."""
        return abs(self.size.width / self.size.height - 1) > _MAX_STRETCH

    def _nothing_found(self, index: int) -> Refusal:
        """Say whether a crop shows too little, or something else than its source frame."""
        name, source_index = self.crops.name(index), self.guess(index)
        places = self._places(index)
        few = self.crops.described(index).n_features < _FEW_FEATURES
        if few or (places and places[0].score > _LIKELY_PLACE):
            return Refusal(
                "too-little-texture",
                f"{name} has too little texture, or lost too much of it, to be found for certain",
            )
        return Refusal(
            "other-video",
            f"{name} shows nothing of {source_frame(self.sources.name(source_index))} or those "
            "beside it: another video, or other frames of it",
        )

    def angle_deg(self, pair: Pair) -> float | None:
        """By how much a crop is turned against its source frame; None if that is not known."""
        crop, source = self.crops.described(pair.index), self.sources.described(pair.source_index)
        estimate = next(estimates(crop, source, (*FAST, *SMALL, *USUAL), []), None)
        return None if estimate is None else estimate.angle_deg

    def is_whole_frame(self, pair: Pair) -> bool:
        """Whether the crop is its whole source frame, resized."""
        import cv2

        size = (self.output.width, self.output.height)
        whole = cv2.resize(pair.source, size, interpolation=cv2.INTER_AREA)
        agreement = pair.agreement_with(np.asarray(whole, np.uint8))
        enough = agreement.n_blocks >= MIN_BLOCKS
        return enough and agreement.share >= 0.75 and agreement.median >= _MIN_MEDIAN


def certificate_of(
    solver: Solver,
    checked: Sequence[Checked],
    ranking: Ranking | None,
    verdict: Verdict,
    n_still: int = 0,
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
        frames_still=n_still,
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
    if agreement.n_blocks < MIN_BLOCKS or agreement.share < _MIN_SHARE:
        return False
    least = _MIN_MEDIAN if agreement.share < _NEARLY_ALL else _MIN_MEDIAN_OF_ALL
    return agreement.median >= least


def _is_the_place(pair: Pair, mapping: Mapping) -> bool:
    """Whether nearly all that a crop shows agrees, and in one place only.

    A place that was found by its likeness proves less than features, which have to be distinct.
    """
    agreement = pair.agreement(mapping)
    share = agreement.share * agreement.n_blocks / max(pair.textured_blocks(), 1)
    explained = share >= _EXPLAINED and agreement.share >= _NEARLY_ALL
    return explained and not is_repeated(pair, mapping, nearly=True)


def _around(centres: Collection[int], tried: Collection[int], reach: int, length: int) -> list[int]:
    """Positions in a sequence up to ``reach`` beside some, without those ``tried``."""
    near = {c + k for c in centres for k in range(-reach, reach + 1)}
    return sorted(i for i in near if 0 <= i < length and i not in tried)


def _certainly_askew(estimate: Estimate) -> bool:
    return estimate.is_certain and _is_askew(estimate)


def _is_askew(estimate: Estimate) -> bool:
    return abs(estimate.angle_deg) > 2 * _MAX_ANGLE_DEG


def without_content(grey: Grey, name: str) -> Refusal | None:
    """Refuse a crop that shows next to nothing."""
    if float(np.std(grey)) < _BLANK_STD:
        return Refusal("blank", f"{name} is blank")
    if Pair(grey, grey).textured_blocks() < MIN_BLOCKS:
        return Refusal("too-little-texture", f"{name} has too little texture")
    return None


def not_cropped(name: str) -> Refusal:
    """Refuse a crop that is all of its source frame."""
    return Refusal("not-cropped", f"{name} is the whole source frame, not cropped at all")


def source_frame(name: str) -> str:
    """Name a source frame in a sentence; those of a video are called "frame 20"."""
    return f"source {name}" if name.startswith("frame ") else f"source frame {name}"


def rotated(name: str, angle_deg: float, source: str = "") -> Refusal:
    """Refuse a crop that is turned, or whose head is, against that of a ``source`` frame."""
    reason = f"{name} is rotated by {abs(angle_deg):.1f} degrees against the source"
    if source:
        reason += f", or its head is: it may show another moment than {source_frame(source)}"
    return Refusal("rotated", reason)
