"""flame-head-tracker's results: exact cameras, found squares, and nothing that runs."""

from __future__ import annotations

import os
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from converter import registry
from converter.errors import (
    ConventionError,
    FormatError,
    MissingInputError,
    RecoveryError,
    UncropError,
    UnsafeFileError,
)
from converter.geometry.intrinsics import Intrinsics
from converter.geometry.pixels import Size
from converter.geometry.pose import matrix_from_rotation_6d, matrix_from_rotation_vector
from converter.media.limits import DEFAULT_LIMITS
from converter.media.pickled import read_pickled
from converter.registry import ReadOptions, no_progress
from converter.sources.flame_head_tracker import alignment, cameras
from converter.sources.flame_head_tracker.results import Result, looks_like_results, read_arrays
from converter.track import Track
from fitting.similarity import Similarity, grey_of, register
from fixtures.synthetic.flame_head import ResultSpec, ResultTruth, npz_bytes, write_results
from fixtures.synthetic.raster import project
from tests import strategies

MakeResults = Callable[..., ResultTruth]


@pytest.fixture(scope="session")
def make_results(tmp_path_factory: pytest.TempPathFactory) -> MakeResults:
    made: dict[ResultSpec, ResultTruth] = {}

    def make(**overrides: Any) -> ResultTruth:
        spec = ResultSpec(**overrides)
        if spec not in made:
            made[spec] = write_results(tmp_path_factory.mktemp("fht"), spec)
        return made[spec]

    return make


def read(path: Path, **options: Any) -> Track:
    return registry.read_track(path, ReadOptions(hash_inputs=False, **options))


def worst_px(track: Track, truth: ResultTruth) -> float:
    """Largest distance of the mesh through the track's cameras from where it really is."""
    distances = []
    for i in range(len(track)):
        points = truth.vertices[i]
        true = truth.project(i, points)
        if track.image_space == "crop":
            true = project(points @ truth.R_fitted[i].T + truth.t_fitted[i], truth.K_fitted[i])[0]
        distances.append(np.abs(track.project(i, points) - true).max())
    return float(max(distances))


SPECS: dict[str, dict[str, Any]] = {
    "4.1": {},
    "3.4": {"release": "3.4"},
    "3.3": {"release": "3.3"},
    "3.2": {"release": "3.2"},
    "fov 12": {"fov_deg": 12.0},
    "whole frames": {"realign": False},
}


@pytest.mark.parametrize("name", SPECS)
def test_cameras_of_the_fitted_images_are_exact(name: str, make_results: MakeResults) -> None:
    truth = make_results(**SPECS[name])
    track = read(truth.results)
    assert worst_px(track, truth) < 1e-3  # float32 of the files
    assert track.frame_ids.tolist() == list(truth.fids) == [0, 1, 3, 4, 5]
    size = np.array([track.intrinsics.size.width, track.intrinsics.size.height])
    assert track.landmarks is not None
    assert np.abs(track.landmarks - truth.landmarks * size).max() < 1e-3
    assert track.flame.jaw is not None
    expected = matrix_from_rotation_vector(truth.jaw)
    assert np.allclose(matrix_from_rotation_6d(track.flame.jaw), expected, atol=1e-6)
    assert track.flame.shape is not None
    assert track.flame.shape.shape == (300,)
    assert track.flame.expression is not None
    assert track.flame.expression.shape == (5, 100)
    said = {f.check for f in track.findings}
    assert ("fov-assumed" in said) == (name in ("3.4", "3.3", "3.2"))
    assert "frames-missing" in said


@pytest.mark.parametrize("name", SPECS)
def test_cameras_reach_the_original_frames(name: str, make_results: MakeResults) -> None:
    truth = make_results(**SPECS[name])
    track = read(truth.results, source=truth.source)
    assert track.image_space == "source"
    assert track.intrinsics.size == Size(640, 360)
    assert worst_px(track, truth) < (0.02 if truth.maps is not None else 1e-3)
    assert track.landmarks is not None
    for i in range(len(track)):
        true = truth.project(i, truth.vertices[i])
        distance = np.linalg.norm(true[:, None] - track.landmarks[i], axis=-1).min(axis=0)
        assert np.max(distance) < 0.02


@pytest.mark.parametrize(("sampling", "rate"), [(1, "25"), (2, "12.5")])
def test_a_video_and_its_sampling(make_results: MakeResults, sampling: int, rate: str) -> None:
    truth = make_results(video=True, sampling=sampling, n_frames=5)
    track = read(truth.results, source=truth.source)
    assert worst_px(track, truth) < 0.02
    assert track.source_indices is not None
    assert track.source_indices.tolist() == [f * sampling for f in truth.fids]
    assert track.fps == 25
    assert any(f"sampled at {rate}" in s for s in track.provenance.steps) == (sampling > 1)
    told = read(truth.results, source=truth.source, fps=float(rate))
    assert np.array_equal(told.source_indices, track.source_indices)


def test_a_neighbouring_frame_is_refused(make_results: MakeResults, tmp_path: Path) -> None:
    truth = make_results()
    for k, path in enumerate(sorted(truth.source.iterdir())):
        (tmp_path / f"{k + 1:05d}.png").write_bytes(path.read_bytes())
    (tmp_path / "00000.png").write_bytes((truth.source / "00000.png").read_bytes())
    with pytest.raises(RecoveryError, match=r"1\.npz: expected its image inside 00001\.png"):
        read(truth.results, source=tmp_path)


def test_a_neighbour_that_fits_better_is_refused(make_results: MakeResults) -> None:
    """Where the head moves so little that the wrong frame still holds the cut."""
    truth = make_results()
    cuts = read(truth.results).crop_frames
    assert cuts is not None
    frames = [cv2.imread(str(p)) for p in sorted(truth.source.iterdir())]
    shifted = [register(grey_of(cuts.read(i)), grey_of(frames[f - 1]))
               for i, f in enumerate(truth.fids) if f]  # fmt: skip
    registrations = [register(grey_of(cuts.read(0)), grey_of(frames[0])), *shifted]

    def frame_beside(i: int, step: int) -> Any:
        place = truth.fids[i] - 1 + step
        return frames[place] if 0 <= place < len(frames) else None

    with pytest.raises(ConventionError, match="the frame that its number says"):
        alignment.require_own_frames(cuts, registrations, frame_beside)  # type: ignore[arg-type]


def test_another_video_is_refused(make_results: MakeResults, tmp_path: Path) -> None:
    truth = make_results()
    rng = np.random.default_rng(0)
    for k in range(6):
        noise = cv2.GaussianBlur(rng.integers(0, 255, (360, 640, 3), np.uint8), (0, 0), 3)
        cv2.imwrite(str(tmp_path / f"{k}.png"), noise)
    with pytest.raises(RecoveryError, match="its image inside"):
        read(truth.results, source=tmp_path)
    with pytest.raises(MissingInputError, match="Check its spelling"):
        read(truth.results, source=tmp_path / "nothing")


@pytest.mark.parametrize("to", ["bundle", "metrical_tracker", "gaussiantalker"])
@pytest.mark.parametrize("with_source", [False, True])
def test_converts(make_results: MakeResults, tmp_path: Path, to: str, with_source: bool) -> None:
    truth = make_results(video=True, n_frames=5, lost=(2,))
    source = truth.source if with_source else None
    track = read(truth.results, source=source)
    out = tmp_path / ("out.h5" if to == "bundle" else "out")
    written = registry.write_track(track, to, out)
    if to == "gaussiantalker":
        assert any("max reprojection difference 0.0000" in line for line in written.summary)
        assert "mesh-stand-in" in {f.check for f in written.findings}
        return
    again = read(out)
    if with_source and to == "metrical_tracker":
        again = again.in_source()
    assert worst_px(again, truth) < 0.02
    assert again.frame_ids.tolist() == list(truth.fids)


def test_the_neck_is_warned_about_in_px(make_results: MakeResults) -> None:
    track = read(make_results(neck=True).results)
    (finding,) = [f for f in track.findings if f.check == "neck-lost"]
    assert "5.0 degrees" in finding.message
    assert " px of the 256x256 square" in finding.message


# --- formulas -------------------------------------------------------------------------------------


def _result(euler: np.ndarray[Any, Any], centre: np.ndarray[Any, Any], fov: float) -> Result:
    zeros = np.zeros(3)
    return Result(Path("0.npz"), 0, euler, centre, fov, np.zeros(300), np.zeros(100), zeros, None,
                  zeros, None)  # fmt: skip


ANGLE = strategies.floats(-1.5, 1.5)


@given(
    st.tuples(ANGLE, ANGLE, ANGLE),
    st.tuples(*[strategies.floats(-1, 1)] * 3),
    strategies.floats(10, 50),
    strategies.points(3, 0.2),
)
def test_the_pose_is_the_projection_of_the_tracker(
    euler: tuple[float, ...], centre: tuple[float, ...], fov: float, points: Any
) -> None:
    """Against the one-line restatement of its projection (spec, section 1)."""
    yaw, pitch, roll = euler
    c = np.array(centre) + [0, 0, 3.0]
    (cx, sx), (cy, sy), (cz, sz) = ((np.cos(a), np.sin(a)) for a in (pitch, yaw, roll))
    R = (
        np.array([[cz, -sz, 0], [sz, cz, 0], [0, 0, 1]])
        @ np.array([[cy, 0, sy], [0, 1, 0], [-sy, 0, cy]])
        @ np.array([[1, 0, 0], [0, cx, -sx], [0, sx, cx]])
    )
    p = (points - c) @ R
    result = _result(np.array(euler), c, fov)
    pose = cameras.poses([result])[0]
    k = cameras.fitted_intrinsics([result], Size(512, 512))
    front = p[:, 2] < -1e-2
    ndc = np.stack([p[:, 0], -p[:, 1]], axis=1) / -p[:, 2:] / np.tan(np.radians(fov) / 2)
    expected = (ndc / 2 + 0.5) * 512
    seen = k.project(pose(points))
    assert np.allclose(seen[front], expected[front], rtol=1e-9, atol=1e-6)


@given(
    strategies.poses(2),
    strategies.floats(0.2, 5),
    strategies.floats(-3, 3),
    strategies.points(3, 0.2),
)
def test_moving_into_the_frame_commutes_with_projection(
    w2c: Any, scale: float, angle: float, points: Any
) -> None:
    from dataclasses import replace

    t = w2c.t.copy()
    t[:, 2] = np.abs(t[:, 2]) + 1
    w2c = replace(w2c, t=t)
    k = Intrinsics(700.0, 700.0, 128.0, 128.0, Size(256, 256))
    maps = [Similarity(scale * np.exp(1j * angle), complex(200, 100))] * 2
    moved, k_frame = cameras.in_frames(w2c, k, maps, Size(640, 360))
    for i in range(2):
        expected = maps[i](k.project(w2c[i](points)))
        assert np.allclose(k_frame[i].project(moved[i](points)), expected, rtol=1e-9, atol=1e-6)


@given(
    strategies.points(2, 100).filter(lambda p: len(p) >= 1),
    strategies.floats(0.2, 5),
    strategies.floats(-3, 3),
    st.sampled_from(["before 3.4", "3.4", "3.5 and later"]),
)
def test_the_square_turns_with_the_landmarks(
    shift: Any, scale: float, angle: float, release: Any
) -> None:
    """The closed form is equivariant, but for its half pixel; its first axis joins the eyes."""
    landmarks = np.random.default_rng(1).normal(size=(68, 2)) * 5
    landmarks[36:42] += [-30, 0]
    landmarks[42:48] += [30, 0]
    landmarks[48:68] += [0, 60]
    move = Similarity(scale * np.exp(1j * angle), complex(*shift[0]))
    square = alignment.square_of(landmarks, 512, release)
    moved = alignment.square_of(move(landmarks), 512, release)
    half = complex(0.5, 0.5)
    assert np.isclose(moved.a, move.a * square.a)
    assert np.isclose(moved.o - half, move.a * (square.o - half) + move.o)


def test_the_square_is_that_of_the_tracker_on_numbers_worked_by_hand() -> None:
    landmarks = np.zeros((68, 2))
    landmarks[36:42], landmarks[42:48] = [100, 100], [160, 100]
    landmarks[48], landmarks[54] = [110, 160], [150, 160]
    landmarks[0], landmarks[16] = [70, 120], [190, 120]
    # across = (60, 0), down = (0, 60): x = (60, 0) - (-60, 0) = (120, 0), normalised, times
    # max(120, 108) and the factor.
    for release, factor, middle in (
        ("before 3.4", 1.2, (130, 106)),
        ("3.4", 1.3, (130, 116)),
        ("3.5 and later", 1.3, (130, 106)),
    ):
        square = alignment.square_of(landmarks, 512, release)  # type: ignore[arg-type]
        half = 120 * factor
        corners = square(np.array([[0.0, 0.0], [512.0, 512.0]]))
        assert np.allclose(corners[0], np.array(middle) - half + 0.5)
        assert np.allclose(corners[1], np.array(middle) + half + 0.5)


@pytest.mark.parametrize("release", ["before 3.4", "3.4", "3.5 and later"])
def test_the_release_is_named_by_its_squares(release: Any) -> None:
    rng = np.random.default_rng(3)
    landmarks = []
    for shift in range(4):
        points = rng.normal(size=(68, 2)) * 2 + [300 + shift, 200]
        points[36:42] += [-30, 0]
        points[42:48] += [30, 0]
        points[48:68] += [0, 60]
        points[:17] += [0, 40]
        landmarks.append(points)
    squares = [alignment.square_of(p, 256, release) for p in landmarks]
    again = [p + rng.normal(size=p.shape) * 0.3 for p in landmarks]
    (finding,) = alignment.name_formula(squares, again, 256)
    assert release in finding.message
    assert alignment.name_formula(squares, [p * 1.5 for p in landmarks], 256) == []


def test_registration_finds_a_drawn_cut_within_hundredths_of_a_pixel(
    make_results: MakeResults,
) -> None:
    truth = make_results()
    assert truth.maps is not None
    cut = read(truth.results).crop_frames
    assert cut is not None
    frame = cv2.imread(str(truth.source / "00000.png"))
    found = register(grey_of(cut.read(0)), grey_of(frame))
    assert found is not None
    corners = np.array([[0, 0], [256, 0], [0, 256], [256, 256.0]])
    true = corners @ truth.maps[0][:, :2].T + truth.maps[0][:, 2]
    assert np.abs(found.similarity(corners) - true).max() < 0.05
    assert found.correlation > 0.999
    blank = np.zeros((256, 256), np.float32)
    assert register(blank, grey_of(frame)) is None


# --- what is refused ------------------------------------------------------------------------------


def _with(truth: ResultTruth, folder: Path, **changes: Any) -> Path:
    """A copy of the first result with other arrays; None leaves one out."""
    with np.load(truth.results / "0.npz") as stored:
        content = {**dict(stored), **changes}
    folder.mkdir()
    kept = {k: v for k, v in content.items() if v is not None}
    (folder / "0.npz").write_bytes(npz_bytes(kept))
    return folder


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"cam": None}, FormatError, "expected cam, shape and exp"),
        ({"cam": np.zeros((1, 5), np.float32)}, FormatError, "cam: expected 6 numbers"),
        ({"cam": np.full((1, 6), np.nan, np.float32)}, ConventionError, "cam: expected finite"),
        ({"head_pose": np.full((1, 3), 0.1, np.float32)}, ConventionError, "head_pose: expected z"),
        ({"fov": np.array([25.0], np.float32)}, ConventionError, "K: expected f 577"),
        ({"fov": np.array([0.0], np.float32)}, ConventionError, "1 to 120 degrees"),
        ({"shape": np.zeros((1, 400), np.float32)}, FormatError, "up to 300 numbers"),
        ({"img": None, "img_aligned": None}, FormatError, "the image that was fitted"),
        ({"img": np.zeros((1, 8, 8), np.float32)}, FormatError, "1xHxWx3 uint8"),
        ({"lmks_68": np.zeros((1, 5, 2), np.float32)}, FormatError, "lmks_68: expected 68x2"),
    ],
)
def test_wrong_numbers_are_refused_by_name(
    make_results: MakeResults, tmp_path: Path, changes: dict[str, Any], error: Any, message: str
) -> None:
    folder = _with(make_results(), tmp_path / "x", **changes)
    with pytest.raises(error, match=message):
        read(folder)


def test_a_pickle_that_asks_for_code_is_refused_unopened(tmp_path: Path) -> None:
    marker = tmp_path / "ran"

    class Evil:
        def __reduce__(self) -> tuple[Any, ...]:
            return os.mkdir, (str(marker),)

    (tmp_path / "0.npy").write_bytes(pickle.dumps({"cam": Evil()}, protocol=4))
    with pytest.raises(UnsafeFileError, match="mkdir"):
        read(tmp_path)
    with pytest.raises(UnsafeFileError, match="mkdir"):
        read(tmp_path, skip_damaged=True)
    assert not marker.exists()


@pytest.mark.parametrize("protocol", [2, 3, 4])
def test_pickles_of_every_protocol_are_read(tmp_path: Path, protocol: int) -> None:
    content = {"cam": np.arange(6, dtype=np.float32), "img": np.zeros((1, 4, 5, 3), np.uint8)}
    path = tmp_path / "0.npy"
    path.write_bytes(pickle.dumps(content, protocol=protocol))
    found: Any = read_pickled(path)
    assert all(
        np.array_equal(found[k], v) and found[k].dtype == v.dtype for k, v in content.items()
    )
    path.write_bytes(path.read_bytes() + b"x")
    with pytest.raises(FormatError, match="one pickle stream"):
        read_pickled(path)
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(UncropError):
        read_pickled(path)


def test_damaged_frames_can_be_left_out(make_results: MakeResults, tmp_path: Path) -> None:
    truth = make_results()
    for path in truth.results.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    (tmp_path / "3.npz").write_bytes(b"PK\x03\x04 broken")
    with pytest.raises(FormatError, match=r"3\.npz"):
        read(tmp_path)
    track = read(tmp_path, skip_damaged=True)
    assert track.frame_ids.tolist() == [0, 1, 4, 5]
    assert any(f.check == "frames-damaged" for f in track.findings)


def test_what_looks_like_results(make_results: MakeResults, tmp_path: Path) -> None:
    truth = make_results()
    assert looks_like_results(truth.results)
    assert looks_like_results(truth.results / "0.npz")
    assert looks_like_results(truth.results.parent)
    assert looks_like_results(make_results(release="3.2").results)
    np.save(tmp_path / "00001.npy", np.zeros((68, 2)))  # metrical-tracker's kpt/
    assert not looks_like_results(tmp_path)
    np.savez(tmp_path / "00002.npz", rotation=np.zeros(3))  # GaussianAvatars' flame_param/
    (tmp_path / "00001.npy").unlink()
    assert not looks_like_results(tmp_path)
    assert not looks_like_results(tmp_path / "nothing")


@pytest.mark.parametrize("option", ["actor", "bbox", "begin_frames"])
def test_options_of_another_tracker_are_refused(make_results: MakeResults, option: str) -> None:
    value: Any = 1 if option == "begin_frames" else Path("x")
    with pytest.raises(FormatError, match="a metrical-tracker track to use it with"):
        read(make_results().results, **{option: value})


def test_the_same_results_give_the_same_dataset(make_results: MakeResults, tmp_path: Path) -> None:
    truth = make_results()
    track = read(truth.results, source=truth.source)
    target = registry.target("metrical_tracker")
    options = target.options()
    for name in ("a", "b"):
        target.write(track, tmp_path / name, options, overwrite=False, progress=no_progress)
    for path in (tmp_path / "a").rglob("*"):
        if path.is_file():
            assert (
                path.read_bytes()
                == (tmp_path / "b" / path.relative_to(tmp_path / "a")).read_bytes()
            )


def test_the_shipped_samples_are_what_their_script_makes(
    fixtures_dir: Path, tmp_path: Path
) -> None:
    from fixtures.make_flame_head_tracker import SAMPLES, make

    make(tmp_path)
    for name in SAMPLES:
        for path in sorted((fixtures_dir / "flame_head_tracker" / name).iterdir()):
            made: Any = read_arrays(tmp_path / name / path.name, _KEYS, DEFAULT_LIMITS)
            stored: Any = read_arrays(path, _KEYS, DEFAULT_LIMITS)
            assert set(made) == set(stored) == set(_KEYS)
            for key in made:  # renderers differ by rounding between processors
                assert np.allclose(made[key], stored[key], atol=2), (name, key)
        track = read(fixtures_dir / "flame_head_tracker" / name)
        assert track.frame_ids.tolist() == [0, 1]


_KEYS = ("shape", "exp", "cam", "eye_pose", "lmks_68", "img", "img_aligned")
