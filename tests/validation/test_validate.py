"""What validation promises beside its findings: cheap, complete, nothing decoded twice."""

from __future__ import annotations

import random
import re
import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest

from converter.registry import ReadOptions, read_track, write_track
from converter.validation.catalogue import CATALOGUE
from converter.validation.checking import run_checks
from converter.validation.illustrate import pictures_of, series_of
from converter.validation.report import Report
from converter.validation.tracked import Tracked
from converter.validation.validate import ValidateOptions, validate
from fixtures.defects import DEFECTS, edit, edit_all
from tests.conftest import MakeTrack
from tests.validation.conftest import SPEC, CopyOf

QUIET = ReadOptions(hash_inputs=False)


def statuses(report: Report) -> dict[str, str]:
    return {r.check: r.status for r in report.results}


def of(name: str) -> object:
    return next(d for d in DEFECTS if d.name == name)


@pytest.mark.parametrize("thorough", [False, True])
def test_no_image_is_decoded_twice(copy_of: CopyOf, thorough: bool) -> None:
    track = copy_of("square")
    evidence = Tracked(track.root, QUIET, thorough=thorough)
    results = run_checks(evidence, "track")
    series_of(evidence, results)
    pictures_of(evidence)
    decoded = evidence.pictures
    assert decoded.n_decoded == len(decoded.seen)
    if thorough:
        assert len(decoded.seen) == 24 + 25 + 25  # dumps, images, source frames
    else:
        assert len(decoded.seen) < 40


def test_thorough_sees_what_a_sample_does_not(copy_of: CopyOf) -> None:
    track = copy_of("square")
    path = track.numbers("images")[9]
    image = cv2.imread(str(path))
    path.unlink()
    cv2.imwrite(str(path), 255 - image)
    assert statuses(validate(track.root))["images-order"] == "passed"
    report = validate(track.root, ValidateOptions(thorough=True))
    found = {r.check: r for r in report.results}
    assert found["images-order"].frame_ids == (8,)
    assert found["crop-pixels"].status == "found"


def test_what_cannot_run_says_why(copy_of: CopyOf) -> None:
    track = copy_of("square")
    for folder in (track.output / "mesh", track.output / "input", track.actor):
        shutil.rmtree(folder)
    report = validate(track.root)
    skipped = {r.check: r.reason for r in report.results if r.status == "skipped"}
    assert set(skipped) >= {"crop-pixels", "landmarks-off-mesh", "images-order", "landmarks-lag",
                            "jitter"}  # fmt: skip
    assert all(skipped.values())
    passed = {r.check: r.n_examined for r in report.results if r.status == "passed"}
    assert {c for c, n in passed.items() if not n} <= {"files-damaged"}


def test_images_that_begin_late_are_held_against_their_own_video_frames(
    make_track: MakeTrack, tmp_path: Path
) -> None:
    folder, _ = make_track(**{**SPEC, "source": "video"})
    made = tmp_path / "made"
    write_track(read_track(folder), "metrical_tracker", made)
    names = sorted(p.name for p in made.glob("input/*/images/*"))
    assert names[0] != "00001.png"  # the frame before begin_frames was never tracked
    pixels = next(r for r in validate(made).results if r.check == "crop-pixels")
    assert (pixels.status, pixels.findings) == ("passed", ())


def test_a_folder_without_frames_is_still_a_report(copy_of: CopyOf) -> None:
    track = copy_of("square")
    for path in track.frames:
        path.write_bytes(b"PK\x03\x04")
    report = validate(track.root)
    assert report.kind == "track"
    assert report.n_frames == 24
    assert {f.check for f in report.findings if f.severity == "error"} == {"frames-damaged"}
    assert statuses(report)["K-naive"] == "skipped"


def test_jitter_of_the_camera_is_told_from_motion_of_the_head(copy_of: CopyOf) -> None:
    track = copy_of("square")
    assert statuses(validate(track.root))["jitter"] == "passed"
    rng = np.random.default_rng(2)
    for path in track.frames:
        shake = rng.normal(0, 0.006, 3).astype(np.float32)  # 3 px in 192
        edit(path, lambda c, s=shake: (  # type: ignore[misc]
            c["opencv"]["t"].__iadd__(s),
            c["camera"]["t"].__iadd__(s * np.float32([-1, -1, 1])),
        ))  # fmt: skip
    report = validate(track.root)
    (found,) = (f for f in report.findings if f.check == "jitter")
    assert found.severity == "warning"
    assert found.measured is not None
    assert 1 < found.measured < 10


def test_one_jump_of_the_camera_is_named(copy_of: CopyOf) -> None:
    track = copy_of("square")
    edit_all(track.frames[12:13], lambda c: (
        c["opencv"]["t"].__iadd__(np.float32([0.02, 0, 0])),
        c["camera"]["t"].__iadd__(np.float32([-0.02, 0, 0])),
    ))  # type: ignore[arg-type,func-returns-value]  # fmt: skip
    result = next(r for r in validate(track.root).results if r.check == "jitter")
    assert result.status == "found"
    assert 12 in result.frame_ids


@pytest.mark.parametrize(("focal", "off", "check", "severity"), [
    (0.2, 0.0, "fov-range", "error"), (60.0, 0.0, "fov-range", "error"),
    (4.57, 0.11, "principal-off", "warning"), (4.57, 0.6, "principal-off", "error"),
])  # fmt: skip
def test_implausible_cameras(
    copy_of: CopyOf, focal: float, off: float, check: str, severity: str
) -> None:
    track = copy_of("square")
    width = track.size[0]

    def change(c: dict) -> None:  # type: ignore[type-arg]
        half = np.float32(width / 2)
        c["camera"]["fl"][:] = np.float32(focal * 2)
        c["camera"]["pp"][:] = np.float32(-2 * off)
        K = c["opencv"]["K"]
        K[0, 0, 0] = K[0, 1, 1] = c["camera"]["fl"][0, 0] * half
        K[0, :2, 2] = half - c["camera"]["pp"][0] * half

    edit_all(track.frames, change)
    found = [f for f in validate(track.root).findings if f.check == check]
    assert [f.severity for f in found] == [severity]


def test_the_naive_K_shows_the_box_even_where_bbox_pt_is_lost(copy_of: CopyOf) -> None:
    for name, check in (("naive K", "K-naive"), ("source K", "K-source")):
        track = copy_of("square")
        of(name).apply(track, False)  # type: ignore[attr-defined]
        (track.actor / "bbox.pt").unlink()
        (found,) = (f for f in validate(track.root).findings if f.check == check)
        assert str(track.bbox[0]) in found.message
        assert str(track.bbox[2]) in found.message


def test_facts_series_and_pictures(fixtures_dir: Path) -> None:
    report = validate(fixtures_dir / "sample", ValidateOptions(illustrate=True))
    assert set(report.facts) >= {"frames", "images", "source", "K", "fov", "crop", "moves"}
    assert report.facts["moves"] == "expression, jaw, eyelids"
    names = [s.name for s in report.series]
    assert names == ["focal length", "principal point", "rotation", "translation",
                     "reprojection error"]  # fmt: skip
    for series in report.series:
        assert len(series.values) == len(series.frame_ids) == 36
    errors = report.series[-1]
    assert np.nanmax(errors.values) < 2.0
    assert errors.marked == ((17, "landmarks-missing"),)
    assert np.isnan(errors.values[17])
    assert len(report.pictures) == 2
    for picture in report.pictures:
        image = cv2.imdecode(np.frombuffer(picture.jpeg, np.uint8), cv2.IMREAD_COLOR)
        assert image.shape[1] <= 640
    assert validate(fixtures_dir / "sample").series == ()


def test_the_number_is_the_one_that_exceeds_its_limit(copy_of: CopyOf) -> None:
    """Of two that are compared, and in a plot that has any."""
    for name, limit in (("t out of step", 1e-5), ("R out of step", 1e-4)):
        track = copy_of("square")
        of(name).apply(track, False)  # type: ignore[attr-defined]
        (found,) = (f for f in validate(track.root).findings if f.check == "pose-differs")
        assert (found.limit, found.unit) == (limit, "m" if limit == 1e-5 else "")
        assert found.measured is not None
        assert found.measured > limit


def test_a_plot_without_a_number_is_left_out(copy_of: CopyOf) -> None:
    track = copy_of("square")
    of("head behind the camera").apply(track, False)  # type: ignore[attr-defined]
    report = validate(track.root, ValidateOptions(illustrate=True))
    assert "reprojection error" not in {s.name for s in report.series}
    assert all(np.isfinite(s.values).any() for s in report.series)


def test_images_are_counted_as_convert_counts_them(fixtures_dir: Path) -> None:
    steps = read_track(fixtures_dir / "sample", QUIET).provenance.steps
    numbering = validate(fixtures_dir / "sample").facts["numbering"]
    assert numbering in steps
    assert "(offset 2)" in numbering  # begin_frames 1, images from 00001


def test_a_wrong_begin_frames_is_mended_where_it_was_said(copy_of: CopyOf) -> None:
    root = copy_of("square").root
    (yaml,) = root.rglob("*.yml")
    for option, stated_by, fix in ((7, "--begin-frames", "Leave it"), (None, yaml.name, "Mend")):
        options = ValidateOptions(ReadOptions(begin_frames=option))
        (found,) = (f for f in validate(root, options).findings if f.check == "begin-frames")
        assert (found.where, found.fix.startswith(fix)) == (stated_by, True)
        yaml.write_text(re.sub(r"begin_frames: \d+", "begin_frames: 7", yaml.read_text()))


def test_a_lost_bbox_is_found_by_the_command_that_is_printed(copy_of: CopyOf) -> None:
    track = copy_of("square")
    (track.actor / "bbox.pt").unlink()
    (found,) = (f for f in validate(track.root).findings if f.check == "bbox-missing")
    assert f"`uncrop recover-bbox {track.root}`" in found.fix
    shutil.rmtree(track.actor / "source")
    (found,) = (f for f in validate(track.root).findings if f.check == "bbox-missing")
    assert f"`uncrop recover-bbox {track.root} --source VIDEO`" in found.fix


def test_series_show_cameras_as_they_are_stored(copy_of: CopyOf) -> None:
    track = copy_of("square")
    of("naive K").apply(track, True)  # type: ignore[attr-defined]
    report = validate(track.root, ValidateOptions(illustrate=True))
    series = next(s for s in report.series if s.name == "principal point")
    frame = int(track.middle.stem)
    assert series.marked == ((frame, "K-naive"),)
    assert np.ptp(series.values[:, 0]) > 50


def test_a_track_is_checked_by_every_check_of_the_catalogue(copy_of: CopyOf) -> None:
    report = validate(copy_of("square").root)
    assert set(statuses(report)) == {i.id for i in CATALOGUE if "track" in i.kinds}
    assert set(statuses(report).values()) <= {"passed", "found"}


def _damage(path: Path, rng: random.Random) -> None:
    data = path.read_bytes()
    how = rng.randrange(4)
    if how == 0:
        path.write_bytes(data[: rng.randrange(len(data) + 1)])
    elif how == 1:
        flipped = bytearray(data)
        for _ in range(rng.choice([1, 3, 50])):
            flipped[rng.randrange(len(flipped))] = rng.randrange(256)
        path.write_bytes(bytes(flipped))
    elif how == 2:
        path.unlink()
        path.mkdir()
    elif path.suffix == ".frame":
        number = rng.choice([0.0, -1.0, 1e30, 3e38, 1e-30, np.nan, 1e8])
        block, name = rng.choice([("opencv", "K"), ("opencv", "R"), ("opencv", "t"),
                                  ("camera", "fl"), ("camera", "R"), ("camera", "t")])  # fmt: skip
        edit(path, lambda c: c[block][name].fill(number))


@pytest.mark.parametrize("seed", range(12))
def test_no_damage_makes_it_fail(make_track: MakeTrack, tmp_path: Path, seed: int) -> None:
    folder, _ = make_track(source_size=(160, 120), crop_size=96, n_frames=8, oversample=1,
                           depth=True)  # fmt: skip
    shutil.copytree(folder, tmp_path / "track")
    rng = random.Random(seed)
    files = sorted(p for p in (tmp_path / "track").rglob("*") if p.is_file())
    frames = [p for p in files if p.suffix == ".frame"]
    for path in {*rng.sample(files, 6), *rng.sample(frames, rng.choice([0, 2, 8]))}:
        _damage(path, rng)
    options = ValidateOptions(thorough=seed % 2 == 0, illustrate=True)
    report = validate(tmp_path / "track", options)
    assert report.worst == "error"
    for result in report.results:
        assert (result.status == "skipped") == bool(result.reason)
        assert (result.status == "found") == bool(result.findings)
