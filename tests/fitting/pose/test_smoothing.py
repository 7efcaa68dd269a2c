"""Smoothing takes jitter out of still heads and leaves head turns alone."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from converter.geometry.pixels import Floats
from fitting import RigidFit, fit_rigid
from fitting.pose import IBUG_68, HeadSmoothing
from tests.fitting.pose.scenes import Scene, scene

N = 200
TIME = np.arange(N)


def fits(s: Scene, seed: int = 5, **smoothing: object) -> tuple[RigidFit, RigidFit]:
    """Without and with smoothing, 1 px of noise."""
    noisy = s.noisy(1.0, seed)
    how = HeadSmoothing(**smoothing)  # type: ignore[arg-type]
    return (
        fit_rigid(s.points, noisy, s.intrinsics, groups=IBUG_68),
        fit_rigid(s.points, noisy, s.intrinsics, groups=IBUG_68, smoothing=how),
    )


def turns(fit: RigidFit) -> Floats:
    """(N-1,) rotation from frame to frame, degrees."""
    R = fit.w2c.R
    between = R[1:] @ np.swapaxes(R[:-1], 1, 2)
    return np.degrees(np.linalg.norm(Rotation.from_matrix(between).as_rotvec(), axis=1))


def rms(values: Floats) -> float:
    return float(np.sqrt(np.mean(values**2)))


def swing(amplitude: float, speed: float) -> Floats:
    """Yaw (N,) of a head that swings, at most ``speed`` degrees per frame."""
    return amplitude * np.sin(speed / amplitude * TIME)


STOPS_AND_STARTS = np.concatenate(
    [np.full(60, -60.0), np.linspace(-60, 60, 21)[1:], np.full(60, 60.0),
     np.linspace(60, 0, 13)[1:], np.full(48, 0.0)]
)  # fmt: skip


@pytest.mark.parametrize("yaw", [0.0, 30.0])
@pytest.mark.parametrize("fov", [12.0, 30.0])
def test_jitter_of_a_still_head_falls(yaw: float, fov: float) -> None:
    s = scene(np.full(N, yaw), fov)
    without, smooth = fits(s)
    assert rms(turns(without)) >= 5 * rms(turns(smooth))
    assert rms(np.diff(without.w2c.t, axis=0)) >= 5 * rms(np.diff(smooth.w2c.t, axis=0))


@pytest.mark.parametrize(
    "yaw",
    [swing(55, 6), swing(55, 3), swing(40, 1), swing(20, 2), swing(10, 1), swing(60, 0.3),
     STOPS_AND_STARTS],
    ids=["6", "3", "1", "short 2", "short 1", "0.3", "stops and starts"],
)  # fmt: skip
@pytest.mark.parametrize("fov", [12.0, 20.0])
def test_turning_heads_are_not_held_back(yaw: Floats, fov: float) -> None:
    """At every speed the error against the truth is no larger than without smoothing."""
    s = scene(yaw, fov, pitch_deg=5 * np.sin(TIME / 30))
    without, smooth = fits(s)
    errors = [s.rotation_error_deg(f.w2c) for f in (without, smooth)]
    places = [np.linalg.norm(f.w2c.t - s.w2c.t, axis=1) for f in (without, smooth)]
    speed = np.abs(np.gradient(yaw))
    for low, high in ((-1, 0.5), (0.5, 2), (2, 4), (4, 7)):
        at = (speed > low) & (speed <= high)
        if at.sum() >= 5:
            assert rms(errors[1][at]) <= rms(errors[0][at])
            assert rms(places[1][at]) <= rms(places[0][at])


@pytest.mark.parametrize("speed", [10, 19, 40])
def test_heads_faster_than_the_links_believe_are_let_go(speed: float) -> None:
    """Ten degrees per frame gain still; beyond, links that tear poses off are undone."""
    s = scene(swing(60, speed))
    without, smooth = fits(s)
    errors = [rms(s.rotation_error_deg(f.w2c)) for f in (without, smooth)]
    assert errors[1] <= (1.0 if speed == 10 else 1.8) * errors[0]
    places = [rms(f.w2c.t - s.w2c.t) for f in (without, smooth)]
    assert places[1] <= places[0]


def test_never_across_gaps() -> None:
    """Two shots in one sequence smooth as they would alone."""
    s = scene(np.concatenate([np.full(30, -40.0), np.full(30, 40.0)]))
    ids = np.concatenate([np.arange(30), np.arange(100, 130)])
    _, both = fits(s, frame_ids=ids)
    noisy = s.noisy(1.0, 5)
    for part in (slice(0, 30), slice(30, 60)):
        alone = fit_rigid(
            s.points, noisy[part], s.intrinsics, groups=IBUG_68, smoothing=HeadSmoothing()
        )
        # Not bit for bit: the noise that decides the strength is measured over all frames.
        assert rms(s.rotation_error_deg(both.w2c)[part]) < 0.45
        np.testing.assert_allclose(both.w2c.R[part], alone.w2c.R, atol=5e-4)


def test_a_lost_frame_is_a_gap() -> None:
    s = scene(np.full(21, 10.0))
    noisy = s.noisy(1.0)
    noisy[10] = np.nan
    lost = fit_rigid(s.points, noisy, s.intrinsics, groups=IBUG_68, smoothing=HeadSmoothing())
    assert lost.fitted.sum() == 20
    assert np.isnan(lost.w2c.R[10]).all()
    ids = np.delete(np.arange(21), 10)
    removed = fit_rigid(
        s.points,
        np.delete(noisy, 10, axis=0),
        s.intrinsics,
        groups=IBUG_68,
        smoothing=HeadSmoothing(frame_ids=ids),
    )
    np.testing.assert_allclose(np.delete(lost.w2c.R, 10, axis=0), removed.w2c.R, atol=1e-7)


def test_the_strength_follows_the_noise_by_itself() -> None:
    """Exact landmarks are not smoothed at all, whatever the motion."""
    s = scene(STOPS_AND_STARTS)
    found = fit_rigid(
        s.points, s.landmarks, s.intrinsics, groups=IBUG_68, smoothing=HeadSmoothing()
    )
    assert s.rotation_error_deg(found.w2c).max() < 1e-4


def test_with_a_shared_focal_length() -> None:
    s = scene(swing(40, 2), 25.0)
    noisy = s.noisy(1.0)
    found = fit_rigid(
        s.points, noisy, s.intrinsics, groups=IBUG_68, fov="shared", smoothing=HeadSmoothing()
    )
    assert set(found.stop_reasons) == {"converged"}
    assert abs(found.intrinsics.fx / s.intrinsics.fx - 1) < 4 * found.std.focal[0]
    without = fit_rigid(s.points, noisy, s.intrinsics, groups=IBUG_68, fov="shared")
    assert rms(s.rotation_error_deg(found.w2c)) < 0.7 * rms(s.rotation_error_deg(without.w2c))
    assert set(found.cost_history) == {"face", "jaw", "smoothing"}
