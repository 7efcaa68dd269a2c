"""Lost boxes: our recovery beside the usual tools, on the same cases, in one run.

``python -m benchmarks.recover [--all] [--only WORD] [--ours] [--markdown FILE]``
``python -m benchmarks.recover --random N [--seed S] [--video FILE [--around X Y]] [--ours]``

Without ``--all`` one case of each kind is run, without the 4K ones: two minutes. With ``--random``
the box, sizes, file types, damage and faults are drawn, on synthetic frames or on those of a video,
anywhere or around a place in it.

The other methods are what people write with OpenCV: find a similarity between crop and source from
up to three pairs of the same name, take black rows and columns of the crop for padding, round.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import cv2
import numpy as np
from numpy.typing import NDArray

from benchmarks.measure import Cost, Row, Table
from converter.errors import UncropError
from converter.geometry.crop import BBox, Crop
from converter.geometry.pixels import Size
from converter.media.images import ImageFiles, list_images
from converter.media.video import VideoFrames
from fitting.crop import recover_crop
from fitting.crop.mapping import Mapping
from fixtures.synthetic.crop_cases import CASES, SMALL, CropCase, Image, random_case, write_case

EACH_KIND = (
    "png", "clipped at two borders", "odd box, 301x260", "hand-made, padded inside",
    "beyond the frame", "crops of 1024", "small box", "portrait, clipped", "jpg 95", "jpg 50, 256",
    "source recompressed 60", "black matte, clipped", "green matte, jpg 75", "gamma", "noise",
    "blur, jpg 75", "occluder", "dark, jpg 75", "black bars where the padding begins",
    "one frame, jpg 75", "names off by one, noisy", "30 frames of 36",
    "other video, small", "another take in the room", "mirrored", "rotated 0.4 degrees",
    "rotated 4 degrees", "mixed boxes, 4 px apart", "whole frames, squeezed", "blank",
    "too little texture",
)  # fmt: skip
QUICK = ("crops of 256", "jpg 50, 256", "other video, small")

_N_GIVEN = 30

Box = tuple[int, int, int, int]
Grey = NDArray[np.uint8]
Points = NDArray[np.float64]


@dataclass(frozen=True)
class Answer:
    """A box, or None for a refusal; and whether it was declared ambiguous."""

    box: Box | None
    ambiguous: bool = False


# --- ours -------------------------------------------------------------------------------------


def ours(crops: Path, sources: Path) -> Answer:
    """`fitting.crop.recover_crop`."""
    found = recover_crop(ImageFiles.of(list_images(crops)), ImageFiles.of(list_images(sources)))
    box = found.bbox
    if box is None:
        return Answer(None)
    return Answer((box.x_min, box.x_max, box.y_min, box.y_max), found.verdict == "ambiguous")


# --- the usual tools --------------------------------------------------------------------------


def _pairs(crops: Path, sources: Path) -> list[tuple[Grey, Grey]]:
    named = {p.stem: p for p in list_images(sources)}
    both = [(c, named[c.stem]) for c in list_images(crops) if c.stem in named]
    picks = sorted({0, len(both) // 2, len(both) - 1}) if both else []
    read = cv2.IMREAD_GRAYSCALE
    return [(np.asarray(cv2.imread(str(both[i][0]), read), np.uint8),
             np.asarray(cv2.imread(str(both[i][1]), read), np.uint8)) for i in picks]  # fmt: skip


def _matches(crop: Grey, source: Grey, detector: cv2.Feature2D, norm: int) -> tuple[Points, Points]:
    scale = min(1280 / max(source.shape), 1.0)
    small = cv2.resize(source, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
    k1, d1 = detector.detectAndCompute(crop, None)
    k2, d2 = detector.detectAndCompute(small, None)
    if d1 is None or d2 is None or len(k2) < 2:
        return np.zeros((0, 2)), np.zeros((0, 2))
    pairs = cv2.BFMatcher(norm).knnMatch(d1, d2, k=2)
    good = [p[0] for p in pairs if len(p) == 2 and p[0].distance < 0.75 * p[1].distance]
    a = np.array([k1[m.queryIdx].pt for m in good]).reshape(-1, 2) + 0.5
    b = (np.array([k2[m.trainIdx].pt for m in good]).reshape(-1, 2) + 0.5) / scale
    return a, b


def _similarity(
    pairs: Sequence[tuple[Grey, Grey]], detector: cv2.Feature2D, norm: int
) -> NDArray[np.float64] | None:
    """Scale, x and y offset of source from crop, edge-origin."""
    found = [_matches(c, s, detector, norm) for c, s in pairs]
    a = np.concatenate([f[0] for f in found]) if found else np.zeros((0, 2))
    b = np.concatenate([f[1] for f in found]) if found else np.zeros((0, 2))
    if len(a) < 4:
        return None
    affine, mask = cv2.estimateAffinePartial2D(a, b, ransacReprojThreshold=3.0)
    if affine is None or int(mask.sum()) < 4:
        return None
    return np.array([np.hypot(affine[0, 0], affine[1, 0]), affine[0, 2], affine[1, 2]])


def _box(found: NDArray[np.float64] | None, crop: Grey, source: Grey) -> Answer:
    """Round the square, less the black rows and columns on both sides."""
    if found is None:
        return Answer(None)
    scale, x, y = found
    lit_x, lit_y = np.flatnonzero(crop.max(axis=0) > 8), np.flatnonzero(crop.max(axis=1) > 8)
    if not len(lit_x) or not len(lit_y):
        return Answer(None)
    x0, x1 = x + scale * lit_x[0], x + scale * (lit_x[-1] + 1)
    y0, y1 = y + scale * lit_y[0], y + scale * (lit_y[-1] + 1)
    h, w = source.shape
    edges = np.rint([np.clip(x0, 0, w - 1), np.clip(x1, 0, w - 1),
                     np.clip(y0, 0, h - 1), np.clip(y1, 0, h - 1)]).astype(int)  # fmt: skip
    if edges[0] >= edges[1] or edges[2] >= edges[3]:
        return Answer(None)
    return Answer((int(edges[0]), int(edges[1]), int(edges[2]), int(edges[3])))


def sift(crops: Path, sources: Path) -> Answer:
    """SIFT, ratio test, RANSAC similarity, rounding."""
    pairs = _pairs(crops, sources)
    found = _similarity(pairs, cv2.SIFT.create(3000), cv2.NORM_L2)
    return _box(found, *pairs[0]) if pairs else Answer(None)


def orb(crops: Path, sources: Path) -> Answer:
    """ORB, ratio test, RANSAC similarity, rounding."""
    pairs = _pairs(crops, sources)
    found = _similarity(pairs, cv2.ORB.create(3000), cv2.NORM_HAMMING)
    return _box(found, *pairs[0]) if pairs else Answer(None)


def ecc(crops: Path, sources: Path) -> Answer:
    """SIFT similarity, then findTransformECC (affine), rounding."""
    pairs = _pairs(crops, sources)
    found = _similarity(pairs, cv2.SIFT.create(3000), cv2.NORM_L2)
    if found is None:
        return Answer(None)
    crop, source = pairs[0]
    scale, x, y = found
    shift = scale / 2 - 0.5
    warp = np.array([[scale, 0, x + shift], [0, scale, y + shift]], np.float32)
    stop = (cv2.TERM_CRITERIA_EPS | cv2.TERM_CRITERIA_COUNT, 60, 1e-6)
    blurred = cv2.GaussianBlur(source, (0, 0), max(scale / 2, 0.5))
    try:
        _, warp = cv2.findTransformECC(crop, blurred, warp, cv2.MOTION_AFFINE, stop)
    except cv2.error:
        return Answer(None)
    scale = float(warp[0, 0] + warp[1, 1]) / 2
    shift = scale / 2 - 0.5
    return _box(np.array([scale, warp[0, 2] - shift, warp[1, 2] - shift]), crop, source)


def template(crops: Path, sources: Path) -> Answer:
    """matchTemplate over scales, coarse to fine, on the first pair."""
    pairs = _pairs(crops, sources)
    if not pairs:
        return Answer(None)
    crop, source = pairs[0]
    best = (-2.0, 0.0, 0.0, 0.0)
    sides = np.geomspace(64, min(source.shape), 40)
    for shrink, span in ((8.0, None), (4.0, 0.06), (2.0, 0.02), (1.0, 0.006)):
        if span is not None:
            middle = best[1]
            sides = np.unique(np.rint(np.linspace(middle * (1 - span), middle * (1 + span), 13)))
        small = cv2.resize(source, None, fx=1 / shrink, fy=1 / shrink, interpolation=cv2.INTER_AREA)
        best = (-2.0, best[1], 0.0, 0.0)
        for side in sides:
            size = round(side / shrink)
            if not 8 <= size <= min(small.shape):
                continue
            part = cv2.resize(crop, (size, size), interpolation=cv2.INTER_AREA)
            score = cv2.matchTemplate(small, part, cv2.TM_CCOEFF_NORMED)
            _, value, _, at = cv2.minMaxLoc(score)
            if value > best[0]:
                best = (value, size * shrink, at[0] * shrink, at[1] * shrink)
    if best[0] < 0.5:
        return Answer(None)
    return _box(np.array([best[1] / crop.shape[0], best[2], best[3]]), crop, source)


METHODS: dict[str, Callable[[Path, Path], Answer]] = {
    "uncrop": ours,
    "SIFT + RANSAC + rounding": sift,
    "SIFT + findTransformECC": ecc,
    "ORB + RANSAC + rounding": orb,
    "matchTemplate pyramid": template,
}


# --- scoring ----------------------------------------------------------------------------------


@dataclass
class Score:
    """What one method did over all cases."""

    n_possible: int = 0
    n_impossible: int = 0
    exact: int = 0
    same_map: int = 0
    refused_right: int = 0
    refused_wrong: int = 0
    silent: list[str] = field(default_factory=list)
    errors: list[int] = field(default_factory=list)
    costs: list[Cost] = field(default_factory=list)

    def add(self, case: CropCase, answer: Answer, cost: Cost) -> None:
        """Count one answer."""
        self.costs.append(cost)
        if case.cause:
            self.n_impossible += 1
            if answer.box is None:
                self.refused_right += 1
            else:
                self.silent.append(case.name)
            return
        self.n_possible += 1
        if answer.box is None:
            self.refused_wrong += 1
            return
        size, output = Size(*case.source_size), Size(case.size, case.size)
        truth = Crop.from_bbox(BBox(*case.bbox), size, output)
        box = truth.bbox
        edges = (box.x_min, box.x_max, box.y_min, box.y_max)
        self.errors.append(max(abs(a - b) for a, b in zip(edges, answer.box, strict=True)))
        if answer.box == edges:
            self.exact += 1
            return
        try:
            crop = Crop.from_bbox(BBox(*answer.box), size, output)
            same = Mapping.of_crop(crop) == Mapping.of_crop(truth)
        except UncropError:
            same = False
        if same and answer.ambiguous:
            self.same_map += 1
        else:
            self.silent.append(case.name)

    @property
    def figures(self) -> list[str]:
        """What the table says of one method, but for its costs."""
        return [
            f"{self.exact}/{self.n_possible}",
            f"{self.same_map}",
            f"{max(self.errors, default=0)}",
            f"{len(self.silent)}",
            f"{self.refused_right}/{self.n_impossible}",
            f"{self.refused_wrong}",
        ]

    def seconds(self, of: Literal["cpu_s", "wall_s"]) -> float:
        """Median over the cases."""
        return float(np.median([getattr(cost, of) for cost in self.costs]))

    def cells(self, name: str) -> list[str]:
        """One line of the table."""
        worst_cpu, worst_wall = (
            max(getattr(c, k) for c in self.costs) for k in ("cpu_s", "wall_s")
        )
        costs = (self.seconds("cpu_s"), worst_cpu, self.seconds("wall_s"), worst_wall)
        return [name, *self.figures, *(f"{s:.2f}" for s in costs)]

    def row(self, name: str) -> Row:
        """The same for `benchmarks.run`."""
        exact, same, worst, silent, refused, wrongly = self.figures
        note = (
            f"largest error {worst} px, {silent} silently wrong, "
            f"{refused} impossible and {wrongly} possible refused"
        )
        share = (self.exact + self.same_map) / max(self.n_possible, 1)
        ours = name == "uncrop"
        return Row(
            name,
            self.seconds("wall_s"),
            self.seconds("cpu_s"),
            f"{exact} exact, {same} declared ambiguous",
            ">= 98 %, none silently wrong" if ours else "",
            share >= 0.98 and not self.silent if ours else None,
            note,
        )


HEADINGS = (
    "method", "exact", "same cameras, declared", "max error px", "silently wrong",
    "impossible refused", "possible refused", "median CPU s", "max CPU s", "median wall s",
    "max wall s",
)  # fmt: skip


def compare(
    cases: Sequence[CropCase], methods: Sequence[str], given: list[Image] | None = None
) -> dict[str, Score]:
    """Run methods over cases, all of them on one case before the next; on frames if given.

    None is always the first to read a case's files: the order goes round.
    """
    scores = {name: Score() for name in methods}
    for number, case in enumerate(cases):
        with tempfile.TemporaryDirectory(prefix="uncrop-bench-") as folder:
            crops, sources = write_case(Path(folder), case, given)
            first = number % len(methods)
            for name in (*methods[first:], *methods[:first]):
                wall, cpu = time.perf_counter(), time.process_time()
                answer = METHODS[name](crops, sources)
                cost = Cost(time.perf_counter() - wall, time.process_time() - cpu)
                scores[name].add(case, answer, cost)
    return scores


def run(folder: Path, quick: bool) -> Table:
    """Compare all methods on one case of each kind."""
    del folder  # every case is written to a folder of its own, and removed
    named = {case.name: case for case in CASES}
    cases = [named[name] for name in (QUICK if quick else EACH_KIND)]
    table = Table(f"Lost boxes: {len(cases)} cases; seconds are medians over them")
    for name, score in compare(cases, list(METHODS)).items():
        table.rows.append(score.row(name))
    return table


def main(arguments: list[str] | None = None) -> None:
    """Run all methods over all cases."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.recover", description=__doc__)
    parser.add_argument("--all", action="store_true", help="all cases; much longer")
    parser.add_argument("--only", default="", help="cases whose name holds this")
    parser.add_argument("--random", type=int, default=0, metavar="N", help="random cases instead")
    parser.add_argument("--seed", type=int, default=0, metavar="S", help="of the first of them")
    parser.add_argument("--video", type=Path, metavar="FILE", help="whose frames they are cut from")
    parser.add_argument("--around", type=int, nargs=2, metavar=("X", "Y"), help="where, in them")
    parser.add_argument("--ours", action="store_true", help="leave the other methods out")
    parser.add_argument("--markdown", type=Path, metavar="FILE", help="write the table there")
    options = parser.parse_args(arguments)
    given: list[Image] | None = None
    if options.random:
        size = Size(*SMALL)
        if options.video is not None:
            frames = VideoFrames(options.video)
            size = frames.size
            given = list(frames.stream(range(0, len(frames), max(len(frames) // _N_GIVEN, 1))))
        seeds = range(options.seed, options.seed + options.random)
        cases = [random_case(seed, (size.width, size.height), options.around) for seed in seeds]
    else:
        whole = options.all or options.only
        cases = [c for c in CASES if options.only in c.name and (whole or c.name in EACH_KIND)]
    scores = compare(cases, ["uncrop"] if options.ours else list(METHODS), given)
    lines = [HEADINGS, ["---"] * len(HEADINGS), *(s.cells(name) for name, s in scores.items())]
    table = "\n".join("| " + " | ".join(line) + " |" for line in lines)
    print(f"{len(cases)} cases\n{table}")
    silent = scores["uncrop"].silent
    print(f"uncrop, silently wrong: {', '.join(silent) or 'none'}")
    if options.markdown is not None:
        options.markdown.write_text(table + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
