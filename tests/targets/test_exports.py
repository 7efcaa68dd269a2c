"""Targets that write cameras into text files: right for any K, and wrong ones are seen."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import given

from converter import registry
from converter.errors import MissingInputError, TargetError
from converter.findings import Finding
from converter.geometry.intrinsics import Intrinsics
from converter.geometry.pose import matrix_from_rotation_6d, matrix_from_rotation_vector
from converter.media.files import sha256_of
from converter.media.images import read_image, read_size
from converter.registry import ReadOptions, Written, no_progress
from converter.targets.colmap.model import (
    Model,
    binary_files,
    matrix_from_quaternion,
    quaternions_from_matrices,
    read_text,
    text_files,
)
from converter.track import Track
from fixtures.synthetic.track import write_parsing
from tests import strategies
from tests.conftest import MakeTrack

SPEC: dict[str, Any] = {
    "principal_512": (240.0, 275.0), "begin_frames": 1, "lost_landmarks": (3,), "n_frames": 10,
}  # fmt: skip
"""Off-centre principal point, non-square source frames, frame i is image i + 2."""


def read(path: Path, **options: Any) -> Track:
    return registry.read_track(path, ReadOptions(hash_inputs=False, **options))


def write(name: str, track: Track, out: Path, **options: Any) -> Written:
    target = registry.target(name)
    own = target.options(**options)
    return target.write(track, out, own, overwrite=False, progress=no_progress)


def errors(name: str, out: Path) -> list[Finding]:
    return [f for f in registry.target(name).check(out) if f.severity == "error"]


def test_every_target_says_what_to_run_next(off_centre: tuple[Track, Any], tmp_path: Path) -> None:
    for flavour in ("splattingavatar", "imavatar", "pointavatar"):
        out = tmp_path / flavour
        written = write("flame_params", off_centre[0], out, flavour=flavour)
        assert str(out) in written.next_command
    assert "model_analyzer" in write("colmap", off_centre[0], tmp_path / "c").next_command


@pytest.mark.parametrize("variant", ["colmap", "nerfstudio", "imavatar", "vhap"])
def test_what_the_images_are_drawn_from_is_said_once(
    variant: str, exported: Callable[[str], tuple[Path, Written]]
) -> None:
    (line,) = [s for s in exported(variant)[1].summary if "images " in s and " focal " in s]
    assert line.count("source frames") == 1


def reprojection(written: Written) -> float:
    (line,) = [s for s in written.summary if s.startswith("max reprojection difference")]
    return float(line.split()[3])


def reseal(out: Path) -> None:
    """Make the manifest's hashes right again, so that only the contents speak."""
    manifest = json.loads((out / "uncrop.json").read_text())
    manifest["files"] = {name: sha256_of(out / name) for name in manifest["files"]}
    (out / "uncrop.json").write_text(json.dumps(manifest))


def edit_json(path: Path, change: Callable[[dict[str, Any]], None]) -> None:
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


VARIANTS: dict[str, tuple[str, dict[str, Any]]] = {
    "gaussianavatars": ("gaussianavatars", {"canvas": "window"}),
    "gaussianavatars crop": ("gaussianavatars", {"canvas": "crop", "size": "128"}),
    "vhap": ("gaussianavatars", {"flavour": "vhap"}),
    "vhap crop": ("gaussianavatars", {"flavour": "vhap", "size": "128"}),
    "splattingavatar": ("flame_params", {}),
    "splattingavatar source": ("flame_params", {"space": "source"}),
    "imavatar": ("flame_params", {"flavour": "imavatar", "size": 128}),
    "monogaussianavatar": ("flame_params", {"flavour": "monogaussianavatar"}),
    "pointavatar": ("flame_params", {"flavour": "pointavatar"}),
    "nerfstudio": ("nerfstudio", {}),
    "nerfstudio crop": ("nerfstudio", {"space": "crop", "size": 128}),
    "nerfstudio window": ("nerfstudio", {"space": "window"}),
    "colmap": ("colmap", {}),
    "colmap crop": ("colmap", {"space": "crop"}),
}


@pytest.fixture(scope="session")
def off_centre(make_track: MakeTrack) -> tuple[Track, Any]:
    folder, truth = make_track(**SPEC)
    return read(folder), truth


@pytest.fixture(scope="session")
def exported(
    off_centre: tuple[Track, Any], tmp_path_factory: pytest.TempPathFactory
) -> Callable[[str], tuple[Path, Written]]:
    made: dict[str, tuple[Path, Written]] = {}

    def make(variant: str) -> tuple[Path, Written]:
        if variant not in made:
            name, options = VARIANTS[variant]
            out = tmp_path_factory.mktemp("export") / "out"
            made[variant] = out, write(name, off_centre[0], out, **options)
        return made[variant]

    return make


@pytest.mark.parametrize("variant", VARIANTS)
def test_reprojects_with_an_off_centre_principal_point(
    variant: str, exported: Callable[[str], tuple[Path, Written]]
) -> None:
    out, written = exported(variant)
    assert reprojection(written) <= 0.02
    assert errors(VARIANTS[variant][0], out) == []
    assert (out / "proof.jpg").is_file()


# --- planted faults -------------------------------------------------------------------------------

FLIP = np.diag([1.0, -1.0, -1.0])


def _matrix(change: Callable[[Any], Any]) -> Callable[[Path], None]:
    """Change every transform_matrix, camera to world."""

    def damage(out: Path) -> None:
        def edit(content: dict[str, Any]) -> None:
            for frame in content["frames"]:
                frame["transform_matrix"] = change(np.array(frame["transform_matrix"])).tolist()

        for path in out.glob("transforms*.json"):
            edit_json(path, edit)

    return damage


def _flipped(c2w: Any) -> Any:
    out = c2w.copy()
    out[:3, 1:3] *= -1
    return out


def _transposed(c2w: Any) -> Any:
    out = c2w.copy()
    out[:3, :3] = c2w[:3, :3].T
    return out


def _shifted_matrices(out: Path) -> None:
    def edit(content: dict[str, Any]) -> None:
        matrices = [frame["transform_matrix"] for frame in content["frames"]]
        for frame, other in zip(content["frames"], matrices[1:], strict=False):
            frame["transform_matrix"] = other

    for path in out.glob("transforms*.json"):
        edit_json(path, edit)


def _unflipped_cy(out: Path) -> None:
    def edit(content: dict[str, Any]) -> None:
        for frame in content["frames"]:
            frame["cy"] = frame["h"] - frame["cy"]

    for path in out.glob("transforms*.json"):
        edit_json(path, edit)


def _world(change: Callable[[Any], Any]) -> Callable[[Path], None]:
    """Change every world_mat."""

    def damage(out: Path) -> None:
        def edit(content: dict[str, Any]) -> None:
            for frame in content["frames"]:
                frame["world_mat"] = change(np.array(frame["world_mat"])).tolist()

        edit_json(out / "flame_params.json", edit)

    return damage


def _world_shifted(out: Path) -> None:
    def edit(content: dict[str, Any]) -> None:
        matrices = [frame["world_mat"] for frame in content["frames"]]
        for frame, other in zip(content["frames"], matrices[1:], strict=False):
            frame["world_mat"] = other

    edit_json(out / "flame_params.json", edit)


def _other_reader(out: Path) -> None:
    """What is right for one reader is wrong for the other."""

    def edit(content: dict[str, Any]) -> None:
        splatting = content["flavour"] == "splattingavatar"
        content["flavour"] = "pointavatar" if splatting else "splattingavatar"

    edit_json(out / "uncrop.json", edit)


def _half_pixel(out: Path) -> None:
    def edit(content: dict[str, Any]) -> None:
        content["intrinsics"][2] += 0.5 / 128

    edit_json(out / "flame_params.json", edit)


def _model(change: Callable[[Model], Model]) -> Callable[[Path], None]:
    """Change a COLMAP model, its text and its binary files alike."""

    def damage(out: Path) -> None:
        model = change(read_text(out / "sparse/0"))
        for name, text in text_files(model).items():
            (out / "sparse/0" / name).write_text(text)
        for name, data in binary_files(model).items():
            (out / "sparse/0" / name).write_bytes(data)

    return damage


MODEL_FAULTS = {
    "axis flip": _model(
        lambda m: replace(
            m,
            quaternions=m.quaternions[:, [1, 0, 3, 2]] * [-1, 1, -1, 1],
            translations=m.translations @ FLIP,
        )
    ),
    "R transposed": _model(lambda m: replace(m, quaternions=m.quaternions * [1, -1, -1, -1])),
    "frames shifted": _model(
        lambda m: replace(
            m,
            quaternions=np.roll(m.quaternions, -1, axis=0),
            translations=np.roll(m.translations, -1, axis=0),
        )
    ),
    "principal point centred": _model(
        lambda m: replace(m, cameras=m.cameras * [1, 1, 0, 0] + [0, 0, 320, 180])
    ),
}
WORLD_FAULTS = {
    "axis flip": _world(lambda W: FLIP @ W),
    "R transposed": _world(lambda W: np.concatenate([W[:, :3].T, W[:, 3:]], axis=1)),
    "frames shifted": _world_shifted,
}
JSON_FAULTS = {
    "axis flip": _matrix(_flipped),
    "R transposed": _matrix(_transposed),
    "frames shifted": _shifted_matrices,
}
FAULTS: dict[str, dict[str, Callable[[Path], None]]] = {
    "gaussianavatars": JSON_FAULTS,
    "vhap": {**JSON_FAULTS, "cy from above": _unflipped_cy},
    "splattingavatar": {**WORLD_FAULTS, "reader swapped": _other_reader},
    "pointavatar": {**WORLD_FAULTS, "reader swapped": _other_reader},
    "imavatar": {"half a pixel": _half_pixel},
    "nerfstudio": JSON_FAULTS,
    "colmap": MODEL_FAULTS,
}


@pytest.mark.parametrize(("variant", "fault"), [(v, f) for v in FAULTS for f in FAULTS[v]])
def test_a_wrong_camera_is_seen(
    variant: str, fault: str, exported: Callable[[str], tuple[Path, Written]], tmp_path: Path
) -> None:
    out = tmp_path / "out"
    shutil.copytree(exported(variant)[0], out)
    FAULTS[variant][fault](out)
    reseal(out)
    found = errors(VARIANTS[variant][0], out)
    seen = {f.check for f in found}
    assert "reprojection" in seen or "dataset-unreadable" in seen, found


@pytest.mark.parametrize("variant", ["gaussianavatars", "vhap", "imavatar", "nerfstudio", "colmap"])
def test_images_of_neighbouring_frames_are_refused_while_writing(
    variant: str, off_centre: tuple[Track, Any], tmp_path: Path
) -> None:
    """Frame numbers are proven by content: the written pixels against the tracker's crops."""
    track, _ = off_centre

    class Shifted:
        size, origin = track.source_frames.size, "shifted"  # type: ignore[union-attr]

        def __len__(self) -> int:
            return len(track)

        def name(self, index: int) -> str:
            return str(index)

        def read(self, index: int) -> Any:
            return track.source_frames.read(min(index + 3, len(track) - 1))  # type: ignore[union-attr]

        def stream(self, indices: Any) -> Any:
            return (self.read(i) for i in indices)

    name, options = VARIANTS[variant]
    with pytest.raises(TargetError, match="lie on the tracker's crops"):
        write(name, replace(track, source_frames=Shifted()), tmp_path / "out", **options)
    assert list(tmp_path.iterdir()) == []


# --- gaussianavatars ------------------------------------------------------------------------------


def test_flame_parameters_are_rotation_vectors_of_their_frames(
    exported: Callable[[str], tuple[Path, Written]], off_centre: tuple[Track, Any]
) -> None:
    out, track = exported("vhap")[0], off_centre[0]
    assert track.flame.jaw is not None
    assert track.flame.eyes is not None
    assert track.flame.expression is not None
    for step in range(len(track)):
        with np.load(out / f"flame_param/{step:05d}.npz") as stored:
            found = dict(stored)
        jaw = matrix_from_rotation_vector(found["jaw_pose"][0])
        assert np.allclose(jaw, matrix_from_rotation_6d(track.flame.jaw[step]), atol=1e-6)
        for k in (0, 1):
            eye = matrix_from_rotation_vector(found["eyes_pose"][0, 3 * k : 3 * k + 3])
            rows = track.flame.eyes[step, 6 * k : 6 * k + 6]
            assert np.allclose(eye, matrix_from_rotation_6d(rows), atol=1e-6)
        assert np.allclose(found["expr"][0], track.flame.expression[step])
        assert not found["static_offset"].any()
        assert all(a.dtype == np.float32 for a in found.values())


def test_splits_and_numbers(exported: Callable[[str], tuple[Path, Written]]) -> None:
    out = exported("vhap")[0]
    train, val, test = (
        json.loads((out / f"transforms_{s}.json").read_text()) for s in ("train", "val", "test")
    )
    assert [len(s["frames"]) for s in (train, val, test)] == [7, 0, 3]
    steps = [f["timestep_index"] for f in (*train["frames"], *test["frames"])]
    assert steps == list(range(10))
    assert train["timestep_indices"] == steps
    assert max(train["camera_indices"]) == 0
    assert "flame2020" in (out / "NOTES.txt").read_text()


def test_mattes_put_the_person_on_white(make_track: MakeTrack, tmp_path: Path) -> None:
    folder, truth = make_track(**SPEC)
    track = read(folder)
    write_parsing(tmp_path / "parsing", truth, "gaussiantalker", "source")
    matte = tmp_path / "matte"
    matte.mkdir()
    for path in (tmp_path / "parsing").iterdir():
        labels = cv2.imread(str(path))
        person = np.any(labels != 255, axis=2)
        cv2.imwrite(str(matte / path.name), person.astype(np.uint8) * 255)
    written = write("gaussianavatars", track, tmp_path / "out", flavour="vhap", matte=matte,
                    matte_names="image")  # fmt: skip
    assert "matte-missing" not in [f.check for f in written.findings]
    image = read_image(tmp_path / "out/images/00004_00.png")
    mask = read_image(tmp_path / "out/fg_masks/00004_00.png")[..., 0]
    assert set(np.unique(mask)) == {0, 255}
    assert np.all(image[mask == 0] == 255)
    source = track.source_frames.read(4)  # type: ignore[union-attr]
    assert np.array_equal(image[mask == 255], source[mask == 255])
    with pytest.raises(MissingInputError, match="the matte of a frame"):
        write("gaussianavatars", track, tmp_path / "other", matte=matte, matte_names="frame")
    with pytest.raises(MissingInputError, match="what --matte names"):
        write("gaussianavatars", track, tmp_path / "other", matte=tmp_path / "nothing")


def test_gaussianavatars_refuses_tracks_without_flame(
    off_centre: tuple[Track, Any], tmp_path: Path
) -> None:
    track = off_centre[0]
    bare = replace(track, flame=replace(track.flame, expression=None))
    with pytest.raises(TargetError, match="FLAME shape and expression"):
        write("gaussianavatars", bare, tmp_path / "out")
    with pytest.raises(TargetError, match="crops are square"):
        write("gaussianavatars", track, tmp_path / "out", flavour="vhap", size="64x80")
    assert list(tmp_path.iterdir()) == []


def test_vhap_holds_unequal_focal_lengths(off_centre: tuple[Track, Any], tmp_path: Path) -> None:
    track = off_centre[0]
    k = track.intrinsics
    squeezed = replace(track, intrinsics=Intrinsics(k.fx, 1.2 * k.fy, k.cx, k.cy, k.size))
    written = write("gaussianavatars", squeezed, tmp_path / "out", flavour="vhap")
    assert reprojection(written) <= 0.02
    assert read_size(tmp_path / "out/images/00000_00.png") == track.source_frames.size  # type: ignore[union-attr]


# --- flame_params ---------------------------------------------------------------------------------


def test_flame_params_by_hand(
    exported: Callable[[str], tuple[Path, Written]], off_centre: tuple[Track, Any]
) -> None:
    """Against the truth of the synthetic track, by the formulas of the spec."""
    track, truth = off_centre
    content = json.loads((exported("splattingavatar")[0] / "flame_params.json").read_text())
    S = np.diag([1.0, -1.0, -1.0])
    width = truth.crop_shape[1]
    assert content["intrinsics"][0] == pytest.approx(-truth.K_crop[0, 0] / width)
    assert content["intrinsics"][1] == pytest.approx(truth.K_crop[1, 1] / width)
    assert content["intrinsics"][2] == pytest.approx(truth.K_crop[0, 2] / width)
    assert len(content["shape_params"]) == 100
    for i, frame in enumerate(content["frames"]):
        assert frame["file_path"] == f"./image/{i}"
        W = np.array(frame["world_mat"])
        assert np.allclose(W[:, :3], S @ truth.R[i], atol=1e-6)
        assert np.allclose(W[:, 3], 4 * S @ truth.t[i], atol=1e-6)
        assert len(frame["pose"]) == 15
        jaw = matrix_from_rotation_vector(np.array(frame["pose"][6:9]))
        assert np.allclose(jaw, matrix_from_rotation_6d(track.flame.jaw[i]), atol=1e-6)  # type: ignore[index]
        points = np.array(frame["flame_keypoints"])
        low, high = points.min(axis=0), points.max(axis=0)
        assert np.allclose(frame["bbox"], [*low, *high])
    point = json.loads((exported("pointavatar")[0] / "flame_params.json").read_text())
    W = np.array(point["frames"][0]["world_mat"])
    assert np.allclose(W[:, :3], S @ truth.R[0].T, atol=1e-6)
    imavatar = json.loads((exported("imavatar")[0] / "flame_params.json").read_text())
    shift = (content["intrinsics"][2] - imavatar["intrinsics"][2]) * 128
    assert shift == pytest.approx(0.5)


def test_crops_of_the_trackers_own_size_are_its_own_pixels(
    exported: Callable[[str], tuple[Path, Written]], off_centre: tuple[Track, Any]
) -> None:
    image = read_image(exported("pointavatar")[0] / "image/4.png")
    assert np.array_equal(image, off_centre[0].crop_frames.read(4))  # type: ignore[union-attr]


def test_flame_params_says_what_is_cut_and_where_it_must_not_lie(
    off_centre: tuple[Track, Any], tmp_path: Path
) -> None:
    written = write("flame_params", off_centre[0], tmp_path / "images" / "out")
    said = {f.check for f in written.findings}
    assert {"flame-cut", "eyelids-lost", "matte-missing", "frames-few", "path-image"} <= said
    with pytest.raises(TargetError, match="square images for pointavatar"):
        write("flame_params", off_centre[0], tmp_path / "x", flavour="pointavatar", space="source")
    with pytest.raises(MissingInputError, match="landmarks"):
        write("flame_params", replace(off_centre[0], landmarks=None), tmp_path / "x")


def test_a_K_per_frame_goes_onto_a_canvas(off_centre: tuple[Track, Any], tmp_path: Path) -> None:
    track = off_centre[0]
    k, n = track.intrinsics, len(track)
    f = k.fx * np.linspace(1, 1.05, n)
    varying = replace(track, intrinsics=Intrinsics(f, f, np.full(n, k.cx), k.cy, k.size),
                      crop_frames=None)  # fmt: skip
    written = write("flame_params", varying, tmp_path / "out")
    assert "canvas-chosen" in {f.check for f in written.findings}
    assert reprojection(written) <= 0.02


# --- nerfstudio and colmap ------------------------------------------------------------------------


def _varying(track: Track) -> Track:
    k, n = track.intrinsics, len(track)
    f = k.fx * np.linspace(1, 1.05, n)
    return replace(
        track, intrinsics=Intrinsics(f, 1.1 * f, np.full(n, k.cx), k.cy, k.size), crop_frames=None
    )


@pytest.mark.parametrize("name", ["nerfstudio", "colmap"])
def test_every_frame_may_have_its_own_K_and_unequal_focal_lengths(
    name: str, off_centre: tuple[Track, Any], tmp_path: Path
) -> None:
    written = write(name, _varying(off_centre[0]), tmp_path / "out")
    assert reprojection(written) <= 0.02
    if name == "colmap":
        assert len(read_text(tmp_path / "out/sparse/0").cameras) == len(off_centre[0])
    else:
        content = json.loads((tmp_path / "out/transforms.json").read_text())
        assert "fl_x" not in content
        assert len({f["fl_x"] for f in content["frames"]}) == len(off_centre[0])


@pytest.mark.parametrize("name", ["nerfstudio", "colmap"])
def test_masks_and_points(name: str, make_track: MakeTrack, tmp_path: Path) -> None:
    folder, truth = make_track(**SPEC)
    track = read(folder)
    matte = tmp_path / "matte"
    matte.mkdir()
    for i in truth.frame_ids:
        picture = np.zeros(truth.crop_shape, np.uint8)
        picture[50:200, 60:180] = 255
        cv2.imwrite(str(matte / f"{i:05d}.png"), picture)
    write(name, track, tmp_path / "out", matte=matte, matte_names="frame")
    mask = "masks/00004.png" if name == "nerfstudio" else "masks/00004.jpg.png"
    seen = read_image(tmp_path / "out" / mask)[..., 0] > 128
    corners = truth.crop_from_source @ np.array([[0, 0, 1], [1, 1, 1.0]]).T
    scale = corners[0, 1] - corners[0, 0]
    assert seen.sum() == pytest.approx(150 * 120 / scale**2, rel=0.02)
    mean = track.meshes.mean  # type: ignore[union-attr]
    if name == "nerfstudio":
        import trimesh

        cloud: Any = trimesh.load(tmp_path / "out" / "head.ply")
        assert np.allclose(cloud.vertices, mean)
        assert cloud.colors.shape[0] == len(mean)
    else:
        assert np.allclose(read_text(tmp_path / "out/sparse/0").points, mean)


def test_pycolmap_reads_both_models_and_agrees(
    exported: Callable[[str], tuple[Path, Written]], off_centre: tuple[Track, Any], tmp_path: Path
) -> None:
    pycolmap = pytest.importorskip("pycolmap")
    out, truth = exported("colmap")[0], off_centre[1]
    for suffix in ("txt", "bin"):
        only = tmp_path / suffix
        only.mkdir()
        for path in (out / "sparse/0").glob(f"*.{suffix}"):
            shutil.copyfile(path, only / path.name)
        model = pycolmap.Reconstruction(only)
        assert len(model.images) == len(truth.frame_ids)
        for i, frame_id in enumerate(truth.frame_ids):
            image = model.images[i + 1]
            assert image.name == f"{frame_id:05d}.jpg"
            points = truth.vertices[i][::50]
            seen = np.array([image.project_point(p) for p in points])
            assert np.abs(seen - truth.project(i, points, "source")).max() < 0.001


@given(strategies.poses(3))
def test_quaternions_are_rotations(pose: Any) -> None:
    found = quaternions_from_matrices(pose.R)
    assert np.allclose(np.linalg.norm(found, axis=1), 1)
    assert np.all(found[:, 0] >= -1e-12)
    for q, R in zip(found, pose.R, strict=True):
        assert np.allclose(matrix_from_quaternion(q), R, atol=1e-9)


def test_the_principal_point_that_3dgs_ignores_is_said(
    exported: Callable[[str], tuple[Path, Written]], off_centre: tuple[Track, Any], tmp_path: Path
) -> None:
    said = {f.check for f in exported("colmap")[1].findings}
    assert "principal-point" in said
    central = write("colmap", off_centre[0], tmp_path / "out", space="window")
    assert "principal-point" not in {f.check for f in central.findings}
    with pytest.raises(TargetError, match="--space crop with it"):
        write("colmap", off_centre[0], tmp_path / "x", space="source", size=128)


def test_a_binary_model_that_differs_from_the_text_is_seen(
    exported: Callable[[str], tuple[Path, Written]], tmp_path: Path
) -> None:
    shutil.copytree(exported("colmap")[0], tmp_path / "out")
    path = tmp_path / "out/sparse/0/images.bin"
    data = bytearray(path.read_bytes())
    data[20] ^= 1
    path.write_bytes(data)
    reseal(tmp_path / "out")
    (found,) = errors("colmap", tmp_path / "out")
    assert "what the text file says" in found.message
