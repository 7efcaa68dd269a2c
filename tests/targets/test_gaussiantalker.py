"""GaussianTalker: cameras by the loader's own maths, and every mistake people make with them."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given

from converter import registry
from converter.dataset.canvas import choose_canvas
from converter.dataset.landmarks import settle_landmarks
from converter.dataset.options import parse_sides
from converter.errors import MissingInputError, TargetError
from converter.geometry import Intrinsics, PixelAffine, Pose, Size
from converter.media.images import read_image, read_size
from converter.media.resampling import resample
from converter.media.torchfile import read_torch, write_torch
from converter.media.video import VideoFrames
from converter.registry import ReadOptions, no_progress
from converter.targets.gaussiantalker.blink import eye_aspect_ratio, find_blinks
from converter.targets.gaussiantalker.cameras import (
    loaded_from_stored,
    rasterised,
    stored_from_w2c,
)
from converter.targets.gaussiantalker.check import check_dataset
from converter.targets.gaussiantalker.options import Options
from converter.track import Track
from tests import strategies
from tests.media.ffmpeg import ffmpeg

TARGET = registry.target("gaussiantalker")


def write(track: Track, out: Path, **options: Any) -> Path:
    TARGET.write(track, out, Options(**options), overwrite=False, progress=no_progress)
    return out


@pytest.fixture(scope="session")
def track(fixtures_dir: Path) -> Track:
    return registry.source("metrical_tracker").read(fixtures_dir / "sample", ReadOptions())


@pytest.fixture(scope="session")
def dataset(track: Track, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(track, tmp_path_factory.mktemp("gt") / "out", canvas="window")


@pytest.fixture(scope="session")
def datasets(
    dataset: Path, track: Track, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Path]:
    """An exact canvas, and the one that has refitted cameras."""
    full = write(track, tmp_path_factory.mktemp("gt-full") / "out", canvas="full")
    return {"window": dataset, "full": full}


# --- cameras ----------------------------------------------------------------------------------


@given(strategies.poses())
def test_the_loader_gets_the_camera_back(pose: Pose) -> None:
    pose = Pose(pose.R.reshape(-1, 3, 3), pose.t.reshape(-1, 3))
    loaded = loaded_from_stored(*stored_from_w2c(pose, 10.0))
    np.testing.assert_allclose(loaded.R, pose.R, atol=1e-6)
    np.testing.assert_allclose(loaded.t, 10 * pose.t, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("yaw", [90.0, -90.0])
def test_full_profile_is_exact(yaw: float) -> None:
    from scipy.spatial.transform import Rotation

    R = Rotation.from_euler("YXZ", [yaw, 12, 33], degrees=True).as_matrix()[None]
    loaded = loaded_from_stored(*stored_from_w2c(Pose(R, np.zeros((1, 3))), 10.0))
    np.testing.assert_allclose(loaded.R, R, atol=1e-6)


def test_the_rasteriser_draws_where_a_pinhole_does() -> None:
    points = np.array([[0.0, 0, 2], [0.3, -0.2, 1.5]])
    seen = rasterised(points, 700.0, Size(512, 400))
    expected = 700 * points[:, :2] / points[:, 2:] + [256, 200]
    np.testing.assert_allclose(seen, expected, atol=1e-9)


def _tensors(out: Path, change: Callable[[dict[str, Any]], None]) -> None:
    content = read_torch(out / "track_params.pt").content
    assert isinstance(content, dict)
    change(content)
    write_torch(out / "track_params.pt", content, stem="track_params", tensors=True)


def _json(out: Path, change: Callable[[dict[str, Any]], None]) -> None:
    for split in ("train", "val"):
        path = out / f"transforms_{split}.json"
        content = json.loads(path.read_text())
        change(content)
        path.write_text(json.dumps(content))


def _column(name: str, *factors: float) -> Callable[[Path], None]:
    factor = np.array(factors, np.float32)
    return lambda out: _tensors(out, lambda c: c.update({name: c[name] * factor}))


def _swap_angles(out: Path) -> None:
    _tensors(out, lambda c: c.update(euler=c["euler"][:, [1, 0, 2]].copy()))


def _shift_frames(out: Path) -> None:
    _tensors(
        out,
        lambda c: c.update(
            euler=np.roll(c["euler"], 1, axis=0), trans=np.roll(c["trans"], 1, axis=0)
        ),
    )


def _scale_vertices(out: Path) -> None:
    _tensors(out, lambda c: c.update(vertices=c["vertices"] * np.float32(10)))


def _crop_focal(out: Path) -> None:
    _json(out, lambda c: c.update(focal_len=2339.0))


def _principal_point_of_K(out: Path) -> None:
    _json(out, lambda c: c.update(cx=c["cx"] - 1, cy=c["cy"] - 6))


MISTAKES: dict[str, Callable[[Path], None]] = {
    "no axis flip in trans": _column("trans", 1, -1, -1),
    "trans sign": _column("trans", -1, -1, -1),
    "vertices mirrored": _column("vertices", -1, 1, 1),
    "psi sign": _column("euler", 1, 1, -1),
    "phi sign": _column("euler", 1, -1, 1),
    "theta and phi swapped": _swap_angles,
    "frames shifted by one": _shift_frames,
    "vertices scaled, trans not": _scale_vertices,
    "focal length of the crop kept": _crop_focal,
    "principal point written as is": _principal_point_of_K,
}


@pytest.mark.parametrize("canvas", ["window", "full"])
@pytest.mark.parametrize("mistake", MISTAKES)
def test_check_rejects_the_mistakes_of_hand_written_bridges(
    datasets: dict[str, Path], tmp_path: Path, mistake: str, canvas: str
) -> None:
    import shutil

    out = tmp_path / "out"
    shutil.copytree(datasets[canvas], out)
    MISTAKES[mistake](out)
    found = [f for f in check_dataset(out) if f.check in ("reprojection", "image-size")]
    assert any(f.severity == "error" for f in found), found


def test_check_rejects_swapped_landmark_columns(dataset: Path, tmp_path: Path) -> None:
    import shutil

    out = tmp_path / "out"
    shutil.copytree(dataset, out)
    path = out / "ori_imgs" / "3.lms"
    np.savetxt(path, np.loadtxt(path)[:, ::-1], "%f")
    assert "lms-off" in {f.check for f in check_dataset(out) if f.severity == "error"}


# --- canvases ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "options",
    [
        {"canvas": "window"},
        {"canvas": "padded"},
        {"canvas": "crop"},
        {"canvas": "crop", "size": "384"},
        {"canvas": "window", "size": "600x480"},
        {"canvas": "window", "scale": 0.5},
        {"canvas": "padded", "scale": 1.25},
    ],
    ids=str,
)
def test_every_canvas_maps_crop_pixels_to_the_central_camera(
    track: Track, options: dict[str, Any]
) -> None:
    """project(K_crop) then canvas_from_crop == the central camera, for every mesh vertex."""
    canvas, _ = choose_canvas(track, Options(**options))
    assert canvas.window.intrinsics.is_central
    assert canvas.size.width % 2 == canvas.size.height % 2 == 0
    assert track.meshes is not None
    in_crop = track.in_crop()
    for index in (0, len(track) - 1):
        vertices = track.meshes.vertices(index).astype(np.float64)
        direct = canvas.window.intrinsics.project(track.w2c[index](vertices))
        mapped = canvas.canvas_from_crop(in_crop.project(index, vertices))
        np.testing.assert_allclose(mapped, direct, atol=1e-6)


def test_window_is_inside_and_padded_keeps_the_whole_frame(track: Track) -> None:
    source = track.in_source().intrinsics.size
    inside, _ = choose_canvas(track, Options(canvas="window"))
    around, _ = choose_canvas(track, Options(canvas="padded"))
    corners = [[0, 0], [source.width, source.height]]
    low, high = around.window.canvas_from_image(corners)
    assert (low >= -1e-6).all()
    assert (high <= np.array([around.size.width, around.size.height]) + 1e-6).all()
    back = inside.window.canvas_from_image.inverse()
    low, high = back([[0, 0], [inside.size.width, inside.size.height]])
    assert (low >= -1e-6).all()
    assert (high <= np.array([source.width, source.height]) + 1e-6).all()


@pytest.mark.parametrize("text", ["511", "512x511", "0", "-4", "12x", "axb", "30", "512x512x3"])
def test_sizes_that_lose_half_a_pixel_are_refused(text: str) -> None:
    with pytest.raises(TargetError, match="--size"):
        parse_sides(text)


def test_without_source_frames_the_crops_are_used_and_said(track: Track, tmp_path: Path) -> None:
    lonely = replace(track, source_frames=None, video=None)
    written = TARGET.write(
        lonely, tmp_path / "out", Options(), overwrite=False, progress=no_progress
    )
    said = {f.check: f.fix for f in written.findings}
    assert said["canvas-crop"] == "For native resolution give --source DIR_OR_VIDEO."
    unboxed = replace(lonely, crop=None)
    fixes = [f.fix for f in choose_canvas(unboxed, Options())[1]]
    assert fixes == ["For native resolution give --source DIR_OR_VIDEO and --bbox FILE."]
    # A smaller --size would show the same.
    assert said["canvas-invented"] == "From source frames these pixels are real."
    assert read_size(tmp_path / "out" / "ori_imgs" / "0.jpg") == Size(512, 512)
    with pytest.raises(MissingInputError, match="--source"):
        TARGET.require(lonely, Options(canvas="window"))


@pytest.mark.parametrize("canvas", ["window", "padded", "crop"])
def test_pixels_land_where_the_camera_says(make_track: Any, tmp_path: Path, canvas: str) -> None:
    """Dots painted on the head are found in the written images where the cameras project them."""
    folder, truth = make_track(
        look="dots", n_frames=2, seed=3, source_size=(1280, 720), crop_size=512
    )
    track = registry.source("metrical_tracker").read(folder, ReadOptions())
    out = write(track, tmp_path / "out", canvas=canvas, quality=100)
    chosen, _ = choose_canvas(track, Options(canvas=canvas))
    for index in range(2):
        light = read_image(out / "ori_imgs" / f"{index}.jpg")[..., 0].astype(float)
        seen = chosen.window.intrinsics.project(track.w2c[index](truth.dots(index)))
        radius = 9.0 * float(chosen.canvas_from_crop.sx)
        errors = np.array([_centroid(light, p, radius) - p for p in seen])
        # Half a pixel, or an affine without its half-pixel terms, would be a common shift.
        assert np.abs(errors.mean(axis=0)).max() <= 0.05
        assert np.abs(errors).max() <= 0.15


@pytest.mark.parametrize("size", ["64", "300", None])
def test_a_canvas_of_a_video_is_that_of_its_whole_frames(
    make_track: Any, tmp_path: Path, size: str | None
) -> None:
    """Also where only the part that it shows is converted to BGR."""
    folder, _ = make_track(n_frames=3, source_size=(640, 360), crop_size=128)
    track = registry.source("metrical_tracker").read(folder, ReadOptions())
    clip = tmp_path / "clip.mp4"
    ffmpeg("-f", "lavfi", "-i", "testsrc2=s=640x360:r=25:d=1", "-pix_fmt", "yuv420p", str(clip))
    frames = VideoFrames(clip, indices=range(3))
    canvas = "window" if size is None else "crop"
    chosen, _ = choose_canvas(
        replace(track, source_frames=frames), Options(canvas=canvas, size=size)
    )
    for position, draw in enumerate(chosen.stream(range(3))):
        affine = chosen.window.canvas_from_image[position]
        expected = resample(frames.read(position), affine, chosen.size)
        np.testing.assert_array_equal(draw(None), expected)


def _centroid(light: Any, near: Any, radius: float) -> Any:
    """Centre of the light around an edge-origin position."""
    y, x = np.mgrid[: light.shape[0], : light.shape[1]] + 0.5
    weight = light * (np.hypot(x - near[0], y - near[1]) < radius)
    return np.array([(x * weight).sum(), (y * weight).sum()]) / weight.sum()


# --- landmarks, blinks, tables ----------------------------------------------------------------


def test_short_gaps_are_filled_and_long_ones_dropped() -> None:
    landmarks = np.arange(20.0)[:, None, None] * np.ones((20, 68, 2))
    landmarks[3:5] = np.nan
    landmarks[10:17] = np.nan
    landmarks[19] = np.nan
    positions, filled, findings = settle_landmarks(landmarks, np.arange(20) / 25, 5, "kpt")
    assert positions.tolist() == [*range(10), 17, 18]
    np.testing.assert_allclose(filled[3:5, 0, 0], [3, 4])
    assert {f.check: f.measured for f in findings} == {"landmarks-filled": 2, "frames-dropped": 8}


def test_frames_are_dropped_everywhere_alike(track: Track, tmp_path: Path) -> None:
    assert track.landmarks is not None
    landmarks = track.landmarks.copy()
    landmarks[4:14] = np.nan
    out = write(replace(track, landmarks=landmarks), tmp_path / "out", canvas="crop")
    manifest = json.loads((out / "uncrop.json").read_text())
    kept = manifest["track_positions"]
    assert kept == [i for i in range(len(track)) if not 4 <= i < 14]
    n = len(kept)
    params = read_torch(out / "track_params.pt").content
    assert isinstance(params, dict)
    assert len(params["euler"]) == len(params["trans"]) == n
    assert sorted(int(p.stem) for p in (out / "ori_imgs").glob("*.jpg")) == list(range(n))
    assert len((out / "au.csv").read_text().splitlines()) == n + 1
    frames = [
        f
        for split in ("train", "val")
        for f in json.loads((out / f"transforms_{split}.json").read_text())["frames"]
    ]
    assert [f["img_id"] for f in frames] == list(range(n))
    assert track.source_indices is not None
    assert [f["aud_id"] for f in frames] == track.source_indices[kept].tolist()


def test_blinks_are_found_where_the_eyes_close(track: Track, dataset: Path) -> None:
    with (dataset / "au.csv").open() as stream:
        rows = list(csv.DictReader(stream))
    values = np.array([float(r[" AU45_r"]) for r in rows])
    assert values.max() == 2.0
    assert (values == 0).mean() > 0.5
    ratio = eye_aspect_ratio(track.landmarks)  # type: ignore[arg-type]
    assert values[int(np.nanargmin(ratio))] > 1.5


def test_eyelids_are_the_fallback_and_no_blink_is_no_blink() -> None:
    times = np.arange(100) / 25
    points = np.tile(np.random.default_rng(0).normal(size=(1, 68, 2)), (100, 1, 1))
    still = find_blinks(points, None, times)
    assert not still.closure.any()
    lids = np.zeros((100, 2))
    lids[40:44] = 0.9
    closed = find_blinks(points, lids, times)
    assert closed.origin == "the tracker's eyelids"
    assert (closed.closure[40:44] > 0.9).all()
    assert not closed.closure[:40].any()


def test_audio_features_are_checked(track: Track, tmp_path: Path) -> None:
    good, bad = tmp_path / "good.npy", tmp_path / "bad.npy"
    np.save(good, np.zeros((60, 16, 29), np.float32))
    np.save(bad, np.zeros((60, 16, 44), np.float32))
    with pytest.raises(TargetError, match=r"Nx16x29.*60x16x44.*wav2vec"):
        TARGET.require(track, Options(audio_features=bad))
    out = write(track, tmp_path / "out", canvas="crop", audio_features=good)
    assert np.load(out / "aud_ds.npy").shape == (60, 16, 29)


def test_sound_is_written_and_split_in_time(dataset: Path, track: Track) -> None:
    import wave

    if track.video is None:
        pytest.skip("the sample has no sound")
    seconds = {}
    for name in ("aud", "aud_train", "aud_novel"):
        with wave.open(str(dataset / f"{name}.wav")) as sound:
            assert sound.getframerate() == 16000
            assert sound.getnchannels() == 1
            seconds[name] = sound.getnframes() / 16000
    n_train = len(track) * 10 // 11
    assert seconds["aud_train"] == pytest.approx(n_train / 25, abs=0.01)
    assert seconds["aud_novel"] == pytest.approx((len(track) - n_train) / 25, abs=0.05)


def test_json_holds_whole_numbers_for_the_principal_point(dataset: Path) -> None:
    """Floats make the loader resize bc.jpg to a float size, which raises."""
    content = json.loads((dataset / "transforms_train.json").read_text())
    assert isinstance(content["cx"], int)
    assert isinstance(content["cy"], int)


def test_torch_reads_the_tensors_without_unpickling_code(dataset: Path) -> None:
    torch = pytest.importorskip("torch")
    params = torch.load(dataset / "track_params.pt", weights_only=True)
    assert params["euler"].dtype == params["trans"].dtype == torch.float32
    assert params["vertices"].ndim == 3


def test_transform_matrices_are_opengl_camera_to_world(dataset: Path, track: Track) -> None:
    frames = json.loads((dataset / "transforms_train.json").read_text())["frames"]
    flip = np.diag([1.0, -1, -1, 1])
    for frame in frames[::7]:
        w2c = np.eye(4)
        w2c[:3, :3], w2c[:3, 3] = track.w2c.R[frame["img_id"]], track.w2c.t[frame["img_id"]]
        np.testing.assert_allclose(frame["transform_matrix"], np.linalg.inv(w2c) @ flip, atol=1e-9)


def test_needs_are_named_before_anything_is_written(track: Track, tmp_path: Path) -> None:
    for lack, said in (
        ({"meshes": None}, "meshes"),
        ({"landmarks": None}, "landmarks"),
        ({"source_indices": None}, "begin-frames"),
    ):
        with pytest.raises(MissingInputError, match=said):
            TARGET.require(replace(track, **lack), Options())  # type: ignore[arg-type]
    assert list(tmp_path.iterdir()) == []


def test_map_of_landmarks_is_the_map_of_pixels(track: Track) -> None:
    canvas, _ = choose_canvas(track, Options(canvas="window"))
    crop = track.require_crop()
    chained = canvas.window.canvas_from_image @ crop.source_from_crop
    assert chained == canvas.canvas_from_crop
    assert isinstance(chained, PixelAffine)


def test_a_K_that_varies_gets_one_focal_length_and_a_window_per_frame(
    track: Track, tmp_path: Path
) -> None:
    """Forks keep a K per frame; the canvas absorbs it, so that one focal length serves all."""
    n = len(track)
    k = track.intrinsics
    wobble = np.sin(np.arange(n))
    varying = replace(
        track,
        intrinsics=Intrinsics(
            k.fx * (1 + 0.01 * wobble), k.fy * (1 + 0.01 * wobble), k.cx + wobble, k.cy, k.size
        ),
        crop_frames=None,
    )
    out = write(varying, tmp_path / "out", canvas="window")
    assert [f for f in check_dataset(out) if f.severity == "error"] == []
    canvas, _ = choose_canvas(varying, Options(canvas="window"))
    assert track.meshes is not None
    for index in (0, 7, n - 1):
        vertices = track.meshes.vertices(index).astype(np.float64)
        expected = canvas.window.canvas_from_image[index](
            varying.in_source().project(index, vertices)
        )
        direct = canvas.window.intrinsics.project(track.w2c[index](vertices))
        np.testing.assert_allclose(expected, direct, atol=1e-6)
