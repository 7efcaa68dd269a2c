"""Recovering a lost bbox.pt from a track's crops and the frames they were cut from.

One frame is solved from scratch and proved (`fitting.crop.solver`), and a few crops spread over the
track must confirm it, by their own source frames or by what stands still in that of the first
(`fitting.crop.still`). Where they do not, the cause is looked for and named: nothing is written
that a frame contradicts.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import replace
from functools import partial

import numpy as np
from numpy.typing import NDArray

from converter.errors import MissingInputError
from converter.geometry.crop import BBox
from converter.media.images import ImageFiles
from converter.media.parallel import ordered_map, spread_out
from converter.track import Frames
from fitting.crop.bare import recover_bare_cut
from fitting.crop.boxes import Strips, name_two_boxes, read_strips, suspicious
from fitting.crop.certificate import CropCertificate, Verdict
from fitting.crop.checker import Checked
from fitting.crop.mapping import Mapping
from fitting.crop.pair import MIN_BLOCKS, Pair
from fitting.crop.pixelwise import MIN_CERTAINTY, NO_MATTE, find_look, off_by_look, rank
from fitting.crop.refine import Ranking, Residual, climb, pixel_error, ranked, residual
from fitting.crop.sequences import Crops, Sources, guess_sources, paired, spread
from fitting.crop.solver import (
    Refusal,
    Solver,
    agrees,
    certificate_of,
    not_cropped,
    rotated,
    without_content,
)
from fitting.crop.still import looks_moved

_CONTRADICTS = 4.0
"""Standard errors from which on a single frame contradicts a mapping."""
_MAX_OFF_LATTICE_PX, _MAX_LOOK_PX, _NOTHING_PX = 0.35, 0.25, 0.15
"""How far edges may lie off whole pixels by blocks alone, by pixels alone, and by both.

Right crops came to at most 0.25 with the one and 0.17 with the other, never both; crops that were
cut half a pixel beside came to at least 0.14 and 0.17.
"""
_CORNER, _CERTAIN_CORNER = (0.35, 4.0), (1.0, 8.0)
"""How far rotation may move a corner of the crop, px and standard errors: by several frames, and by
one alone."""
_WHOLE_PX, _WHOLE_BEHIND = 2, 7.0
"""How near a whole frame a mapping may come that cannot be one, since the tracker leaves the last
column and row out, px; and by how many standard errors it has to fit better than the whole frame.

Boxes did by 22 and more, what was found inside compressed whole frames by 3.6 at most.
"""
_CERTAINLY_OFF = 5.0
"""Standard errors from which on the edges of a single frame lie beside the mapping."""
_SIGNIFICANT = 4.0
"""Standard errors from which on a shift is none by chance."""
_MORE_FRAMES, _N_THOROUGH = 9, 2
_NEAREST = 16
_SHORT, _BESIDE = 24, 2
"""Of how many crops those beside the ones compared are read at once: of more, few may be needed."""
_TWINS = 4
"""Neighbours of a box with equal pixels that might have equal pixels as well."""
_AS_WELL, _LESS = 0.8, 0.03
"""Share of the blocks of another frame, and correlation below its own, that is as good."""

Progress = Callable[[str, int, int], None]


def recover_crop(
    crops: Frames,
    sources: Frames,
    guesses: Sequence[int] | None = None,
    *,
    n_frames: int = 3,
    hints: Sequence[int] = (),
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
        Crops to check, spread over the track. More are read where that is not enough.
    hints
        Positions of crops where another box may begin, by what else is known of them; they are
        checked as well.
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
    with Sources(sources) as open_sources, ThreadPoolExecutor(1, "uncrop") as aside:
        there = paired(guessed, len(sources))
        picks = [there[k] for k in spread(len(there), n_frames)]
        reach = _BESIDE if len(crops) <= _SHORT else 0
        wanted = {i + k for i in picks for k in range(-reach, reach + 1)}
        solver = Solver(Crops(crops, wanted), open_sources, guessed)
        if crops.size.width != crops.size.height:
            return recover_bare_cut(solver, picks)
        picks = sorted({*picks, *(i for i in hints if 0 <= i < len(crops))})
        open_sources.begin([solver.guess(_from_the_middle(picks)[0])])
        return _Recovery(solver, picks, aside, progress).run()


def _strips(solver: Solver, picks: Sequence[int]) -> Strips:
    """What shows where boxes may change; it is read after the first of the source files.

    Of other source files, those are read ahead that will be needed: none where the crops look as if
    they stood still.
    """
    middle, *others = _from_the_middle(picks)
    if isinstance(solver.sources.frames, ImageFiles):
        grey = solver.crops.grey
        if not solver.is_numbered or any(looks_moved(grey(middle), grey(i)) for i in others):
            solver.sources.prefetch([solver.guess(i) for i in others])
        solver.sources.image(solver.guess(middle))
    return read_strips(solver.crops, middle)


class _Recovery:
    """All frames of one track: one solved, others held against it, and the verdict."""

    def __init__(
        self,
        solver: Solver,
        picks: list[int],
        aside: ThreadPoolExecutor,
        progress: Progress | None,
    ) -> None:
        self._solver = solver
        self._picks = picks
        self._aside = aside
        self._strips = aside.submit(_strips, solver, picks)
        self._progress = progress
        self._still: list[int] = []
        """Crops that were held against the source frame of the first alone."""

    def run(self) -> CropCertificate:
        is_video = not isinstance(self._solver.sources.frames, ImageFiles)
        if is_video:  # in one pass, for which all that is wanted has to be known soon
            self._look_at_suspects()
        first = self._first()
        if isinstance(first, Refusal):
            return first.certificate()
        self._report(1)
        mapping = Mapping.of_crop(first.crops[0])
        turned = self._certainly_turned(first, mapping)
        if turned is not None:
            return turned.certificate()
        if not is_video or first.comparison.max_abs_diff > 1:
            self._look_at_suspects(first.pair.covered(first.pair.choose(mapping)))
        ranking = self._aside.submit(self._rank_equal, first, mapping)  # while others are read
        others = self._indices(first)
        self._still = self._standing(first, mapping, others)
        self._report(1 + len(self._still))
        moving = sorted({*others} - {*self._still})
        self._solver.sources.begin([self._solver.guess(index) for index in moving])
        checked = self._others(first, mapping, moving)
        if isinstance(checked, Refusal):
            return checked.certificate()
        return self._verdict(mapping, [first, *checked], ranking)

    def _look_at_suspects(self, shown: NDArray[np.bool_] | None = None) -> None:
        found = suspicious(self._solver.crops, self._strips.result(), shown)
        self._picks = sorted({*self._picks, *found})
        if not isinstance(self._solver.sources.frames, ImageFiles):
            wanted = [self._solver.guess(i) for i in _from_the_middle(self._picks)]
            self._solver.sources.prefetch(wanted)

    def _report(self, done: int) -> None:
        if self._progress is not None:
            self._progress("recover bbox", done, max(len(self._picks), done))

    def _spread(self, without: Collection[int]) -> list[int]:
        """More frames, spread over the track, of those whose source frame is there."""
        there = self._solver.paired()
        more = (there[k] for k in spread(len(there), _MORE_FRAMES))
        return [i for i in more if i not in without]

    def _first(self) -> Checked | Refusal:
        """Solve the first frame that can be solved.

        Frames without content prove nothing and are passed over; any other failure is final.
        """
        refusals: list[Refusal] = []
        for index in _from_the_middle(self._picks) + self._spread(self._picks):
            shown = [refusal for refusal in refusals if refusal.cause != "blank"]
            hopeless = len(shown) >= _N_THOROUGH
            found = (self._solver.solve_quickly if hopeless else self._solver.solve)(index)
            if isinstance(found, Checked):
                self._solver.offset = found.pair.source_index - self._solver.guesses[index]
                return found
            if found is None:
                continue
            refusals.append(found)
            if found.cause not in ("blank", "too-little-texture"):
                return found
        return max(refusals, key=lambda refusal: refusal.cause != "blank")

    # --- the other frames ---------------------------------------------------------------------

    def _indices(self, first: Checked) -> list[int]:
        """Crops to hold against the mapping."""
        indices = dict.fromkeys(self._solver.with_source(pick) for pick in self._picks)
        indices.pop(first.pair.index, None)
        return list(indices)

    def _standing(self, first: Checked, mapping: Mapping, others: Sequence[int]) -> list[int]:
        """Those of ``others`` that one box cut with the first, as what stands still in it says.

        None where the first frame leaves something open that others may settle.
        """
        if not self._solver.is_numbered or not _settles(first, mapping):
            return []
        still = spread_out(partial(self._solver.stands_still, first.pair, mapping), others)
        return [index for index, is_still in zip(others, still, strict=True) if is_still]

    def _others(
        self, first: Checked, mapping: Mapping, indices: Sequence[int]
    ) -> list[Checked] | Refusal:
        """Hold other frames against the mapping, several at a time."""
        checked: list[Checked] = []
        found = ordered_map(partial(self._confirm, first, mapping), indices)
        with closing(found):
            for each in found:
                if isinstance(each, Refusal):
                    return each
                if each is not None:
                    checked.append(each)
                self._report(1 + len(checked) + len(self._still))
        return checked

    def _confirm(self, first: Checked, mapping: Mapping, index: int) -> Checked | Refusal | None:
        """Hold a further frame against the mapping; None where it has nothing to say."""
        solver = self._solver
        pair = solver.pair(index, solver.guess(index))
        for crop in first.crops[:2]:
            comparison = solver.checker.compare(pair, crop)
            if comparison.is_equal:
                crops = solver.checker.twins(pair, mapping, crop, comparison)
                return Checked(pair, comparison, crops, pair.agreement(mapping))
        if without_content(pair.crop, solver.crops.name(index)) is not None:
            return self._confirm_bare(first, mapping, index)
        pair = pair.shrunk(first.pair.shrink)
        if self._agrees_as_well(first, mapping, pair):
            return Checked(pair, comparison, first.crops, pair.agreement(mapping))
        pair, there = solver.best_source(pair, mapping, reach=1)
        checked = solver.checker.check(pair, mapping)
        is_equal = checked.comparison.max_abs_diff <= 1
        # The box of a second run is put where the head was by then: its crops look like those that
        # the first box would cut of another frame, more than of their own.
        is_beside = solver.is_numbered and pair.source_index != solver.guess(index)
        if is_beside or (first.comparison.max_abs_diff <= 1 and not is_equal):
            alone = solver.solve(index)
            if isinstance(alone, Checked):
                return self._judged(first, mapping, alone)
        if is_equal:
            return checked
        ranking = climb([pair], mapping, solver.size)
        lies_off = _lies_off([pair], mapping, _CERTAINLY_OFF)
        prefers_another = ranking is not None and _prefers(ranking, mapping)
        fits_as_well = agrees(checked.agreement) and not prefers_another
        if there == mapping and fits_as_well and not lies_off:
            return checked
        better = ranking.best if ranking is not None and prefers_another else None
        return self._contradicted(first, mapping, checked, better, lies_off)

    def _agrees_as_well(self, first: Checked, mapping: Mapping, pair: Pair) -> bool:
        """Whether a frame, altered like the first, agrees as well as that one, on whole pixels.

        Then it has no more to say: of its padding nothing is in doubt, and among as many source
        frames as crops its own is where that of the first was.
        """
        settled = first.comparison.max_abs_diff > 1 and len(first.crops) == 1
        if not settled or not self._solver.is_one_to_one:
            return False
        here, there = pair.agreement(mapping), first.agreement
        if here.n_blocks < there.n_blocks * _AS_WELL or not agrees(here):
            return False
        if min(here.share - there.share, here.median - there.median) < -_LESS:
            return False
        left = residual([pair], mapping)
        return left is not None and bool(np.max(np.abs(left.edges)) < _NOTHING_PX)

    def _confirm_bare(
        self, first: Checked, mapping: Mapping, index: int
    ) -> Checked | Refusal | None:
        """Hold a frame that shows next to nothing against the mapping.

        Where pixels were altered it has nothing to say. Where they were not, they have to be equal.
        """
        solver, name = self._solver, self._solver.crops.name
        if first.comparison.max_abs_diff > 1:
            return None
        for source_index in solver.near(index, 2):
            checked = solver.checker.check(solver.pair(index, source_index), mapping)
            if checked.comparison.max_abs_diff <= 1:
                return checked
        alone = solver.solve(index)
        if isinstance(alone, Checked) and Mapping.of_crop(alone.crops[0]) != mapping:
            return name_two_boxes(solver, first, alone, self._picks)
        box = first.crops[0].bbox
        return Refusal(
            "not-certain",
            f"{name(index)} is not what {box} cuts, which explains every pixel of "
            f"{name(first.pair.index)}, and shows too little to tell why",
        )

    def _contradicted(
        self,
        first: Checked,
        mapping: Mapping,
        checked: Checked,
        better: Mapping | None,
        off_px: float,
    ) -> Checked | Refusal | None:
        """Solve a frame that the mapping does not explain alone; it confirms it after all, or not.

        ``better`` is a mapping that explains it better, if there is one; ``off_px`` is how far its
        own best edges lie beside the mapping, 0 if they do not.
        """
        solver, index = self._solver, checked.pair.index
        alone = solver.solve(index)
        if isinstance(alone, Checked):
            return self._judged(first, mapping, alone)
        name, box = solver.crops.name, f"{first.crops[0].bbox}, which"
        if better is not None or off_px:
            said = f"lies {off_px:.2f} px beside {box}"
            if better is not None:
                other = next(better.crops(solver.size, solver.output)).bbox
                said = f"fits {other} better than {box}"
            return Refusal(
                "not-certain",
                f"{name(index)} {said} {name(first.pair.index)} gave, and shows too little to be "
                "sure",
            )
        if checked.agreement.n_blocks < MIN_BLOCKS and alone.cause == "too-little-texture":
            return None
        return replace(
            alone,
            reason=f"{alone.reason}; {solver.crops.name(first.pair.index)} alone fits bbox "
            f"{first.crops[0].bbox}",
        )

    def _judged(self, first: Checked, mapping: Mapping, alone: Checked) -> Checked | Refusal:
        """Judge a frame by what it gave alone: it confirms the mapping, or there is a fault."""
        there = Mapping.of_crop(alone.crops[0])
        if there == mapping:
            return alone
        # What is turned, or lies between pixels, is drawn now to one side, now to the other.
        for one, at in ((first, mapping), (alone, there)):
            fault = self._turned([one.pair], at) or self._off_the_lattice([one.pair], at)
            if fault is not None:
                return fault
        return name_two_boxes(self._solver, first, alone, self._picks)

    # --- verdict ------------------------------------------------------------------------------

    def _rank_equal(self, first: Checked, mapping: Mapping) -> Ranking | None:
        """Rank what may be equal as well to a frame that is, and compare it with that frame."""
        worst = first.comparison.max_abs_diff
        if worst > 1:
            return None
        ranking = climb([first.pair], mapping, self._solver.size, n_tried=_TWINS)
        self._other_mapping([first], mapping, ranking, worst)  # comparisons are kept
        return ranking

    def _verdict(
        self, mapping: Mapping, checked: list[Checked], ranked: Future[Ranking | None]
    ) -> CropCertificate:
        worst = max(c.comparison.max_abs_diff for c in checked)
        if worst <= 1:
            ranking = ranked.result()
            twin = self._other_mapping(checked, mapping, ranking, worst)
            if twin is not None and self._still:
                still, self._still = self._still, []
                more = self._others(checked[0], mapping, still)
                if isinstance(more, Refusal):
                    return more.certificate()
                return self._verdict(mapping, [*checked, *more], ranked)
            if twin is not None:
                return Refusal(
                    "too-little-texture",
                    f"boxes with different cameras give the same images, {checked[0].crops[0].bbox}"
                    f" and {twin}: the crops show too little",
                ).certificate()
            verdict: Verdict = "exact" if worst == 0 else "exact-up-to-build"
            return self._certificate(checked, ranking, verdict)
        return self._consistent(mapping, checked)

    def _other_mapping(
        self, checked: list[Checked], mapping: Mapping, ranking: Ranking | None, limit: int
    ) -> BBox | None:
        """Return a box of another mapping that no frame rules out, if there is one."""
        if ranking is None:
            pair = checked[0].pair
            near = mapping.neighbours(self._solver.size)
            near = sorted(near, key=lambda m: pixel_error(pair, m))[:_NEAREST]
        else:
            near = sorted(
                (m for m in ranking.costs if m != mapping), key=lambda m: ranking.costs[m]
            )[:_TWINS]
        is_within = self._solver.checker.is_within
        for other in near:
            crop = next(other.crops(self._solver.size, self._solver.output))
            if all(is_within(c.pair, crop, limit) for c in checked):
                return crop.bbox
        return None

    def _consistent(self, mapping: Mapping, checked: list[Checked]) -> CropCertificate:
        turned = self._turned([c.pair for c in checked], mapping)
        if turned is not None:
            return turned.certificate()
        more = self._spread([c.pair.index for c in checked])
        more = list(dict.fromkeys([*self._still, *more]))
        while True:
            pairs = [c.pair for c in checked]
            ranking = rank(pairs, mapping, self._solver.size)
            if ranking is not None and ranking.certainty >= MIN_CERTAINTY:
                break
            if not more:
                off = self._off_the_lattice(pairs, mapping)
                return (off or self._uncertain(mapping, ranking)).certificate()
            found = self._confirm(checked[0], mapping, more.pop(len(more) // 2))
            if isinstance(found, Refusal):
                return found.certificate()
            if found is not None:
                checked = [*checked, found]
                self._report(len(checked))
        off = self._off_the_lattice(pairs, ranking.best)
        if off is not None:
            return off.certificate()
        if ranking.best != mapping:
            self._still = []  # they were held against the other
            checked = [self._solver.checker.check(pair, ranking.best) for pair in pairs]
            if not all(agrees(c.agreement) for c in checked):
                return self._uncertain(mapping, ranking).certificate()
        return self._certificate(checked, ranking, "consistent")

    def _certificate(
        self, checked: list[Checked], ranking: Ranking | None, verdict: Verdict
    ) -> CropCertificate:
        read = {c.pair.index for c in checked}
        n_still = sum(index not in read for index in self._still)
        return certificate_of(self._solver, checked, ranking, verdict, n_still)

    def _turned(self, pairs: Sequence[Pair], mapping: Mapping) -> Refusal | None:
        """Refuse rotation: no tracker turned these images."""
        left = residual(pairs, mapping)
        if left is None:
            return Refusal("too-little-texture", "too little texture agrees with the source")
        return self._rotated(left, pairs[0], _CORNER)

    def _certainly_turned(self, first: Checked, mapping: Mapping) -> Refusal | None:
        """As `_turned`, where one frame alone leaves no doubt."""
        if first.comparison.max_abs_diff <= 1:
            return None
        left = residual([first.pair], mapping)
        return None if left is None else self._rotated(left, first.pair, _CERTAIN_CORNER)

    def _rotated(self, left: Residual, pair: Pair, least: tuple[float, float]) -> Refusal | None:
        if left.corner_px <= max(least[0], least[1] * left.corner_error_px):
            return None
        angle = self._solver.angle_deg(pair)
        return rotated(
            self._solver.crops.name(pair.index),
            left.angle_deg if angle is None else angle,
            self._solver.sources.name(pair.source_index),
        )

    def _off_the_lattice(self, pairs: Sequence[Pair], mapping: Mapping) -> Refusal | None:
        """Refuse edges that are no whole numbers: no tracker cut these images."""
        worst = _lies_off(pairs, mapping, _SIGNIFICANT) or _looks_off(pairs[0], mapping)
        whole = Mapping(0, self._solver.size.width, 0, self._solver.size.height)
        is_near = bool(np.max(np.abs(mapping.edges - whole.edges)) <= _WHOLE_PX)
        is_no_box = is_near and (worst or _lead(pairs, whole, mapping) > -_WHOLE_BEHIND)
        if is_no_box and self._solver.is_whole_frame(pairs[0]):
            return not_cropped(self._solver.crops.name(pairs[0].index))
        if not worst:
            return None
        return Refusal(
            "off-lattice",
            f"the best edges lie {worst:.2f} px off whole pixels: the crops, or the source frames, "
            "were resized, shifted or cut by something else than the tracker",
        )

    def _uncertain(self, mapping: Mapping, ranking: Ranking | None) -> Refusal:
        boxes = [str(next(mapping.crops(self._solver.size, self._solver.output)).bbox)]
        if ranking is not None:
            others = [m for m in (ranking.best, ranking.runner_up) if m not in (None, mapping)]
            boxes += [
                str(next(m.crops(self._solver.size, self._solver.output)).bbox) for m in others if m
            ]
        return Refusal(
            "not-certain",
            f"boxes with different cameras fit equally well ({' and '.join(boxes[:2])})",
        )


def _from_the_middle(picks: Sequence[int]) -> list[int]:
    """Middle frames first: they are the likeliest to show much."""
    middle = picks[len(picks) // 2]
    return sorted(picks, key=lambda i: abs(i - middle))


def _settles(first: Checked, mapping: Mapping) -> bool:
    """Whether a frame leaves open neither the padding nor whether its edges lie on whole pixels."""
    if len(first.crops) > 1:
        return False
    if first.comparison.max_abs_diff <= 1:
        return True
    left = residual([first.pair], mapping)
    return left is not None and bool(_SIGNIFICANT * np.max(left.edges_error) <= _NOTHING_PX)


def _lies_off(pairs: Sequence[Pair], mapping: Mapping, significant: float) -> float:
    """How far, px, the best edges lie beside those of a mapping; 0 where that is not certain.

    Against a blurred crop a shift shows as a part of itself, and noise alone may look like one: the
    pixels themselves decide, once sharpness and tone were matched.
    """
    left = residual(pairs, mapping)
    if left is None:
        return 0.0
    off = np.abs(left.edges)
    is_off = off > np.maximum(_NOTHING_PX, significant * left.edges_error)
    by_look = off_by_look(pairs, mapping) if is_off.any() else None
    if by_look is None:
        is_off &= off > _MAX_OFF_LATTICE_PX
    elif np.max(np.abs(by_look)) <= _NOTHING_PX:
        # Pixels, of which those that differ most are left out, may miss what is a whole pixel off.
        step = np.sign(left.edges) * np.maximum(np.rint(off), 1) * is_off
        if _lead(pairs, Mapping.rounded(mapping.edges + step), mapping) < MIN_CERTAINTY:
            return 0.0
    return float(off[is_off].max(initial=0.0))


def _lead(pairs: Sequence[Pair], one: Mapping, other: Mapping) -> float:
    """By how many standard errors one mapping, possible or not, fits better than another; or 0."""
    costs: dict[Mapping, list[NDArray[np.float32]]] = {one: [], other: []}
    for pair in pairs:
        chosen = np.intersect1d(pair.choose(other), pair.inside(one))
        for each, found in costs.items():
            found.append(pair.costs(each, chosen))
    tried = {each: np.concatenate(found) for each, found in costs.items()}
    return ranked(tried, one).certainty if one != other and tried[one].size else 0.0


def _looks_off(pair: Pair, mapping: Mapping) -> float:
    """As `_lies_off`, by the pixels of one frame alone: of a blurred crop, blocks tell too little.

    The edge of a matte misleads them; where much was replaced, they do not say so alone.
    """
    look = find_look(pair, mapping)
    if look is None or look.share < NO_MATTE or not look.is_blurred:
        return 0.0
    by_look = off_by_look([pair], mapping)
    worst = 0.0 if by_look is None else float(np.max(np.abs(by_look)))
    return worst if worst > _MAX_LOOK_PX else 0.0


def _prefers(ranking: Ranking, mapping: Mapping) -> bool:
    """Whether a frame alone fits another mapping clearly better."""
    if ranking.best == mapping:
        return False
    near = max(abs(ranking.best.edges - mapping.edges)) <= 1
    return ranking.certainty >= (_CONTRADICTS if not near else 2 * _CONTRADICTS)
