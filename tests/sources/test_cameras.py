"""Every way in which cameras are known to be rewritten: repaired and named, or refused."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from converter.errors import ConventionError, UncropError
from converter.track import Track
from fixtures.synthetic import Truth
from tests.conftest import MakeTrack
from tests.damage import edit_frame, naive_K, source_K, transposed_R, without_camera_block
from tests.sources.reading import SMALL, checks, read

SPEC: dict[str, Any] = {**SMALL, "n_frames": 4, "pictures": False, "yaml": False}
SQUARE: dict[str, Any] = {**SPEC, "pictures": True, "source": "folder"}
WHOLE: dict[str, Any] = {**SPEC, "crop_mode": "whole", "whole_size": (160, 90), "pictures": True}
UNPADDED: dict[str, Any] = {**SQUARE, "crop_mode": "unpadded", "bbox": (40, 160, 20, 140 - 20)}

Content = dict[str, Any]
Change = Callable[[Content], None]


def edit(truth: Truth, *changes: Change, only: int | None = None) -> None:
    paths = sorted((truth.output / "checkpoint").iterdir())
    for change in changes:
        for path in paths if only is None else paths[only : only + 1]:
            edit_frame(path, change)


def assert_true(track: Track, truth: Truth) -> None:
    """Cameras are the true ones, in both images."""
    np.testing.assert_allclose(track.in_crop().intrinsics.matrix, truth.K_crop, atol=1e-3)
    np.testing.assert_allclose(track.w2c.R, truth.R, atol=1e-5)
    np.testing.assert_allclose(track.w2c.t, truth.t, atol=1e-5)
    if track.crop is not None and track.crop.source is not None:
        np.testing.assert_allclose(track.in_source().intrinsics.matrix, truth.K_source, atol=1e-2)


def said(track: Track, check: str) -> str:
    return next(str(f) for f in track.findings if f.check == check)


def refused(folder: Any, pattern: str, **options: Any) -> None:
    with pytest.raises(UncropError) as caught:
        read(folder, **options)
    text = str(caught.value)
    assert re.search(pattern, text), text
    assert len(text.splitlines()) == 1


def set_K(content: Content, K: np.ndarray) -> None:
    content["opencv"]["K"] = K.astype(np.float32)


def transposed_K(c: Content) -> None:
    set_K(c, np.swapaxes(c["opencv"]["K"], 1, 2).copy())


def scaled_K(c: Content) -> None:
    set_K(c, c["opencv"]["K"] * np.array([[2.0], [2.0], [1.0]]))


def odd_K(c: Content) -> None:
    set_K(c, c["opencv"]["K"] + np.array([[[0, 0, 3.0], [0, 0, 0], [0, 0, 0]]]))


@pytest.mark.parametrize("spec", [SQUARE, WHOLE, UNPADDED], ids=["square", "whole", "unpadded"])
def test_untouched(make_track: MakeTrack, spec: dict[str, Any]) -> None:
    folder, truth = make_track(**spec)
    track = read(folder)
    assert checks(track) == set()
    assert track.image_space == "crop"
    assert_true(track, truth)


K_REWRITES: dict[str, tuple[Callable[[Truth], Change], str]] = {
    "transposed": (lambda t: transposed_K, "K is transposed"),
    "scaled": (lambda t: scaled_K, "K was scaled by 2, to images of another resolution"),
    "naive": (lambda t: naive_K(list(t.bbox or [])), "without rescaling"),
    "source": (lambda t: source_K(t.crop_from_source), "already rewritten to source resolution"),
}


@pytest.mark.parametrize("name", K_REWRITES)
@pytest.mark.parametrize("only", [None, 1])
def test_rewritten_K_is_named_and_the_camera_block_used(
    own_track: MakeTrack, name: str, only: int | None
) -> None:
    folder, truth = own_track(**SQUARE)
    make, cause = K_REWRITES[name]
    edit(truth, make(truth), only=only)
    track = read(folder)
    assert cause in said(track, "K-rewritten")
    assert ("in 1 of 4 frames" in said(track, "K-rewritten")) == (only == 1)
    assert_true(track, truth)
    assert track.intrinsics.n_frames is None or track.intrinsics.n_frames == 0


@pytest.mark.parametrize("spec", [SPEC, WHOLE], ids=["square", "whole"])
def test_unknown_rewrites_are_refused(own_track: MakeTrack, spec: dict[str, Any]) -> None:
    folder, truth = own_track(**spec)
    edit(truth, odd_K, only=2)
    refused(folder, r"00002\.frame: opencv\.K: expected the camera block's K, f \(.*found f \(")


def test_sides_of_K_swapped(own_track: MakeTrack) -> None:
    folder, truth = own_track(**WHOLE)

    def change(c: Content) -> None:
        h, w = c["img_size"]
        shift = np.array([[[0, 0, (h - w) / 2], [0, 0, (w - h) / 2], [0, 0, 0]]])
        set_K(c, c["opencv"]["K"] + shift)

    edit(truth, change)
    track = read(folder)
    assert "height and width swapped" in said(track, "K-rewritten")
    assert_true(track, truth)


def swapped(c: Content) -> None:
    c["img_size"] = c["img_size"][::-1].copy()


@pytest.mark.parametrize("pictures", [True, False])
def test_img_size_swapped(own_track: MakeTrack, pictures: bool) -> None:
    folder, truth = own_track(**{**WHOLE, "pictures": pictures})
    edit(truth, swapped)
    track = read(folder)
    np.testing.assert_allclose(track.intrinsics.matrix, truth.K_crop, atol=1e-3)
    assert track.intrinsics.size.shape == truth.crop_shape
    assert "img-size-swapped" in checks(track)


def size_of_source(truth: Truth) -> Change:
    def change(c: Content) -> None:
        c["img_size"] = np.array(truth.source_shape, np.int64)

    return change


def test_img_size_of_the_source(own_track: MakeTrack) -> None:
    """Only img_size was rewritten; K was not."""
    folder, truth = own_track(**SQUARE)
    edit(truth, size_of_source(truth))
    track = read(folder)
    assert checks(track) == {"img-size-wrong"}
    assert_true(track, truth)


@pytest.mark.parametrize("block", [True, False])
def test_everything_rewritten_to_the_source(own_track: MakeTrack, block: bool) -> None:
    folder, truth = own_track(**SQUARE)
    edit(truth, source_K(truth.crop_from_source), size_of_source(truth))
    if not block:
        edit(truth, without_camera_block)
    track = read(folder)
    assert checks(track) & {"K-rewritten", "K-space"}
    assert_true(track, truth)


def test_img_size_of_another_run(own_track: MakeTrack) -> None:
    folder, truth = own_track(**SQUARE)

    def change(c: Content) -> None:
        c["img_size"] = np.array([256, 256])

    edit(truth, change, only=3)
    refused(folder, r"00003\.frame: img_size: expected 128x128, as in 00000\.frame, found 256x256")
    edit(truth, change)
    assert "img-size-wrong" in checks(read(folder))  # K is confirmed by the camera block
    edit(truth, scaled_K)
    refused(folder, r"img_size: expected 128x128, the size of the tracker's images, found 256x256")


@pytest.mark.parametrize(
    ("change", "cause"),
    [
        (transposed_K, "K-transposed"),
        (lambda c: set_K(c, c["opencv"]["K"] * np.array([[-1.0], [1], [1]])), "not positive"),
        (lambda c: set_K(c, c["opencv"]["K"] + 0.5), "skew or worse"),
        (lambda c: set_K(c, c["opencv"]["K"] * 0), "skew or worse"),
    ],
)
def test_malformed_K_without_a_camera_block(
    own_track: MakeTrack, change: Change, cause: str
) -> None:
    folder, truth = own_track(**SPEC)
    edit(truth, without_camera_block, change)
    if cause == "K-transposed":
        assert cause in checks(read(folder))
        assert_true(read(folder), truth)
    else:
        refused(folder, rf"00000\.frame: opencv\.K: expected rows \(fx, 0, cx\).* found .*{cause}")


def test_K_per_frame(own_track: MakeTrack) -> None:
    folder, truth = own_track(**SPEC)

    def zoom(factor: float) -> Change:
        def change(c: Content) -> None:
            K = c["opencv"]["K"].copy()
            K[0, 0, 0] = K[0, 1, 1] = K[0, 0, 0] * factor
            set_K(c, K)
            c["camera"]["fl"] = (c["camera"]["fl"] * factor).astype(np.float32)

        return change

    edit(truth, zoom(1 + 2e-7), only=1)
    assert "K-varies" not in checks(read(folder))
    edit(truth, zoom(1 + 2e-5), only=2)
    track = read(folder)
    assert "K-varies" in checks(track)
    assert track.intrinsics.n_frames == 4


# --- R and t ----------------------------------------------------------------------------------

GL = np.diag([1.0, -1.0, -1.0])
P3D = np.diag([-1.0, -1.0, 1.0])


def pose(new: Callable[[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]) -> Change:
    def change(c: Content) -> None:
        R = c["opencv"]["R"][0].astype(np.float64)
        t = c["opencv"]["t"][0].astype(np.float64)
        R, t = new(R, t)
        c["opencv"]["R"] = R[None].astype(np.float32)
        c["opencv"]["t"] = t[None].astype(np.float32)

    return change


POSES = {
    "R is transposed": transposed_R,
    "the pose is camera-to-world in": pose(lambda R, t: (R.T, -R.T @ t)),
    "the pose has OpenGL axes": pose(lambda R, t: (GL @ R, GL @ t)),
    "camera-to-world with OpenGL axes": pose(lambda R, t: (R.T @ GL, -R.T @ t)),
    "the pose has pytorch3d axes": pose(lambda R, t: (P3D @ R, P3D @ t)),
    "pytorch3d's, of row vectors": pose(lambda R, t: ((P3D @ R).T, P3D @ t)),
}


@pytest.mark.parametrize("cause", POSES)
@pytest.mark.parametrize("only", [None, 2])
def test_rewritten_poses_are_named(own_track: MakeTrack, cause: str, only: int | None) -> None:
    folder, truth = own_track(**SPEC)
    edit(truth, POSES[cause], only=only)
    track = read(folder)
    assert cause in said(track, "pose-rewritten")
    assert f"in {4 if only is None else 1} of 4 frames" in said(track, "pose-rewritten")
    assert_true(track, truth)


@pytest.mark.parametrize(
    ("change", "pattern"),
    [
        (pose(lambda R, t: (R.T, t + 0.01)), r"00000\.frame: opencv\.R: expected the camera block's"
         r" rotation within 0\.0001, found a difference of"),
        (pose(lambda R, t: (R, t + 2e-5)), r"opencv\.t: expected the camera block's translation "
         r"within 1e-05 m, found a difference of 2e-05 m\. The two blocks"),
        (pose(lambda R, t: (R + 2e-4, t)), r"opencv\.R: expected the camera block's rotation"),
        (pose(lambda R, t: (np.diag([-1.0, 1, 1]) @ R, t)), r"opencv\.R: expected the camera"),
        (lambda c: c["camera"]["R"].fill(0), r"camera\.R: expected two rows of a rotation, found "
         r"rows that span no plane"),
        (lambda c: c["camera"]["fl"].fill(-3), r"camera\.fl: expected a focal length > 0"),
    ],
)  # fmt: skip
def test_conflicting_blocks(own_track: MakeTrack, change: Change, pattern: str) -> None:
    folder, truth = own_track(**SPEC)
    edit(truth, change)
    refused(folder, pattern)


@pytest.mark.parametrize(
    ("change", "pattern"),
    [
        (pose(lambda R, t: (np.diag([-1.0, 1, 1]) @ R, t)),
         r"opencv\.R: expected a rotation within 0\.0001, found mirrored axes \(det R <= 0\)"),
        (pose(lambda R, t: (1.01 * R, t)), r"opencv\.R: expected a rotation .* found \|R R\^T - I"),
        (pose(lambda R, t: (0 * R, t)), r"opencv\.R: expected a rotation"),
        (pose(lambda R, t: (1e8 * R, t)), r"opencv\.R: expected a rotation"),
        (pose(lambda R, t: (GL @ R, GL @ t)), r"opencv\.t: expected z > 0, the head in front of"),
    ],
)  # fmt: skip
def test_impossible_poses_without_a_camera_block(
    own_track: MakeTrack, change: Change, pattern: str
) -> None:
    folder, truth = own_track(**SPEC)
    edit(truth, without_camera_block, change)
    refused(folder, pattern)


def test_two_defects_at_once(own_track: MakeTrack) -> None:
    folder, truth = own_track(**SQUARE)
    edit(truth, naive_K(list(truth.bbox or [])), transposed_R)
    track = read(folder)
    assert {"K-rewritten", "pose-rewritten"} <= checks(track)
    assert_true(track, truth)


# --- what landmarks and meshes say, where there is no camera block ----------------------------


def test_K_of_the_source_alone(own_track: MakeTrack) -> None:
    folder, truth = own_track(**{**SQUARE, "source_size": (480, 360)}, bbox=(100, 400, 30, 330))
    edit(truth, source_K(truth.crop_from_source), without_camera_block)
    track = read(folder)
    assert "read as K of the source frame" in said(track, "K-rewritten")
    assert_true(track, truth)


@pytest.mark.parametrize("sigma_px", [0.0, 1.0, 4.0])
def test_noise_of_landmarks_is_no_reason_for_doubt(own_track: MakeTrack, sigma_px: float) -> None:
    folder, truth = own_track(**SQUARE)
    rng = np.random.default_rng(0)
    for path in (truth.actor / "kpt").iterdir():
        points = np.load(path)
        noisy = points + rng.normal(scale=sigma_px * 128 / 512, size=points.shape)
        np.save(path, np.floor(noisy).astype(np.float32))
    assert checks(read(folder)) == set()


def test_nothing_fits(own_track: MakeTrack) -> None:
    folder, truth = own_track(**SQUARE)
    edit(truth, scaled_K, without_camera_block)
    refused(folder, r"opencv\.K: expected at least 90% of the landmarks on the projected mesh")


def test_meshes_of_another_head_position(own_track: MakeTrack) -> None:
    folder, truth = own_track(**SQUARE)
    edit(truth, pose(lambda R, t: (R, t + [0.3, 0, 0])), without_camera_block)
    with pytest.raises(ConventionError, match="are they from one run of the tracker"):
        read(folder)
