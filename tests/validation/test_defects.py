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


FORKS = {"naive K without a camera block", "source K without a camera block"}
MUTE = {
    "head behind the camera", "poses of another head", "landmarks of another shape", "path trap",
    "images of neighbouring frames",
}  # fmt: skip


def _undecidable(a: Defect, b: Defect) -> bool:
    """Only landmarks tell what a fork's K means, and they cannot where they are lost."""
    return bool({a.name, b.name} & FORKS and {a.name, b.name} & MUTE)


def _pairs() -> list[tuple[Defect, Defect]]:
    found = [
        (a, b) for a, b in itertools.combinations(DEFECTS, 2)
        if a.base == b.base and a.check != b.check and not a.touches & b.touches
        and not _undecidable(a, b)
    ]  # fmt: skip
    return found if EVERY_PAIR else random.Random(4).sample(found, N_PAIRS)


@pytest.mark.parametrize(("first", "second"), _pairs(), ids=lambda d: d.name.replace(" ", "-"))
def test_two_defects_are_both_named(copy_of: CopyOf, first: Defect, second: Defect) -> None:
    track = copy_of(first.base)
    for defect in sorted((first, second), key=lambda d: "file" in d.touches):
        defect.apply(track, False)  # what makes a file unreadable comes last
    report = run(track.root)
    for defect, other in ((first, second), (second, first)):
        hidden = defect.check in other.hides
        reasons = [(r.status, r.reason) for r in report.results if r.check == defect.check]
        assert status(report, defect.check) in (("found", "skipped") if hidden else ("found",)), (
            defect.name, reasons, ids(report),
        )  # fmt: skip


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
