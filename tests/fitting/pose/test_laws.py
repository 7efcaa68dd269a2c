"""What a rigid fit has to be, whatever the head and the camera."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from converter.errors import ConventionError, FitError
from converter.geometry import Pose
from converter.geometry.pixels import Floats, Size
from fitting import RigidFit, fit_rigid
from fitting.pose import IBUG_68, CameraSmoothing, Ears, Group, HeadSmoothing
from fitting.pose.problem import build_problem
from fitting.pose.start import robust_posit
from fitting.pose.state import State
from fitting.pose.terms import view
from tests.fitting.pose.scenes import Scene, head_points, scene
from tests.strategies import floats

WIDE = (5.0, 90.0)


def fit(s: Scene, landmarks: Floats | None = None, **options: object) -> RigidFit:
    marks = s.landmarks if landmarks is None else landmarks
    return fit_rigid(s.points, marks, s.intrinsics, groups=IBUG_68, **options)  # type: ignore[arg-type]


def assert_same_cameras(found: Pose, expected: Pose, tolerance: float = 1e-6) -> None:
    np.testing.assert_allclose(found.R, expected.R, atol=tolerance)
    np.testing.assert_allclose(found.t, expected.t, rtol=0, atol=tolerance * 3)


# ------------------------------------------------------------------ the truth is found
@given(
    st.lists(floats(-80, 80), min_size=1, max_size=3),
    floats(8, 50),
    floats(-30, 30),
    floats(-60, 60),
    st.sampled_from([Size(256, 256), Size(1920, 1080), Size(480, 640)]),
    floats(-60, 60),
)
def test_the_truth_without_noise(
    yaw: list[float], fov: float, pitch: float, roll: float, size: Size, shift: float
) -> None:
    s = scene(yaw, fov, pitch, roll, size=size, shift_px=(shift, -shift / 2))
    found = fit(s)
    assert_same_cameras(found.w2c, s.w2c)
    assert found.objective < 0.01
    assert set(found.stop_reasons) == {"converged"}
    np.testing.assert_allclose(found.rmse_px, 0, atol=1e-5)
    np.testing.assert_allclose(found.fov_deg, fov, rtol=1e-12)


@settings(max_examples=15)
@given(floats(8, 50), floats(0.7, 1.4), st.booleans())
def test_one_focal_length_for_all(fov: float, wrong: float, prior: bool) -> None:
    s = scene(np.linspace(-70, 70, 6), fov, 10.0, -15.0)
    K = replace(s.intrinsics, fx=s.intrinsics.fx * wrong, fy=s.intrinsics.fy * wrong)
    off = replace(s, intrinsics=K)
    found = fit(off, fov="shared", fov_limits_deg=WIDE, focal_prior=0.07 if prior else None)
    assert found.intrinsics.fx == pytest.approx(s.intrinsics.fx, rel=1e-6)
    np.testing.assert_allclose(found.fov_deg, fov, rtol=1e-6)
    assert_same_cameras(found.w2c, s.w2c)


@pytest.mark.parametrize("start", [32.0, 45.0])
def test_a_focal_length_per_frame(start: float) -> None:
    fov = np.array([35.0, 40.0, 45.0, 49.0])
    s = scene([-40.0, -10.0, 20.0, 50.0], fov)
    f = 128 / np.tan(np.radians(start) / 2)
    off = replace(s, intrinsics=replace(s.intrinsics, fx=np.full(4, f), fy=np.full(4, f)))
    found = fit(off, fov="free", focal_prior=None)
    np.testing.assert_allclose(found.fov_deg, fov, rtol=1e-6)
    np.testing.assert_allclose(found.intrinsics.fx, s.intrinsics.fx, rtol=1e-6)
    assert_same_cameras(found.w2c, s.w2c, 2e-6)


def test_heads_that_change_from_frame_to_frame() -> None:
    rng = np.random.default_rng(0)
    points = head_points() + rng.normal(0, 0.003, (5, 68, 3))
    s = scene(np.linspace(-60, 60, 5), points=head_points())
    landmarks = s.intrinsics.project(s.w2c(points))
    found = fit_rigid(points, landmarks, s.intrinsics, groups=IBUG_68)
    assert_same_cameras(found.w2c, s.w2c)


@pytest.mark.parametrize("robust", ["norm", "squares", "redescending", 2.0])
def test_every_loss_finds_it(robust: str | float) -> None:
    s = scene([-50.0, 0.0, 35.0])
    assert_same_cameras(fit(s, robust=robust).w2c, s.w2c)


def test_unequal_focal_lengths() -> None:
    s = scene([-30.0, 40.0])
    K = replace(s.intrinsics, fy=s.intrinsics.fy * 1.2)
    found = fit_rigid(s.points, K.project(s.w2c(s.points)), K, groups=IBUG_68)
    assert_same_cameras(found.w2c, s.w2c)


def test_a_start_is_taken_and_need_not_be_good() -> None:
    s = scene([-30.0, 40.0])
    assert_same_cameras(fit(s, start=s.w2c).w2c, s.w2c)
    far = Pose(s.w2c.R[::-1].copy(), s.w2c.t * 1.5)
    assert_same_cameras(fit(s, start=far).w2c, s.w2c)
    for nothing in (np.nan, -1.0):
        unknown = Pose(s.w2c.R, np.where([[True], [False]], s.w2c.t, nothing))
        assert_same_cameras(fit(s, start=unknown).w2c, s.w2c)


@pytest.mark.parametrize("side", [-1, 1])
def test_ears_help_and_the_wrong_side_does_not_take_part(side: int) -> None:
    rng = np.random.default_rng(0)
    left = rng.normal([0.07, 0.0, -0.02], 0.01, (20, 3))
    right = left * [-1, 1, 1]
    s = scene([40.0 * side] * 30)
    seen = right if side > 0 else left
    marks = s.intrinsics.project(s.w2c(seen))
    ears = Ears(left, right, marks)
    noisy = s.noisy(1.5)
    plain, helped = fit(s, noisy), fit(s, noisy, ears=ears)
    assert s.rotation_error_deg(helped.w2c).mean() < 0.75 * s.rotation_error_deg(plain.w2c).mean()
    swapped = fit(s, noisy, ears=Ears(right, left, marks))
    np.testing.assert_allclose(swapped.w2c.R, plain.w2c.R, atol=1e-6)
    assert swapped.terms["ears"] == 0


# ------------------------------------------------------------------ frames on their own
def test_order_and_number_of_frames_do_not_matter() -> None:
    s = scene(np.linspace(-70, 70, 9))
    landmarks = s.noisy(1.0)
    whole = fit(s, landmarks)
    order = np.random.default_rng(0).permutation(9)
    shuffled = fit(s, landmarks[order])
    np.testing.assert_allclose(shuffled.w2c.R, whole.w2c.R[order], atol=1e-10)
    for i in (0, 4, 8):
        alone = fit(s, landmarks[i : i + 1])
        np.testing.assert_allclose(alone.w2c.R[0], whole.w2c.R[i], atol=1e-10)
        np.testing.assert_allclose(alone.w2c.t[0], whole.w2c.t[i], atol=1e-9)


def test_more_frames_than_go_through_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    s = scene(np.linspace(-70, 70, 23))
    landmarks = s.noisy(1.0)
    landmarks[7] = np.nan
    options = {"fov": "shared", "smoothing": HeadSmoothing()}
    whole = [fit(s, landmarks), fit(s, landmarks, **options)]
    monkeypatch.setattr("fitting.pose.lm._POINTS_AT_ONCE", 300)
    split = [fit(s, landmarks), fit(s, landmarks, **options)]
    for a, b in zip(whole, split, strict=True):
        np.testing.assert_allclose(a.w2c.R, b.w2c.R, atol=1e-9)
        np.testing.assert_allclose(a.rmse_px, b.rmse_px, rtol=1e-9)
        assert a.objective == pytest.approx(b.objective)


# ------------------------------------------------------------------ missing and wrong landmarks
@pytest.mark.parametrize("missing", [np.nan, 0.0])
@pytest.mark.parametrize("solver", ["lm", "adam"])
def test_missing_landmarks_are_masked(missing: float, solver: str) -> None:
    s = scene([-30.0, 0.0, 40.0])
    landmarks = s.noisy(1.0)
    landmarks[0, 3:30] = missing
    landmarks[1] = missing
    found = fit(s, landmarks, solver=solver)
    assert found.fitted.tolist() == [True, False, True]
    assert found.stop_reasons[1] == "no landmarks"
    assert np.isnan(found.w2c.R[1]).all()
    assert np.isnan(found.w2c.t[1]).all()
    assert np.isnan(found.rmse_px[1])
    assert np.isnan(found.std.depth[1])
    masked = fit(s, s.noisy(1.0), weights=np.where(np.isin(np.arange(68), range(3, 30)), 0, 1.0),
                 solver=solver)  # fmt: skip
    np.testing.assert_allclose(found.w2c.R[0], masked.w2c.R[0], atol=1e-9)
    alone = fit(s, landmarks[2:], solver=solver)
    np.testing.assert_allclose(found.w2c.R[2], alone.w2c.R[0], atol=1e-9)
    assert found.objective == pytest.approx(
        fit(s, landmarks[:1], solver=solver).objective + alone.objective
    )


def test_terms_are_means_over_what_is_seen() -> None:
    s = scene([15.0, -20.0])
    landmarks = s.noisy(2.0)
    landmarks[0, :9] = np.nan
    found = fit(s, landmarks)
    there = found.intrinsics.project(found.w2c(s.points))
    ndc = np.linalg.norm(there - landmarks, axis=-1) / 128
    assert found.terms["face"] == pytest.approx(300 * ndc[:, 17:].mean(axis=1).sum())
    assert found.terms["jaw"] == pytest.approx(200 * np.nanmean(ndc[:, :17], axis=1).sum())
    px = np.sqrt(np.nanmean((ndc * 128) ** 2, axis=1))
    np.testing.assert_allclose(found.rmse_px, px, rtol=1e-9)


def test_points_behind_the_camera_end_a_step_unless_they_are_masked() -> None:
    s = scene([0.0, 0.0])
    centre = s.points.mean(axis=0)
    inside = np.array([0.0, 0.0, 0.02])  # where the head's centre is: the camera is in the head
    near = Pose(s.w2c.R, inside - s.w2c.R @ centre)
    landmarks = s.landmarks.copy()
    landmarks[1, near(s.points)[1, :, 2] < 0.01] = np.nan
    problem = build_problem(s.points, landmarks, s.intrinsics)
    seen = view(problem, State.of(near, problem.centre, np.zeros(2)))
    assert seen.in_front.tolist() == [False, True]
    assert np.isfinite(seen.dx).all()


def test_the_start_is_near_without_noise() -> None:
    s = scene(np.linspace(-80, 80, 9), 40.0, 10.0)
    start = robust_posit(build_problem(s.points, s.landmarks, s.intrinsics))
    assert s.rotation_error_deg(Pose(start.R, s.w2c.t)).max() < 0.1


def test_adam_survives_exact_hits() -> None:
    """A landmark that the start hits exactly has distance 0, where the original turns into NaN."""
    corners = np.array([[x, y, z] for x in (-1, 1) for y in (-1, 1) for z in (-1, 1)]) / 16
    points = np.concatenate([corners, np.zeros((1, 3))])
    s = scene([0.0], points=points, offset=(0.0, 0.0))
    start = Pose(s.w2c.R, np.array([[0.0, 0.0, 1.0]]))
    landmarks = s.landmarks.copy()
    landmarks[0, -1] = [128.0, 128.0]
    problem = build_problem(points, landmarks, s.intrinsics)
    assert view(problem, State.of(start, problem.centre, np.zeros(1))).distance[0, -1] == 0
    found = fit_rigid(points, landmarks, s.intrinsics, solver="adam", start=start)
    assert s.rotation_error_deg(found.w2c).max() < 3
    assert found.rmse_px[0] < 3


def test_noise_counts_what_the_pose_took_up() -> None:
    """Eight landmarks: 6 of 16 numbers go into the pose."""
    s = scene(np.linspace(-40, 40, 300), points=head_points()[[8, 0, 16, 30, 36, 45, 48, 54]])
    found = fit_rigid(s.points, s.noisy(1.0), s.intrinsics, robust="squares")
    assert found.std.noise_px == pytest.approx(1.0, rel=0.06)


def outliers(kind: str, landmarks: Floats, rng: np.random.Generator) -> Floats:
    """30 % of each frame's landmarks are wrong."""
    out = landmarks.copy()
    for frame in out:
        bad = rng.permutation(68)[:20]
        if kind == "anywhere":
            frame[bad] = rng.uniform(0, 256, (20, 2))
        elif kind == "near":
            frame[bad] += rng.normal(0, 40, (20, 2))
        else:
            frame[bad] += [30.0, 0.0]
    return out


@pytest.mark.parametrize("kind", ["anywhere", "near", "all one way"])
def test_thirty_percent_outliers(kind: str) -> None:
    rng = np.random.default_rng(0)
    s = scene(rng.uniform(-60, 60, 60))
    clean = outliers(kind, s.landmarks, rng)
    noisy = outliers(kind, s.noisy(0.4), rng)
    if kind != "all one way":  # coherent ones can outweigh the rest in a norm
        assert s.rotation_error_deg(fit(s, clean, robust="norm").w2c).max() < 0.01
        norm = s.rotation_error_deg(fit(s, noisy, robust="norm").w2c)
        assert np.sqrt((norm**2).mean()) < 0.7
    for robust in ("redescending", "auto"):
        assert s.rotation_error_deg(fit(s, clean, robust=robust).w2c).max() < 0.01
        errors = s.rotation_error_deg(fit(s, noisy, robust=robust).w2c)
        assert errors.max() < 1.0
    np.testing.assert_array_equal(fit(s, noisy).w2c.R, fit(s, noisy, robust="auto").w2c.R)
    without = fit(s, s.noisy(0.4))  # and where there are none, auto is the norm
    np.testing.assert_array_equal(without.w2c.R, fit(s, s.noisy(0.4), robust="norm").w2c.R)
    squares = s.rotation_error_deg(fit(s, noisy, robust="squares").w2c)
    assert squares.max() > 5  # what a plain fit makes of it


# ------------------------------------------------------------------ uncertainty
@pytest.mark.parametrize(
    ("fov", "robust"),
    [("fixed", "norm"), ("fixed", "squares"), ("shared", "squares"), ("free", "squares")],
)
def test_stated_uncertainty_is_the_scatter(fov: str, robust: str) -> None:
    """600 noisy copies of one frame (or 60 sequences of 10)."""
    yaw = np.tile([25.0], 600) if fov != "shared" else np.linspace(-40, 40, 10)
    s = scene(yaw, 40.0)
    options = {"fov": fov, "robust": robust, "focal_prior": None, "fov_limits_deg": WIDE}
    runs = [fit(s, s.noisy(1.0, seed), **options) for seed in range(60 if fov == "shared" else 1)]
    rotation = np.sqrt(np.mean([s.rotation_error_deg(r.w2c) ** 2 for r in runs]))
    depth = np.std([r.w2c(s.points.mean(axis=0)[None])[:, 0, 2] for r in runs])
    depth /= s.w2c(s.points.mean(axis=0)[None])[:, 0, 2].mean()
    std = runs[0].std
    assert std.noise_px == pytest.approx(1.0, rel=0.1)
    assert np.mean(std.rotation_deg) == pytest.approx(rotation, rel=0.15)
    assert np.mean(std.depth) == pytest.approx(depth, rel=0.2)
    if fov == "fixed":
        assert np.all(std.focal == 0)
    else:
        focal = np.std([np.log(r.intrinsics.fx) for r in runs])
        assert np.mean(std.focal) == pytest.approx(focal, rel=0.2)


@pytest.mark.parametrize("head", ["one point", "a line", "a plane"])
@pytest.mark.parametrize("fov", ["fixed", "shared"])
def test_heads_that_tell_too_little_end_with_huge_uncertainty(head: str, fov: str) -> None:
    s = scene([10.0, -20.0])
    keep = {"one point": 0, "a line": 1, "a plane": 2}[head]
    points = s.points * (np.arange(3) < keep) + [0.01, 0.02, 0.03]
    landmarks = s.intrinsics.project(s.w2c(points))
    noisy = landmarks + np.random.default_rng(0).normal(0, 1, landmarks.shape)
    for robust in ("norm", "squares", "redescending"):
        found = fit_rigid(points, noisy, s.intrinsics, groups=IBUG_68, fov=fov, robust=robust)  # type: ignore[arg-type]
        assert np.isfinite(found.w2c.R).all()
        assert np.median(found.rmse_px) < 4
        if head != "a plane":
            assert np.all(found.std.rotation_deg > 90)


def test_a_prior_holds_the_focal_length_as_far_as_it_says() -> None:
    s = scene(np.linspace(-40, 40, 8), 20.0)
    K = replace(s.intrinsics, fx=s.intrinsics.fx * 1.2, fy=s.intrinsics.fy * 1.2)
    noisy, off = s.noisy(1.0), replace(s, intrinsics=K)
    focal = {
        sigma: fit(off, noisy, fov="shared", focal_prior=sigma) for sigma in (0.001, 0.07, None)
    }
    assert focal[0.001].intrinsics.fx == pytest.approx(K.fx, rel=0.01)
    assert abs(focal[None].intrinsics.fx / s.intrinsics.fx - 1) < 3 * focal[None].std.focal[0]
    between = focal[0.07].intrinsics.fx
    low, high = sorted((focal[0.001].intrinsics.fx, focal[None].intrinsics.fx))
    assert low < between < high
    # The posterior mean of two Gaussians, data and prior.
    data = focal[None].std.focal[0]
    share = data**2 / (data**2 + 0.07**2)
    expected = (1 - share) * np.log(focal[None].intrinsics.fx) + share * np.log(K.fx)
    assert np.log(between) == pytest.approx(expected, abs=0.03)
    assert focal[0.07].std.focal[0] < min(data, 0.07)


# ------------------------------------------------------------------ refusals
def test_a_free_focal_length_is_refused_below_30_degrees() -> None:
    s = scene([0.0, 30.0], 20.0)
    with pytest.raises(FitError, match=r"20\.0 degrees in K.*depth look the same"):
        fit(s, fov="free")
    assert fit(s, fov="free", allow_ill_posed=True).fitted.all()
    wide = replace(s.intrinsics, fx=s.intrinsics.fx / 2, fy=s.intrinsics.fy / 2)
    with pytest.raises(FitError, match=r"20\.\d degrees in the fit"):
        fit(replace(s, intrinsics=wide), fov="free", focal_prior=None)


BAD = [
    ({"landmarks": np.zeros((68, 2))}, r"landmarks: expected shape \(N, P, 2\)"),
    ({"landmarks": np.zeros((0, 68, 2))}, "landmarks"),
    ({"points": np.zeros((67, 3))}, "points"),
    ({"points": np.full((68, 3), np.nan)}, "finite metres"),
    ({"points": np.full((68, 3), 1e200)}, "finite metres"),
    ({"landmarks": np.full((2, 68, 2), 1e200)}, "landmarks"),
    ({"landmarks": np.full((2, 68, 2), -np.inf)}, "landmarks"),
    ({"weights": np.ones(67)}, "weights"),
    ({"weights": -np.ones(68)}, "weights"),
    ({"groups": (Group("a", (0, 68), 1.0),)}, "groups"),
    ({"groups": (Group("a", (0, 1), 1.0), Group("b", (1, 2), 1.0))}, "groups"),
    ({"groups": (Group("a", (0, 1), np.nan),)}, "groups"),
    ({"fov": "any"}, "fov"),
    ({"robust": "huber"}, "robust"),
    ({"robust": 0.0}, "robust"),
    ({"focal_prior": 0.0}, "focal_prior"),
    ({"fov_limits_deg": (50.0, 10.0)}, "fov_limits_deg"),
    ({"start": Pose(np.eye(3)[None], np.ones((1, 3)))}, "start"),
    ({"smoothing": HeadSmoothing(frame_ids=np.array([1, 1]))}, "frame ids"),
    ({"smoothing": HeadSmoothing(), "solver": "adam"}, "CameraSmoothing with adam"),
    ({"robust": "squares", "solver": "adam"}, "norm with adam"),
    ({"ears": Ears(np.zeros((3, 3)), np.zeros((3, 3)), np.zeros((1, 3, 2)))}, "ears"),
    ({"ears": Ears(np.zeros((3, 3)), np.zeros((3, 3)), np.ones((2, 3, 2)), 0.0)}, "ears"),
]


@pytest.mark.parametrize(("changes", "message"), BAD)
def test_bad_input_is_named(changes: dict[str, object], message: str) -> None:
    s = scene([0.0, 20.0])
    options = {"points": s.points, "landmarks": s.landmarks, "groups": IBUG_68, **changes}
    with pytest.raises(ConventionError, match=message):
        fit_rigid(intrinsics=s.intrinsics, **options)  # type: ignore[arg-type]


def test_intrinsics_of_another_length() -> None:
    s = scene([0.0, 20.0], np.array([20.0, 20.0]))
    with pytest.raises(ConventionError, match="intrinsics"):
        fit_rigid(s.points, s.landmarks[:1], s.intrinsics, groups=IBUG_68)


def test_nothing_to_fit() -> None:
    s = scene([0.0])
    few = s.landmarks.copy()
    few[:, 3:] = np.nan
    with pytest.raises(FitError, match="4 landmarks or more"):
        fit(s, few)


def test_smoothing_by_camera_needs_neighbours_only() -> None:
    s = scene([0.0, 20.0])
    ids = np.array([1, 3])
    apart = fit(s, s.noisy(1.0), smoothing=CameraSmoothing(frame_ids=ids))
    np.testing.assert_array_equal(apart.w2c.R, fit(s, s.noisy(1.0)).w2c.R)
    assert "smoothing" not in apart.terms
