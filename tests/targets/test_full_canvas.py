"""Canvas full: the whole frame untouched, the pose refitted, and both poses held to each other."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from converter import registry
from converter.bundle.read import read_bundle
from converter.bundle.write import write_bundle
from converter.dataset.canvas import choose_canvas
from converter.dataset.central import with_central
from converter.dataset.options import CanvasOptions
from converter.errors import ConventionError, FitError, FormatError, MissingInputError, TargetError
from converter.geometry.pixels import Floats, Size
from converter.geometry.pose import Pose
from converter.media.images import read_image, read_size
from converter.media.torchfile import read_torch, write_torch
from converter.registry import ReadOptions, Written, no_progress
from converter.targets.gaussiantalker.cameras import stored_from_w2c
from converter.targets.gaussiantalker.check import check_dataset
from converter.targets.gaussiantalker.options import Options
from converter.track import Track
from fixtures.hostile.bundles import put, reseal
from tests.conftest import MakeTrack

TARGET = registry.target("gaussiantalker")


def read(folder: Path) -> Track:
    return registry.source("metrical_tracker").read(folder, ReadOptions())


def write(track: Track, out: Path, **options: Any) -> Written:
    return TARGET.write(track, out, Options(**options), overwrite=False, progress=no_progress)


def errors(out: Path) -> set[str]:
    return {f.check for f in check_dataset(out) if f.severity == "error"}


@pytest.fixture(scope="module")
def track(make_track: MakeTrack) -> Track:
    """A principal point 160 px off the centre of the frame, that costs 0.2 px."""
    folder, _ = make_track(n_frames=14, source_size=(640, 360), crop_size=256,
                           bbox=(10, 312, 30, 332))  # fmt: skip
    return read(folder)


@pytest.fixture(scope="module")
def dataset(track: Track, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Written]:
    out = tmp_path_factory.mktemp("full") / "out"
    return out, write(track, out)


@pytest.fixture(scope="module")
def corner(make_track: MakeTrack) -> Track:
    """A principal point so far off that no central camera shows the picture."""
    folder, _ = make_track(n_frames=12, source_size=(640, 360), crop_size=256,
                           bbox=(0, 150, 0, 150))  # fmt: skip
    return read(folder)


def apart(track: Track, central: Any, index: int) -> Floats:
    """Distances between the frame's mesh through both cameras, point by point, from the formula."""
    located = track.in_source()
    assert track.meshes is not None
    k, c = located.intrinsics, central.intrinsics
    found = []
    for x in track.meshes.vertices(index).astype(np.float64):
        a = track.w2c.R[index] @ x + track.w2c.t[index]
        b = central.w2c.R[index] @ x + central.w2c.t[index]
        was = k.fx * a[0] / a[2] + k.cx, k.fy * a[1] / a[2] + k.cy
        now = c.fx * b[0] / b[2] + c.cx, c.fy * b[1] / b[2] + c.cy
        found.append(np.hypot(now[0] - was[0], now[1] - was[1]))
    return np.array(found)


# --- what is written --------------------------------------------------------------------------


def test_the_images_are_the_source_frames(track: Track, dataset: tuple[Path, Written]) -> None:
    """The default; every pixel equals the decoded frame but for JPEG, encoded as OpenCV does."""
    out, _ = dataset
    assert json.loads((out / "uncrop.json").read_text())["canvas"]["kind"] == "full"
    assert track.source_frames is not None
    for index in (0, 5, 13):
        frame = track.source_frames.read(index)
        jpeg = cv2.imencode(".jpg", frame, [cv2.IMWRITE_JPEG_QUALITY, 95])[1].tobytes()
        assert (out / "ori_imgs" / f"{index}.jpg").read_bytes() == jpeg


def test_the_residual_that_is_printed_is_the_residual(
    track: Track, dataset: tuple[Path, Written]
) -> None:
    out, written = dataset
    kept = read_bundle(out / "track.h5")
    assert kept.central is not None
    distances = [apart(track, kept.central, i) for i in range(len(track))]
    median = float(np.median([np.median(d) for d in distances]))
    worst = float(np.max(distances))
    stated = kept.central.residual_px
    assert median <= stated[0] <= median + 0.01
    assert worst <= stated[1] <= worst + 0.05
    assert 0.15 < median < 0.25
    said = "\n".join(written.summary)
    assert f"the mesh moves by {stated[0]:.3f} px (median), {stated[1]:.3f} px at most" in said
    assert "--canvas window, 320x" in said
    assert "--canvas padded, 9" in said


def test_the_record_keeps_both_poses(track: Track, dataset: tuple[Path, Written]) -> None:
    kept = read_bundle(dataset[0] / "track.h5")
    assert kept.central is not None
    assert np.array_equal(kept.w2c.R, track.w2c.R)
    assert np.array_equal(kept.in_source().intrinsics.matrix, track.in_source().intrinsics.matrix)
    assert kept.central.intrinsics.is_central
    assert kept.central.intrinsics.fx == pytest.approx(float(track.in_source().intrinsics.fx))
    assert not np.allclose(kept.central.w2c.R, track.w2c.R, atol=1e-3)
    assert any("a second pose" in step for step in kept.provenance.steps)


@pytest.mark.parametrize("canvas", ["window", "padded", "crop"])
def test_exact_canvases_fit_nothing(track: Track, tmp_path: Path, canvas: str) -> None:
    write(track, tmp_path / "out", canvas=canvas)
    assert read_bundle(tmp_path / "out" / "track.h5").central is None


def test_odd_frames_lose_their_last_column_and_row(make_track: MakeTrack, tmp_path: Path) -> None:
    folder, _ = make_track(n_frames=12, source_size=(641, 361))
    track = read(folder)
    written = write(track, tmp_path / "out", quality=100)
    assert read_size(tmp_path / "out" / "ori_imgs" / "0.jpg") == Size(640, 360)
    assert "canvas-odd" in {f.check for f in written.findings}
    assert track.source_frames is not None
    frame = track.source_frames.read(3)[:360, :640]
    seen = read_image(tmp_path / "out" / "ori_imgs" / "3.jpg")
    assert np.abs(seen.astype(int) - frame).mean() < 1.0
    assert errors(tmp_path / "out") == set()


def test_dots_on_the_head_are_where_the_refitted_cameras_say(
    make_track: MakeTrack, tmp_path: Path
) -> None:
    folder, truth = make_track(look="dots", n_frames=2, seed=3, source_size=(1280, 720),
                               crop_size=512)  # fmt: skip
    track = read(folder)
    write(track, tmp_path / "out", quality=100)
    canvas, _ = choose_canvas(track, CanvasOptions())
    assert canvas.central is not None
    for index in range(2):
        light = read_image(tmp_path / "out" / "ori_imgs" / f"{index}.jpg")[..., 0].astype(float)
        seen = canvas.window.intrinsics.project(canvas.w2c[index](truth.dots(index)))
        y, x = np.mgrid[: light.shape[0], : light.shape[1]] + 0.5
        for point in seen:
            near = light * (np.hypot(x - point[0], y - point[1]) < 11)
            centre = np.array([(x * near).sum(), (y * near).sum()]) / near.sum()
            assert np.hypot(*(centre - point)) <= canvas.central.max_px[index] + 0.15


# --- the check --------------------------------------------------------------------------------


def replaced(out: Path, copy: Path, w2c: Pose) -> Path:
    """A copy of a dataset with other cameras in it."""
    import shutil

    shutil.copytree(out, copy)
    content = read_torch(copy / "track_params.pt").content
    assert isinstance(content, dict)
    content["euler"], content["trans"] = stored_from_w2c(w2c, 10.0)
    write_torch(copy / "track_params.pt", content, stem="track_params", tensors=True)
    return copy


def test_the_tracker_s_own_pose_is_wrong_here(
    track: Track, dataset: tuple[Path, Written], tmp_path: Path
) -> None:
    out = replaced(dataset[0], tmp_path / "out", track.w2c)
    assert {"reprojection", "residual"} <= errors(out)


@pytest.mark.parametrize("fault", ["frames shifted", "a little off"])
def test_a_wrong_refit_is_held_against_the_tracker_s_cameras(
    track: Track, dataset: tuple[Path, Written], tmp_path: Path, fault: str
) -> None:
    """Cameras that agree with the record, which itself is wrong."""
    right = read_bundle(dataset[0] / "track.h5")
    assert right.central is not None
    w2c = right.central.w2c
    moved = (
        Pose(np.roll(w2c.R, 1, axis=0), np.roll(w2c.t, 1, axis=0))
        if fault == "frames shifted"
        else Pose(w2c.R, w2c.t + np.array([1e-4, 0, 0]))
    )
    out = replaced(dataset[0], tmp_path / "out", moved)
    (out / "track.h5").unlink()
    write_bundle(replace(right, central=replace(right.central, w2c=moved)), out / "track.h5",
                 meshes="mean")  # fmt: skip
    assert "residual" in errors(out)
    assert "reprojection" not in errors(out)


# --- the limit --------------------------------------------------------------------------------


def test_above_the_limit_the_default_is_window_and_says_so(corner: Track, tmp_path: Path) -> None:
    written = write(corner, tmp_path / "out")
    assert json.loads((tmp_path / "out" / "uncrop.json").read_text())["canvas"]["kind"] == "window"
    said = [str(f) for f in written.findings if f.check == "canvas-full-unfit"]
    assert len(said) == 1
    assert "would move the mesh by 0.9" in said[0]
    assert "--max-residual" in said[0]
    assert read_bundle(tmp_path / "out" / "track.h5").central is None


def test_above_the_limit_full_is_refused_with_the_alternatives(
    corner: Track, tmp_path: Path
) -> None:
    with pytest.raises(FitError, match=r"0\.9.* --canvas window, 148x.*padded, 11.*--max-residual"):
        write(corner, tmp_path / "out", canvas="full")
    assert list(tmp_path.iterdir()) == []
    write(corner, tmp_path / "out", canvas="full", max_residual=3.0)
    assert errors(tmp_path / "out") == set()


@pytest.mark.parametrize("limit", [0.0, -1.0, float("nan"), float("inf")])
def test_a_limit_that_is_none_is_refused(track: Track, limit: float) -> None:
    with pytest.raises(TargetError, match="--max-residual"):
        TARGET.require(track, Options(max_residual=limit))


def test_full_is_never_resized(track: Track) -> None:
    for option in ({"size": "320"}, {"scale": 0.5}):
        with pytest.raises(TargetError, match="source frames as they are"):
            TARGET.require(track, Options(canvas="full", **option))
        canvas, _ = choose_canvas(track, CanvasOptions(**option))
        assert canvas.kind == "window"


def test_what_full_needs_is_named(track: Track) -> None:
    with pytest.raises(MissingInputError, match="--source"):
        choose_canvas(replace(track, source_frames=None), CanvasOptions(canvas="full"))
    with pytest.raises(MissingInputError, match="meshes"):
        choose_canvas(replace(track, meshes=None), CanvasOptions(canvas="full"))
    canvas, _ = choose_canvas(replace(track, meshes=None), CanvasOptions())
    assert canvas.kind == "window"


# --- both poses travel ------------------------------------------------------------------------


def test_a_bundle_carries_the_second_pose_and_it_is_not_fitted_again(
    track: Track, tmp_path: Path
) -> None:
    bundle = registry.target("bundle")
    path = tmp_path / "track.h5"
    options = bundle.options(with_images=True, central=True)
    written = bundle.write(track, path, options, overwrite=False, progress=no_progress)
    assert any("second pose" in line for line in written.summary)
    again = read_bundle(path)
    assert again.central is not None
    assert with_central(again, 0.5) is again
    with pytest.raises(FitError, match="0.01 px"):
        with_central(again, 0.01)


def test_a_second_pose_of_other_cameras_is_fitted_anew(track: Track) -> None:
    """`uncrop fit` moves the poses; what was fitted to the old ones must not be used."""
    fitted = with_central(track, 0.5)
    assert fitted.central is not None
    moved = replace(fitted, w2c=Pose(fitted.w2c.R, fitted.w2c.t + np.array([1e-3, 0, 0])))
    again = with_central(moved, 0.5)
    assert again.central is not fitted.central


HOSTILE: dict[str, tuple[Any, Any, str]] = {
    "part of it": (lambda file: file.__delitem__("/central/t"), FormatError, "central/t"),
    "another image": (
        lambda file: file["/central/K"].attrs.create("image_size", [640, 358]),
        ConventionError, "640x360.*640x358",
    ),
    "K not central": (
        lambda file: put(file, "/central/K", [[9.0, 0, 300], [0, 9, 180], [0, 0, 1]]),
        ConventionError, "central principal point",
    ),
    "no rotation": (
        lambda file: put(file, "/central/R", np.zeros((14, 3, 3))), ConventionError, "central",
    ),
    "not finite": (
        lambda file: put(file, "/central/max_px", np.full(14, np.nan)), ConventionError, "finite",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", HOSTILE)
def test_a_bundle_whose_second_pose_is_damaged_is_refused(
    track: Track, tmp_path: Path, name: str
) -> None:
    import h5py

    change, kind, match = HOSTILE[name]
    path = tmp_path / "t.h5"
    write_bundle(with_central(track, 0.5), path, meshes="mean")
    with h5py.File(path, "r+") as file:
        change(file)
    reseal(path)
    with pytest.raises(kind, match=match):
        read_bundle(path)
