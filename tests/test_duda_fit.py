"""The cameras of the real 1080p video fitted again."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

import converter
from converter.cli.main import main
from converter.track import Track
from fitting.pose.embedding import find_embedding
from fitting.pose.refit import TrackFit, refit_track
from tests.damage import Folders, naive_K, source_K, without_camera_block

pytestmark = pytest.mark.shared

BBOX = [787, 1197, 61, 471]
K = np.array([[2339, 0, 255], [0, 2339, 250], [0, 0, 1.0]])
SCALE = 512 / 410
CROP_FROM_SOURCE = np.array(
    [[SCALE, 0, -BBOX[0] * SCALE], [0, SCALE, -BBOX[2] * SCALE], [0, 0, 1.0]]
)


@pytest.fixture(scope="module")
def duda(shared_data: Path) -> Track:
    return converter.read_track(shared_data / "duda")


@pytest.fixture(scope="module")
def from_kpt(duda: Track) -> TrackFit:
    return refit_track(duda)


def rms(values: np.ndarray) -> float:
    return float(np.sqrt(np.nanmean(np.square(values))))


def test_from_kpt_alone_the_fit_reaches_the_noise_of_the_landmarks(
    duda: Track, from_kpt: TrackFit
) -> None:
    """The floor: what is left under the cameras that the data were made with."""
    floor = find_embedding(duda.in_crop()).residual_px
    distances = from_kpt.pairs.distances(from_kpt.after)
    assert floor < 0.8
    assert np.median(distances) <= floor
    assert rms(from_kpt.after_px) <= rms(from_kpt.before_px)
    assert rms(from_kpt.after_px) < 1.2
    assert from_kpt.fitted.all()
    assert set(from_kpt.fit.stop_reasons) == {"converged"}


def test_the_poses_stay_within_their_stated_uncertainty(from_kpt: TrackFit) -> None:
    """Stated: noise of the landmarks alone; the real one also moves lips and lids."""
    off = from_kpt.turned_deg / from_kpt.fit.std.rotation_deg
    assert np.median(off) < 3
    assert from_kpt.turned_deg.max() < 1.0


@pytest.mark.parametrize("using", ["kpt", "dense"])
@pytest.mark.parametrize("damage", ["naive", "source"])
def test_a_rewritten_K_is_repaired(
    shared_data: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    damage: str,
    using: str,
) -> None:
    """Without the camera block, which would decide: by landmarks and meshes alone."""
    folders = Folders.copy(shared_data / "duda", tmp_path / "duda")
    folders.edit_frames(naive_K(BBOX) if damage == "naive" else source_K(CROP_FROM_SOURCE))
    folders.edit_frames(without_camera_block)
    out = tmp_path / "mended.h5"
    assert main(["fit", str(folders.root), "-o", str(out), "--using", using, "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert "K-rewritten" in [f["check"] for f in said["findings"]]
    mended = converter.read_track(out)
    np.testing.assert_allclose(mended.in_crop().intrinsics.matrix, K, atol=1e-3)
    assert said["rms_after_px"] < 1.2


def test_jitter_falls_and_the_mesh_stays(duda: Track) -> None:
    fit = refit_track(duda, using="mesh", smooth="auto")
    assert fit.jitter_deg is not None
    assert fit.jitter_deg[0] > 5 * fit.jitter_deg[1]
    assert rms(fit.after_px) < 0.35


def test_adam_is_no_better(duda: Track, from_kpt: TrackFit) -> None:
    adam = refit_track(duda, solver="adam")
    assert rms(adam.after_px) > rms(from_kpt.after_px)
    assert adam.fit.objective > refit_track(duda).fit.objective
