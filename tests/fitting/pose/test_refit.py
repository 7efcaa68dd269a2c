"""A track's cameras fitted again: damaged ones are mended, good ones stay, jitter goes."""

from __future__ import annotations

from dataclasses import replace

import cv2
import numpy as np
import pytest

from converter.errors import ConventionError, FitError, MissingInputError
from converter.geometry import Intrinsics, Pose
from converter.geometry.pixels import Floats
from converter.track import Track
from fitting.pose.correspondences import correspondences
from fitting.pose.embedding import Embedding, find_embedding
from fitting.pose.intrinsics import settle_intrinsics
from fitting.pose.jitter import measure_jitter
from fitting.pose.picture import fit_picture
from fitting.pose.refit import refit_track, require_residual
from fixtures.synthetic.head import head
from tests.fitting.pose.tracks import CROP, Heads, errors_deg, jittered, make, rms, turns_deg

N = 120
TIME = np.arange(N)
SWING = 30 * np.sin(TIME / 6)


def own_embedding() -> Embedding:
    """The procedural head's landmarks, as vertices."""
    corners = np.repeat(head().landmarks[:, None], 3, axis=1)
    weights = np.tile([1.0, 0.0, 0.0], (68, 1))
    return Embedding(np.arange(68, dtype=np.int64), corners, weights)


def with_K(track: Track, fx: float = 1.0, dx: float = 0.0, dy: float = 0.0) -> Track:
    k = track.intrinsics
    K = Intrinsics(k.fx * fx, k.fy * fx, k.cx + dx, k.cy + dy, k.size)
    return replace(track, intrinsics=K)


# ------------------------------------------------------------------ where the landmarks are
def test_landmarks_are_found_on_the_meshes() -> None:
    track, _ = make(SWING, talking=True)
    found = find_embedding(track)
    assert found.residual_px < 0.05
    assert track.meshes is not None
    for frame in (0, 17, 60):
        vertices = track.meshes.vertices(frame).astype(np.float64)
        points = found.embedding.points(vertices)
        off = np.linalg.norm(points - vertices[head().landmarks], axis=1)
        assert np.median(off) < 1e-4
        assert np.percentile(off, 90) < 1.5e-3


def test_noise_moves_them_little() -> None:
    track, _ = make(SWING, noise_px=1.0)
    found = find_embedding(track)
    assert found.residual_px == pytest.approx(np.sqrt(2 * np.log(2)), rel=0.15)  # Rayleigh
    off = found.embedding.points(head().vertices) - head().vertices[head().landmarks]
    assert np.median(np.linalg.norm(off, axis=1)) < 1.5e-3


def test_the_front_of_a_still_head_is_preferred_to_its_back() -> None:
    """Landmarks in line with vertices of the back of the head, which no detector sees."""
    track, _ = make(np.zeros(20))
    vertices = head().vertices
    back = np.flatnonzero(
        (vertices[:, 2] < -0.05) & (np.abs(vertices[:, 0]) < 0.05) & (np.abs(vertices[:, 1]) < 0.06)
    )
    behind = vertices[np.random.default_rng(0).permutation(back)[:68]]
    seen = track.intrinsics.project(track.w2c(np.broadcast_to(behind, (20, 68, 3))))
    noise = np.random.default_rng(1).normal(0, 0.5, seen.shape)
    points = find_embedding(replace(track, landmarks=seen + noise)).embedding.points(vertices)
    assert (points[:, 2] > 0).mean() > 0.9


def test_nothing_to_find_them_by() -> None:
    track, _ = make([0.0, 1.0])
    for lacking in ("meshes", "landmarks"):
        with pytest.raises(MissingInputError, match=f"expected {lacking}"):
            find_embedding(replace(track, **{lacking: None}))  # type: ignore[arg-type]
    lost = replace(track, landmarks=np.full((2, 68, 2), np.nan))
    with pytest.raises(MissingInputError, match="in 0"):
        find_embedding(lost)


def test_an_embedding_of_other_meshes_is_refused() -> None:
    track, _ = make([0.0, 1.0])
    own = own_embedding()
    with pytest.raises(ConventionError, match="another topology"):
        correspondences(track, "kpt", replace(own, corners=own.corners + 10**6))
    beyond = replace(own, landmarks=own.landmarks + 1)
    with pytest.raises(ConventionError, match="other detector"):
        correspondences(track, "kpt", beyond)


def test_a_part_of_the_landmarks_keeps_its_groups() -> None:
    track, _ = make([0.0, 10.0])
    own = own_embedding()
    face = Embedding(own.landmarks[10:], own.corners[10:], own.weights[10:])
    pairs = correspondences(track, "kpt", face)
    assert pairs.groups is not None
    assert [(g.name, len(g.indices)) for g in pairs.groups] == [("face", 51), ("jaw", 7)]
    assert pairs.groups[1].indices == tuple(range(7))


# ------------------------------------------------------------------ K
def naive(track: Track) -> Track:
    """The formula in circulation: bbox added to the principal point, no rescaling."""
    return with_K(track, dx=CROP.bbox.x_min, dy=CROP.bbox.y_min)


def in_source_unsaid(track: Track) -> Track:
    return replace(track, intrinsics=replace(track.in_source().intrinsics, size=CROP.output))


@pytest.mark.parametrize("noise", [0.0, 1.5])
@pytest.mark.parametrize("damage", [naive, in_source_unsaid])
def test_a_rewritten_K_is_repaired_from_landmarks_alone(damage, noise: float) -> None:  # type: ignore[no-untyped-def]
    track, _ = make(SWING[:60], noise_px=noise)
    settled = settle_intrinsics(damage(track))
    np.testing.assert_allclose(settled.track.intrinsics.matrix, track.intrinsics.matrix, rtol=1e-12)
    assert [f.check for f in settled.findings] == ["K-rewritten"]
    fit = refit_track(damage(track))
    np.testing.assert_allclose(fit.track.intrinsics.matrix, track.intrinsics.matrix, rtol=1e-12)
    assert rms(errors_deg(fit.track.w2c, track.w2c)) < 0.02 + 0.6 * noise


@pytest.mark.parametrize("seed", range(6))
def test_what_has_a_name_is_exact_even_where_an_estimate_is_nearer(seed: int) -> None:
    track, _ = make(SWING[:8], noise_px=1.5, seed=seed)
    settled = settle_intrinsics(naive(track), embedding=own_embedding())
    found = settled.track.intrinsics.matrix
    np.testing.assert_allclose(found, track.intrinsics.matrix, rtol=1e-12)


def test_a_right_K_is_left_alone() -> None:
    track, _ = make(SWING, noise_px=1.5)
    settled = settle_intrinsics(track)
    assert settled.track.intrinsics == track.intrinsics
    assert settled.findings == ()
    source = settle_intrinsics(track.in_source())
    np.testing.assert_allclose(source.track.intrinsics.matrix, track.intrinsics.matrix, rtol=1e-12)
    assert source.findings == ()


@pytest.mark.parametrize("damage", [(0.8, 0, 0), (1.0, 60, -50), (1.15, 80, 60)])
def test_an_unknown_rewrite_is_estimated_with_an_embedding_and_refused_without(
    damage: tuple[float, float, float],
) -> None:
    track, _ = make(SWING, noise_px=1.0)
    wrong = with_K(track, *damage)
    settled = settle_intrinsics(wrong, embedding=own_embedding())
    k, truth = settled.track.intrinsics, track.intrinsics
    assert k.fx == pytest.approx(truth.fx, rel=0.003)
    assert (k.cx, k.cy) == pytest.approx((truth.cx, truth.cy), abs=0.3)
    assert "estimated from poses and landmarks" in settled.findings[0].message
    with pytest.raises(ConventionError, match=r"as stated; .* px read as K of the source"):
        settle_intrinsics(wrong)


def test_a_still_head_does_not_decide_between_two_rewrites() -> None:
    """Both put the face on the landmarks when nothing moves; neither is taken."""
    track, _ = make(np.zeros(20), noise_px=1.0)
    with pytest.raises(ConventionError, match="for one reading of K"):
        settle_intrinsics(naive(track))


# ------------------------------------------------------------------ poses
def test_from_landmarks_alone_the_fit_reaches_their_noise() -> None:
    track, _ = make(SWING, noise_px=1.0, talking=True)
    fit = refit_track(jittered(track, 0.0))
    assert rms(fit.after_px) == pytest.approx(np.sqrt(2 * (1 - 3 / 68)), rel=0.03)
    assert fit.fit.std.noise_px == pytest.approx(1.0, rel=0.1)
    assert rms(errors_deg(fit.track.w2c, track.w2c)) < 0.5
    assert fit.fitted.all()


def test_damaged_poses_are_repaired_with_an_embedding() -> None:
    track, _ = make(SWING, noise_px=0.5)
    R = np.swapaxes(track.w2c.R, 1, 2).copy()
    fit = refit_track(replace(track, w2c=Pose(R, track.w2c.t)), embedding=own_embedding())
    assert rms(errors_deg(fit.track.w2c, track.w2c)) < 0.3


def test_projected_meshes_give_the_track_back() -> None:
    track, _ = make(SWING)
    fit = refit_track(track.in_source(), using="mesh")
    assert fit.track.image_space == "source"
    np.testing.assert_allclose(fit.track.w2c.R, track.w2c.R, atol=1e-7)
    assert fit.track.intrinsics == track.in_source().intrinsics


def test_central() -> None:
    track, _ = make(SWING, fov_deg=14.0, shift_px=(9.0, -14.0))
    fit = refit_track(track, using="mesh", intrinsics="central")
    assert (fit.track.intrinsics.cx, fit.track.intrinsics.cy) == (256, 256)
    assert fit.track.intrinsics.fx == track.intrinsics.fx
    assert 0 < rms(fit.after_px) < 0.05
    assert fit.turned_deg.max() > 0.3


def test_a_shared_focal_length_is_fitted_under_its_prior() -> None:
    track, _ = make(55 * np.sin(TIME / 6), fov_deg=30.0, noise_px=1.0)
    wrong = replace(track, intrinsics=with_K(track, 1.1).intrinsics)
    held = refit_track(wrong, intrinsics="shared", embedding=own_embedding())
    # The settled K is the estimate from the poses, which are right; then the fit's own.
    assert held.track.intrinsics.fx == pytest.approx(track.intrinsics.fx, rel=0.05)
    free = refit_track(track, intrinsics="shared", embedding=own_embedding(), focal_prior=None)
    spread = 4 * float(free.fit.std.focal[0])
    assert free.track.intrinsics.fx == pytest.approx(track.intrinsics.fx, rel=spread)


def test_errors_that_repeat_do_not_pull_the_focal_length_away() -> None:
    """A head of a wrong shape is off alike in every frame; a hundred of them are not a hundred."""
    track, _ = make(12 * np.sin(TIME / 6), noise_px=0.3)
    rng = np.random.default_rng(0)
    corners = np.repeat(head().landmarks[:, None], 3, axis=1)
    assert track.landmarks is not None
    off = replace(track, landmarks=track.landmarks + rng.normal(0, 2.0, (1, 68, 2)))
    own = replace(own_embedding(), corners=corners)
    fit = refit_track(off, intrinsics="shared", embedding=own)
    assert abs(np.log(fit.track.intrinsics.fx / track.intrinsics.fx)) < 0.07
    unheld = 1 / np.sqrt(N) * 0.4
    assert fit.fit.std.focal[0] > unheld


def test_a_focal_length_that_leaves_its_prior_is_refused() -> None:
    track, _ = make(40 * np.sin(TIME / 6), fov_deg=35.0, noise_px=0.2)
    longer = Pose(track.w2c.R, track.w2c.t * [1, 1, 1.6])
    far = replace(track, intrinsics=with_K(track, 1.6).intrinsics, w2c=longer)
    with pytest.raises(FitError, match=r"focal length: expected within 12% .* found -\d+%"):
        refit_track(far, intrinsics="shared", focal_prior=0.04, embedding=own_embedding())
    held = refit_track(track, intrinsics="shared", focal_prior=1e-4, embedding=own_embedding())
    assert "focal-moved" not in [f.check for f in held.findings]
    near = replace(track, intrinsics=with_K(track, 1.1).intrinsics,
                   w2c=Pose(track.w2c.R, track.w2c.t * [1, 1, 1.1]))  # fmt: skip
    said = refit_track(near, intrinsics="shared", focal_prior=0.04, embedding=own_embedding())
    assert "focal-moved" in [f.check for f in said.findings]
    with pytest.raises(FitError, match=r"expected a fov between .* found -33%"):
        refit_track(far, intrinsics="shared", focal_prior=None, embedding=own_embedding())


def test_frames_without_landmarks_keep_their_poses() -> None:
    track, _ = make(SWING, noise_px=1.0, shift_px=(14.0, -9.0))
    assert track.landmarks is not None
    landmarks = track.landmarks.copy()
    landmarks[40:43] = np.nan
    lost = replace(track, landmarks=landmarks)
    fit = refit_track(lost, smooth="auto")
    assert not fit.fitted[40:43].any()
    np.testing.assert_array_equal(fit.track.w2c.R[40:43], track.w2c.R[40:43])
    assert "frames-not-fitted" in [f.check for f in fit.findings]
    central = refit_track(lost, intrinsics="central")
    there = [t.intrinsics.project(t.w2c(head().vertices))[40:43] for t in (track, central.track)]
    assert np.abs(there[1] - there[0]).max() < 0.5
    assert central.track.intrinsics.cx == 256


def test_landmarks_that_do_not_belong_are_refused() -> None:
    track, _ = make(SWING, noise_px=1.0)
    assert track.landmarks is not None
    shuffled = np.random.default_rng(0).permutation(track.landmarks)
    with pytest.raises((ConventionError, FitError)):
        require_residual(refit_track(replace(track, landmarks=shuffled)), 8.0)
    fit = refit_track(track)
    with pytest.raises(FitError, match="within 1 px"):
        require_residual(fit, 1.0)


# ------------------------------------------------------------------ jitter
def test_jitter_is_told_from_motion() -> None:
    for yaw in (np.zeros(N), SWING, 55 * np.sin(TIME * 6 / 55)):
        track, _ = make(yaw)
        pairs = correspondences(track, "mesh")
        quiet = measure_jitter(track, pairs)
        loud = measure_jitter(jittered(track, 0.5), pairs)
        assert quiet is not None
        assert loud is not None
        assert quiet.rotation_deg < 0.02
        # Only the turns jitter, not the places: half of the six numbers, weighed by their noise.
        assert 0.1 < loud.rotation_deg < 0.7
    short, _ = make(np.zeros(4))
    assert measure_jitter(short, correspondences(short, "mesh")) is None


def from_landmarks(track: Track) -> Track:
    """Poses as a tracker gets them from landmarks, frame by frame."""
    return refit_track(track, embedding=own_embedding()).track


@pytest.mark.parametrize("using", ["kpt", "mesh"])
def test_jitter_of_a_still_head_falls_to_a_fifth(using) -> None:  # type: ignore[no-untyped-def]
    track, _ = make(np.full(N, 15.0), noise_px=1.0)
    noisy = from_landmarks(track)
    fit = refit_track(noisy, using=using, smooth="auto", embedding=own_embedding())
    assert rms(turns_deg(noisy.w2c)) >= 5 * rms(turns_deg(fit.track.w2c))
    steps = [np.diff(t.w2c.t, axis=0) for t in (noisy, fit.track)]
    assert rms(steps[0]) >= 5 * rms(steps[1])
    assert fit.jitter_deg is not None
    assert fit.jitter_deg[0] > 5 * fit.jitter_deg[1]


@pytest.mark.parametrize("using", ["kpt", "mesh"])
@pytest.mark.parametrize("speed", [0.5, 1.0, 2.0, 4.0, 6.0])
def test_turning_heads_are_not_damped(using, speed: float) -> None:  # type: ignore[no-untyped-def]
    """Error against the truth at most that without smoothing, in every range of speeds."""
    amplitude = 55.0 if speed > 1 else 25.0
    yaw = amplitude * np.sin(speed / amplitude * np.arange(2 * N))
    track, _ = make(yaw, noise_px=1.0, pitch_deg=4 * np.sin(np.arange(2 * N) / 25))
    noisy = from_landmarks(track)
    smooth = refit_track(noisy, using=using, smooth="auto", embedding=own_embedding()).track
    errors = [errors_deg(t.w2c, track.w2c) for t in (noisy, smooth)]
    places = [np.linalg.norm(t.w2c.t - track.w2c.t, axis=1) for t in (noisy, smooth)]
    now = np.abs(np.gradient(yaw))
    for low, high in ((-1.0, 0.5), (0.5, 2.0), (2.0, 4.0), (4.0, 6.1)):
        at = (now > low) & (now <= high)
        if at.sum() >= 8:
            assert rms(errors[1][at]) <= rms(errors[0][at])
            assert rms(places[1][at]) <= rms(places[0][at])


@pytest.mark.parametrize("using", ["kpt", "mesh"])
def test_nothing_is_smoothed_across_a_gap(using) -> None:  # type: ignore[no-untyped-def]
    """Two shots, a small turn between them, come out as each of them alone."""
    yaw = np.where(TIME < N // 2, -0.9, 0.9)
    track, _ = make(yaw, noise_px=1.0)
    ids = np.where(TIME < N // 2, TIME, TIME + 50)
    noisy = replace(from_landmarks(track), frame_ids=ids)
    options = {"using": using, "smooth": 3.0, "embedding": own_embedding()}
    both = refit_track(noisy, **options).track
    assert noisy.landmarks is not None
    assert noisy.meshes is not None
    for part in (slice(0, N // 2), slice(N // 2, N)):
        shot = replace(
            noisy, frame_ids=ids[part], w2c=noisy.w2c[part], landmarks=noisy.landmarks[part],
            meshes=Heads(np.stack([noisy.meshes.vertices(i) for i in TIME[part]])),
        )  # fmt: skip
        alone = refit_track(shot, **options).track
        assert errors_deg(both.w2c[part], alone.w2c).max() < 0.05


def test_poses_without_jitter_are_not_smoothed() -> None:
    stops = np.concatenate([np.full(40, -30.0), np.linspace(-30, 30, 11)[1:], np.full(40, 30.0)])
    track, _ = make(stops)
    fit = refit_track(track, using="mesh", smooth="auto")
    assert errors_deg(fit.track.w2c, track.w2c).max() < 1e-3


def test_a_noise_to_take_out_may_be_stated() -> None:
    track, _ = make(np.full(N, 15.0), noise_px=1.0)
    noisy = from_landmarks(track)
    little = refit_track(noisy, using="mesh", smooth=0.01).track
    much = refit_track(noisy, using="mesh", smooth=8.0).track
    jitters = [rms(turns_deg(t.w2c)) for t in (noisy, little, much)]
    assert jitters[1] > 0.9 * jitters[0]
    assert jitters[2] < 0.2 * jitters[0]
    with pytest.raises(ConventionError, match="a noise above 0 px"):
        refit_track(noisy, using="mesh", smooth=-1.0)


def test_more_jitter_than_before_is_said() -> None:
    track, _ = make(SWING, noise_px=2.0)
    worse = refit_track(jittered(track, 0.05))
    assert "poses-jitter" in [f.check for f in worse.findings]
    assert "poses-jitter" not in [f.check for f in refit_track(jittered(track, 3.0)).findings]


def test_the_reference_schedule_can_be_compared_with() -> None:
    track, _ = make([0.0, 10.0, 20.0], noise_px=1.0)
    fit = refit_track(track, solver="adam", embedding=own_embedding())
    assert set(fit.fit.stop_reasons) == {"schedule ended"}
    with pytest.raises(ConventionError, match="lm, which smooths"):
        refit_track(track, solver="adam", smooth="auto")


def test_the_picture_shows_every_frame() -> None:
    track, _ = make(SWING, noise_px=1.0)
    gaps = replace(track, frame_ids=np.where(TIME < 60, TIME, TIME + 9))
    picture = np.frombuffer(fit_picture(refit_track(gaps)), np.uint8)
    image = cv2.imdecode(picture, cv2.IMREAD_COLOR)
    assert image is not None
    assert image.shape[1] == 1440
    drawn: Floats = image[80:220, 64:, 1].astype(float) - image[80:220, 64:, 0]
    columns = (drawn > 40).any(axis=0)  # the line after, green
    assert columns.mean() > 0.7
    gap = slice(int(1360 * 59.5 / 128) + 4, int(1360 * 68.5 / 128) - 4)
    assert not columns[gap].any()


@pytest.mark.parametrize("yaw", [[5.0], [5.0, 5.0, 6.0]])
def test_the_picture_of_a_fit_that_moves_nothing(yaw: list[float]) -> None:
    track, _ = make(yaw)
    assert fit_picture(refit_track(track, using="mesh"))[:2] == b"\xff\xd8"
