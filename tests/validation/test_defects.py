"""Every defect of the specification is named by its check; good tracks have no error."""

from __future__ import annotations

import itertools
import os
import random
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from converter.registry import ReadOptions
from converter.validation.report import Report
from converter.validation.validate import ValidateOptions, validate
from fixtures.defects import DEFECTS, Defect, TrackCopy, edit
from tests.conftest import MakeTrack
from tests.validation.conftest import SPEC, CopyOf

QUIET = ReadOptions(hash_inputs=False)
SIZES = ("realistic", "barely")
N_PAIRS = 24
N_ALONE = 4
EVERY_PAIR = os.environ.get("HYPOTHESIS_PROFILE") == "nightly"


def run(path: Path, **options: Any) -> Report:
    return validate(path, ValidateOptions(read=QUIET, **options))


def ids(report: Report, *severities: str) -> set[str]:
    wanted = severities or ("error", "warning")
    return {f.check for f in report.findings if f.severity in wanted}


def status(report: Report, check: str) -> str:
    return next(r.status for r in report.results if r.check == check)


GOOD_TO_KNOW = {
    # One float32 apart, as converted tracks are; and what is no damage.
    "focal length drifts", "shape of another person", "texture of another person",
    "tracking resumed",
}  # fmt: skip


def assert_named(report: Report, defect: Defect, *, barely: bool = False) -> None:
    found = [f for f in report.findings if f.check == defect.check]
    reasons = {r.check: (r.status, r.reason) for r in report.results}
    assert found, (defect.name, reasons.get(defect.check), ids(report))
    assert all(f.message and f.where for f in found)
    known = defect.name == "tracking resumed" or (barely and defect.name in GOOD_TO_KNOW)
    assert known or any(f.severity != "info" for f in found)


# --- one defect -------------------------------------------------------------------------------


def test_all_items_of_the_specification_are_there() -> None:
    assert {d.item for d in DEFECTS} == set(range(1, 22))
    assert len({d.name for d in DEFECTS}) == len(DEFECTS)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("defect", DEFECTS, ids=lambda d: d.name.replace(" ", "-"))
def test_a_defect_is_named(copy_of: CopyOf, defect: Defect, size: str) -> None:
    track = copy_of(defect.base)
    defect.apply(track, size == "barely")
    report = run(track.root)
    assert_named(report, defect, barely=size == "barely")
    if size == "realistic":  # what has nothing left to look at says so
        assert [c for c in defect.hides if status(report, c) == "passed"] == []


MAY_FOLLOW: dict[str, set[str]] = {
    # What one damage to a file means for other facts: true, and worth saying.
    "frames missing": {"files-extra"},
    "landmark files missing": {"landmarks-missing"},
    "source K without a camera block": {"img-size-differs"},
    "images of several sizes": {"images-order", "files-damaged"},
    "K with skew": {"K-differs"},
    "fx is not fy": {"K-differs"},
    "head behind the camera": {"jitter", "depth-off", "landmarks-off-mesh"},
    "frames exchanged": {"steps-irregular", "jitter"},
    "an image is missing": {"crop-pixels"},
    "images of neighbouring frames": {"landmarks-missing", "files-missing"},
    "nothing but the expression": {"jaw-fixed", "eyelids-fixed"},
    "bbox beyond the source": {"crop-pixels", "bbox-odd"},
    "bbox of odd extents": {"crop-pixels"},
    "source frames are crops": {"bbox-unused"},
    "images of the bbox's size": {"img-size-differs"},
    "path trap": {"files-missing"},
}


@pytest.mark.parametrize("defect", DEFECTS, ids=lambda d: d.name.replace(" ", "-"))
def test_nothing_else_is_said(copy_of: CopyOf, defect: Defect) -> None:
    track = copy_of(defect.base)
    defect.apply(track, False)
    own = {"images-unsquared"} if defect.base == "unpadded" else set()
    others = ids(run(track.root)) - own - {defect.check}
    assert others <= MAY_FOLLOW.get(defect.name, set())


@pytest.mark.parametrize("defect", [d for d in DEFECTS if d.check in ("K-naive", "K-source")],
                         ids=lambda d: d.name.replace(" ", "-"))  # fmt: skip
def test_rewrites_of_K_are_told_apart_with_the_bbox(copy_of: CopyOf, defect: Defect) -> None:
    track = copy_of("square")
    defect.apply(track, False)
    report = run(track.root)
    assert ids(report, "error") <= {defect.check, "img-size-differs"}
    (found,) = (f for f in report.findings if f.check == defect.check)
    assert str(track.bbox) in found.message or found.where == "img_size"


def test_frames_are_marked(copy_of: CopyOf) -> None:
    track = copy_of("square")
    edit(track.frames[7], lambda c: c["opencv"]["K"].__setitem__((0, 0, 2), 5.0))
    edit(track.frames[9], lambda c: c["flame"]["exp"].fill(np.nan))
    marks = {r.check: r.frame_ids for r in run(track.root).results}
    assert marks["K-differs"] == (7,)
    assert marks["numbers-nonfinite"] == (9,)


# --- two defects ------------------------------------------------------------------------------


CROPS = "images of the bbox's size"
NAIVE_FORK, SOURCE_FORK = "naive K without a camera block", "source K without a camera block"
K_FORM = ("K transposed", "K with skew", "fx is not fy")
BBOXES = ("bbox of corners", "bbox beyond the source", "bbox of odd extents",
          "bbox of no whole numbers", "bbox lost", "bbox computed anew",
          "source frames are crops")  # fmt: skip
TURNED = ("R transposed", "OpenGL axes", "R out of step")

ONE_NAMED: dict[str, dict[str, tuple[str, ...]]] = {
    # Why two defects cannot both be named -> the first -> the second. All others are.
    "no file is left that was truncated: the other replaces it": {
        "frame truncated": ("frame runs code",), "frame with a flipped bit": ("frame runs code",),
    },
    "image and landmarks of the same frames are gone: none is without its other half": {
        "landmark files missing": ("an image is missing",),
    },
    "K was rewritten twice: the result is a third K, and is named as what it is": {
        "naive K": ("source K", "scaled K", "edited K", "K computed with h and w swapped", *K_FORM),
        "source K": ("scaled K", "edited K", "K computed with h and w swapped", *K_FORM,
                     "focal length drifts"),
        NAIVE_FORK: ("scaled K", "K transposed", "fx is not fy"),
        SOURCE_FORK: ("naive K", "scaled K", "fx is not fy"),
        "scaled K": ("edited K", "K computed with h and w swapped", *K_FORM,
                     "focal length drifts"),
        "K computed with h and w swapped": ("edited K", *K_FORM),
        "K transposed": ("K with skew",),
        "focal length drifts": ("fx is not fy",),
    },
    "only landmarks tell what a fork's K means, and only where they are, on a head in its place": {
        NAIVE_FORK: ("source K", "OpenGL axes", "head behind the camera", "poses of another head",
                     "landmarks of another shape", "path trap", "bbox beyond the source",
                     "bbox of no whole numbers", "bbox lost", "source frames are crops"),
        SOURCE_FORK: ("source frames are crops",),
    },
    "a crop that was not resized: there, adding the bbox is the right formula, K-source": {
        "naive K": ("img_size swapped", CROPS), NAIVE_FORK: ("img_size swapped", CROPS),
    },
    "img_size is rewritten twice": {
        "img_size swapped": (SOURCE_FORK, "img_size of other images", CROPS),
    },
    "K and img_size are doubled alike, and agree: img-size-differs says that the images do not": {
        "scaled K": ("img_size of other images",),
    },
    "of a box that is lost, replaced or not applied nothing more is known": {
        name: BBOXES[i + 1 :] for i, name in enumerate(BBOXES[:-1])
    },
    "whether images have the size of the box cannot be told without the right box": {
        CROPS: ("bbox of corners", "bbox beyond the source", "bbox of odd extents",
                "bbox of no whole numbers", "bbox lost", "source frames are crops"),
    },
    "the source frames are the altered images themselves": {
        "background replaced": ("source frames are crops",),
    },
    "what is no rotation is nobody's, and R turned twice is a third R": {
        "R is no rotation": TURNED, "R mirrored": TURNED,
        "R transposed": ("OpenGL axes", "R out of step"),
        "OpenGL axes": ("R out of step", "t out of step", "head behind the camera"),
    },
    "the mean shape replaces the other person's": {"shape of another person": ("mean shape",)},
    "no image is known to be a frame's: begin_frames is far off, and the dumps are gone": {
        "begin_frames wrong": ("images of neighbouring frames",),
    },
    "landmarks of another shape, or no landmarks at all, take the place of what was wrong": {
        "landmarks of another shape": ("faces not found", "path trap"),
        "68 points in kpt_dense": ("path trap",),
    },
    "frames of initialisation are known by even steps behind them": {
        "frames left by initialisation": ("settings changed on the way",),
    },
}  # fmt: skip
IMPOSSIBLE: dict[str, tuple[str, ...]] = {
    # Without the block there is nothing to edit in it; without dumps there are no stray ones.
    NAIVE_FORK: (SOURCE_FORK, "K computed with h and w swapped", "focal length drifts"),
    SOURCE_FORK: ("K computed with h and w swapped", "focal length drifts"),
    "images of neighbouring frames": ("stray images",),
}  # fmt: skip


def _names(table: dict[str, tuple[str, ...]]) -> set[frozenset[str]]:
    return {frozenset((a, b)) for a, seconds in table.items() for b in seconds}


ALONE = set[frozenset[str]]().union(*(_names(table) for table in ONE_NAMED.values()))


def _pairs(*, alone: bool) -> list[tuple[Defect, Defect]]:
    """Pairs of which both are named, or one alone: a few of them, or every one."""
    names = (frozenset((a.name, b.name)) for a, b in itertools.combinations(DEFECTS, 2))
    wanted = {pair for pair in names if pair not in _names(IMPOSSIBLE)}
    found = [
        (a, b) for a, b in itertools.combinations(DEFECTS, 2)
        if a.check != b.check and frozenset((a.name, b.name)) in wanted
        and (frozenset((a.name, b.name)) in ALONE) == alone
    ]  # fmt: skip
    return found if EVERY_PAIR else random.Random(4).sample(found, N_ALONE if alone else N_PAIRS)


def _report_of_both(copy_of: CopyOf, first: Defect, second: Defect) -> Report:
    track = copy_of("unpadded" if "unpadded" in (first.base, second.base) else "square")
    for defect in sorted((first, second), key=lambda d: "file" in d.touches):
        defect.apply(track, False)  # what makes a file unreadable comes last
    return run(track.root)


def _is_named(report: Report, defect: Defect, other: Defect) -> bool:
    hidden = defect.check in other.hides  # skipped, then, with the reason
    return status(report, defect.check) in (("found", "skipped") if hidden else ("found",))


def test_pairs_are_pairs_of_defects() -> None:
    known = {d.name for d in DEFECTS}
    tables = (*(_names(table) for table in ONE_NAMED.values()), _names(IMPOSSIBLE))
    assert all(len(pair) == 2 and pair <= known for table in tables for pair in table)
    n_listed = sum(len(table) for table in tables[:-1])
    assert n_listed == len(ALONE), "a pair is listed twice"


@pytest.mark.parametrize(("first", "second"), _pairs(alone=False),
                         ids=lambda d: d.name.replace(" ", "-"))  # fmt: skip
def test_two_defects_are_both_named(copy_of: CopyOf, first: Defect, second: Defect) -> None:
    report = _report_of_both(copy_of, first, second)
    for defect, other in ((first, second), (second, first)):
        reasons = [(r.status, r.reason) for r in report.results if r.check == defect.check]
        assert _is_named(report, defect, other), (defect.name, reasons, ids(report))


@pytest.mark.parametrize(("first", "second"), _pairs(alone=True),
                         ids=lambda d: d.name.replace(" ", "-"))  # fmt: skip
def test_of_defects_that_exclude_each_other_something_is_named(
    copy_of: CopyOf, first: Defect, second: Defect
) -> None:
    report = _report_of_both(copy_of, first, second)
    assert ids(report)
    both = _is_named(report, first, second) and _is_named(report, second, first)
    assert not both, "both are named: this pair is not one of ONE_NAMED any more"


# --- good tracks ------------------------------------------------------------------------------


@pytest.mark.parametrize("change", [
    {}, {"source": "video"}, {"image_extension": "jpg"}, {"begin_frames": 0}, {"depth": False},
    {"lost_landmarks": (3, 9)}, {"missing_frames": (5, 6, 9)}, {"input_dump": False},
    {"images": False}, {"crop_mode": "whole", "whole_size": (160, 120)}, {"source": "none"},
    {"bbox": (10, 210, 20, 230)}, {"bbox": (0, 319, 1, 239)}, {"seed": 5}, {"yaml": False},
    {"mesh": False}, {"kpt_dense": False}, {"kpt": False, "kpt_dense": False},
], ids=str)  # fmt: skip
def test_a_good_track_has_no_error(make_track: MakeTrack, change: dict[str, Any]) -> None:
    small = {**SPEC, "source_size": (320, 240), "crop_size": 128, "n_frames": 12}
    folder, _ = make_track(**{**small, **change})
    report = run(folder)
    assert report.kind == "track"
    assert ids(report, "error") == set()
    thorough = run(folder, thorough=True)
    assert ids(thorough, "error") == set()
    assert ids(thorough) == ids(report)


@pytest.mark.parametrize("sigma_px", [0.5, 1.0, 1.5])
def test_noisy_landmarks_are_no_error(copy_of: CopyOf, sigma_px: float) -> None:
    track = copy_of("square")
    rng = np.random.default_rng(3)
    for path in track.numbers("kpt"):
        points = np.load(path)
        np.save(path, np.floor(points + rng.normal(0, sigma_px, points.shape)).astype(np.float32))
    assert ids(run(track.root)) == set()


def test_the_sample_is_clean(fixtures_dir: Path) -> None:
    report = run(fixtures_dir / "sample")
    assert ids(report) == set()
    assert ids(run(fixtures_dir / "sample", thorough=True)) == set()


# --- real tracks ------------------------------------------------------------------------------


@pytest.mark.shared
def test_duda_is_clean(shared_data: Path) -> None:
    assert ids(run(shared_data / "duda")) == set()


@pytest.mark.shared
@pytest.mark.parametrize("kind", ["zip", "legacy"])
@pytest.mark.parametrize("writer", ["torch1.13_numpy1.23", "torch2.13_numpy1.26",
                                    "torch2.13_numpy2.4"])  # fmt: skip
def test_tracks_of_real_writers_have_no_error(shared_data: Path, writer: str, kind: str) -> None:
    report = run(shared_data / "frame-writers" / writer / kind)
    assert report.kind == "track"
    assert ids(report, "error") == set()
    assert ids(report) == {"files-missing", "numbering-unknown"}


@pytest.mark.shared
@pytest.mark.slow
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize(
    "defect",
    [d for d in DEFECTS if d.base == "square" and not d.needs & {"depth", "source"}],
    ids=lambda d: d.name.replace(" ", "-"),
)
def test_a_defect_of_a_real_track_is_named(
    shared_data: Path, tmp_path: Path, defect: Defect, size: str
) -> None:
    track = TrackCopy.of(shared_data / "duda", tmp_path / "duda")
    defect.apply(track, size == "barely")
    report = run(track.root)
    assert_named(report, defect, barely=size == "barely")
    shutil.rmtree(track.root)  # 35 MB each
