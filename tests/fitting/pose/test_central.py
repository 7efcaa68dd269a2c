"""The same picture under other intrinsics."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.optimize import least_squares
from scipy.spatial.transform import Rotation

from converter.errors import ConventionError, FitError, MissingInputError
from converter.geometry import Intrinsics, Size
from converter.registry import ReadOptions, source
from converter.track import Track
from fitting import fit_rigid
from fitting.pose.central import central_intrinsics, refit_central
from fixtures.synthetic.head import head
from tests.fitting.pose.scenes import scene


@dataclass(frozen=True)
class MovingMeshes:
    """The procedural head, a little different in every frame."""

    n: int

    @property
    def faces(self) -> NDArray[np.int32]:
        return head().faces.astype(np.int32)

    def __len__(self) -> int:
        return self.n

    def vertices(self, index: int) -> NDArray[np.float32]:
        scale = 1 + 0.01 * np.sin(index) * np.array([0.0, 1.0, 0.0])
        return (head().vertices * scale).astype(np.float32)

    @property
    def mean(self) -> NDArray[np.float32]:
        return head().vertices.astype(np.float32)


def make_track(shift_px: tuple[float, float], fov_deg: float = 20.0) -> Track:
    s = scene(np.linspace(-30, 30, 7), fov_deg, size=Size(1920, 1080), shift_px=shift_px)
    return Track(
        name="ada",
        frame_ids=np.arange(7),
        w2c=s.w2c,
        intrinsics=s.intrinsics,
        image_space="source",
        crop=None,
        meshes=MovingMeshes(7),
    )


def test_nothing_to_do_changes_nothing() -> None:
    track = make_track((0.0, 0.0))
    found = refit_central(track)
    np.testing.assert_allclose(found.w2c.R, track.w2c.R, atol=1e-9)
    np.testing.assert_allclose(found.w2c.t, track.w2c.t, atol=1e-9)
    assert found.residual_px[1] < 1e-6


@pytest.mark.parametrize("focal", ["keep", "shared"])
def test_no_camera_does_better(focal: str) -> None:
    """scipy on the very vertices that were fitted; residuals measured with plain formulas."""
    track = make_track((40.0, -120.0))
    every = np.arange(0, len(head().vertices), 7)
    found = refit_central(track, focal=focal, vertices=every, max_residual_px=None)  # type: ignore[arg-type]
    assert found.intrinsics.is_central
    i = 2
    mesh = track.meshes.vertices(i).astype(np.float64)  # type: ignore[union-attr]
    f, w, h = found.intrinsics.fx, 1920, 1080

    def plain(x: NDArray[np.float64], points: NDArray[np.float64]) -> NDArray[np.float64]:
        p = Rotation.from_rotvec(x[:3]).apply(points) + x[3:]
        return np.stack([f * p[:, 0] / p[:, 2] + w / 2, f * p[:, 1] / p[:, 2] + h / 2], axis=1)

    target = track.project(i, mesh)
    ours = np.append(Rotation.from_matrix(found.w2c.R[i]).as_rotvec(), found.w2c.t[i])
    apart = np.linalg.norm(plain(ours, mesh) - target, axis=1)
    assert found.median_px[i] == pytest.approx(np.median(apart), rel=1e-6)
    assert found.max_px[i] == pytest.approx(apart.max(), rel=1e-6)
    best = least_squares(
        lambda x: (plain(x, mesh[every]) - target[every]).ravel(), ours, x_scale="jac", xtol=1e-14
    )
    squares = ((plain(ours, mesh[every]) - target[every]) ** 2).sum() / 2
    assert squares <= best.cost * (1 + 1e-5)


def test_a_focal_length_of_its_own_shows_more_of_the_picture() -> None:
    track = make_track((60.0, -120.0))
    kept, chosen = (
        refit_central(track, focal=f, max_residual_px=None).fit.rmse_px  # type: ignore[arg-type]
        for f in ("keep", "shared")
    )
    assert np.mean(chosen**2) < np.mean(kept**2)


def test_the_track_carries_the_new_cameras_and_says_so() -> None:
    track = make_track((5.0, -4.0))
    found = refit_central(track)
    moved = found.apply(track)
    moved.require_consistent()
    assert moved.intrinsics.is_central
    assert moved.w2c == found.w2c
    assert "refitted" in moved.provenance.steps[-1]
    assert track.provenance.steps == ()


def test_too_far_off_is_refused_with_the_alternatives() -> None:
    track = make_track((300.0, -250.0), fov_deg=45.0)
    with pytest.raises(FitError, match=r"within 0\.5 px.*window or a padded canvas"):
        refit_central(track)
    assert refit_central(track, max_residual_px=None).residual_px[0] > 0.5


def test_what_is_missing_or_does_not_belong_is_named() -> None:
    track = make_track((5.0, 0.0))
    with pytest.raises(MissingInputError, match="meshes"):
        refit_central(replace(track, meshes=None))
    with pytest.raises(ConventionError, match="1920x1080"):
        refit_central(track, Intrinsics(500.0, 500.0, 256.0, 256.0, Size(512, 512)))
    behind = replace(track, w2c=replace(track.w2c, t=-track.w2c.t))
    with pytest.raises(ConventionError, match="behind"):
        refit_central(behind)


@pytest.fixture
def duda(shared_data: Path) -> Track:
    folder = shared_data / "duda" / "output" / "duda"
    return source("metrical_tracker").read(folder, ReadOptions(hash_inputs=False))


def test_the_real_track_keeps_its_whole_frames(duda: Track) -> None:
    """1080p, principal point 280 px above the centre: a quarter of a pixel is lost."""
    track = duda.in_source()
    kept = refit_central(track)
    assert kept.intrinsics == central_intrinsics(track.intrinsics)
    assert kept.residual_px[0] < 0.3
    assert kept.residual_px[1] < 1.3
    chosen = refit_central(track, focal="shared")
    assert chosen.residual_px[0] < 0.2
    assert chosen.residual_px[1] < 0.9


def test_the_real_track_from_its_landmarks_alone(duda: Track) -> None:
    """Its 478 points are the mesh: the fit lies no further off than the track's own cameras."""
    assert duda.meshes is not None
    assert duda.dense_landmarks is not None
    points = np.stack([duda.meshes.vertices(i) for i in range(len(duda))]).astype(np.float64)
    fit = fit_rigid(points, duda.dense_landmarks, duda.intrinsics, robust="squares")
    there = duda.intrinsics.project(duda.w2c(points))
    own = np.sqrt(((there - duda.dense_landmarks) ** 2).sum(axis=-1).mean(axis=1))
    assert np.all(fit.rmse_px <= own * (1 + 1e-6))
    assert set(fit.stop_reasons) == {"converged"}
    assert np.median(fit.rmse_px) < 2
