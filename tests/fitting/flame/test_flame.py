"""FLAME models and embeddings of the user's: read, posed, and fitted with."""

from __future__ import annotations

import pickle
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from converter.errors import ConventionError, FormatError, MissingInputError, UncropError
from converter.geometry import Intrinsics, Pose, rotation_6d_from_matrix
from converter.geometry.pixels import Floats, Size
from converter.track import Flame, Track
from fitting.flame import FlameMeshes, FlameModel, read_embedding, read_flame
from fitting.pose.embedding import turned_deg
from fitting.pose.refit import refit_track
from fixtures.synthetic.flame import (
    embeddings,
    flame2023,
    flame_arrays,
    generic_model,
    npy_of_dict,
    python2_pickle,
)

N = 24


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> FlameModel:
    path = tmp_path_factory.mktemp("flame") / "generic_model.pkl"
    path.write_bytes(generic_model())
    return read_flame(path)


# ------------------------------------------------------------------ models
def test_every_file_gives_the_same_model(model: FlameModel, tmp_path: Path) -> None:
    (tmp_path / "flame2023.pkl").write_bytes(flame2023())
    arrays = {k: v for k, v in flame_arrays().items() if isinstance(v, np.ndarray)}
    np.savez(tmp_path / "flame.npz", **arrays)
    for name in ("flame2023.pkl", "flame.npz"):
        other = read_flame(tmp_path / name)
        for field in FlameModel.__slots__:
            np.testing.assert_array_equal(getattr(other, field), getattr(model, field))
    assert model.parents.tolist() == [-1, 0, 1, 1, 1]


def naive(model: FlameModel, shape: Floats, expression: Floats, turns: Floats) -> Floats:
    """Blend shapes and skinning in loops over vertices and joints, by homogeneous matrices."""
    shaped = model.template.copy()
    for v in range(len(shaped)):
        for k, value in enumerate(shape):
            shaped[v] += model.shape_directions[v, :, k] * value
        for k, value in enumerate(expression):
            shaped[v] += model.shape_directions[v, :, 300 + k] * value
    joints = model.joint_regressor @ shaped
    world: list[Floats] = []
    for j in range(5):
        parent = int(model.parents[j])
        local = np.eye(4)
        local[:3, :3] = turns[j]
        local[:3, 3] = joints[j] - (joints[parent] if parent >= 0 else 0)
        world.append(local if parent < 0 else world[parent] @ local)
    out = np.zeros_like(shaped)
    for v in range(len(shaped)):
        corrected = shaped[v].copy()
        for j in range(1, 5):
            for a in range(3):
                for b in range(3):
                    corrected += model.pose_directions[v, :, 9 * (j - 1) + 3 * a + b] * (
                        turns[j, a, b] - (a == b)
                    )
        for j in range(5):
            rest = world[j] @ np.append(corrected - joints[j], 1.0)
            out[v] += model.weights[v, j] * rest[:3]
    return out


def test_posing_is_what_loops_give(model: FlameModel) -> None:
    rng = np.random.default_rng(0)
    shape, expression = rng.normal(size=4), rng.normal(size=3)
    turns = Rotation.from_rotvec(rng.normal(0, 0.4, (5, 3))).as_matrix()
    ours = model.posed(model.shaped(shape, expression), turns)
    np.testing.assert_allclose(ours, naive(model, shape, expression, turns), atol=1e-12)
    rest = model.posed(model.shaped(None), np.tile(np.eye(3), (5, 1, 1)))
    np.testing.assert_allclose(rest, model.template, atol=1e-12)


def coefficients() -> Flame:
    rng = np.random.default_rng(3)
    jaw = Rotation.from_rotvec(np.outer(0.1 + 0.1 * np.sin(np.arange(N)), [1, 0, 0])).as_matrix()
    eyes = Rotation.from_rotvec(rng.normal(0, 0.05, (2 * N, 3))).as_matrix()
    return Flame(
        shape=rng.normal(size=300),
        expression=rng.normal(size=(N, 100)),
        jaw=rotation_6d_from_matrix(jaw),
        eyes=rotation_6d_from_matrix(eyes).reshape(N, 12),
    )


def test_meshes_of_a_track(model: FlameModel) -> None:
    flame = coefficients()
    meshes = FlameMeshes(model, flame, N)
    assert flame.shape is not None
    assert flame.expression is not None
    assert flame.jaw is not None
    turns = np.tile(np.eye(3), (5, 1, 1))
    turns[2, :2] = flame.jaw[5].reshape(2, 3)
    turns[2, 2] = np.cross(turns[2, 0], turns[2, 1])
    assert flame.eyes is not None
    for joint, rows in ((3, flame.eyes[5, :6]), (4, flame.eyes[5, 6:])):
        turns[joint, :2] = rows.reshape(2, 3)
        turns[joint, 2] = np.cross(turns[joint, 0], turns[joint, 1])
    expected = model.posed(model.shaped(flame.shape, flame.expression[5]), turns)
    np.testing.assert_allclose(meshes.vertices(5), expected, atol=1e-6)
    every = np.stack([meshes.vertices(i) for i in range(N)])
    np.testing.assert_allclose(meshes.mean, every.mean(axis=0), atol=1e-6)
    bare = FlameMeshes(model, Flame(shape=np.zeros(300)), 2)
    np.testing.assert_allclose(bare.vertices(1), model.template, atol=1e-7)
    with pytest.raises(MissingInputError, match="coefficients of shape"):
        FlameMeshes(model, Flame(), 2)
    with pytest.raises(ConventionError, match="at most 300"):
        FlameMeshes(model, Flame(shape=np.zeros(301)), 2)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"v_template": None}, "no v_template"),
        ({"shapedirs": np.zeros((216, 3, 10))}, r"shapedirs: expected shape \(216, 3, 400\)"),
        ({"f": np.array([[0, 1, 999]], np.uint32)}, "vertices from 0 to 215"),
        ({"f": np.zeros((0, 3), np.uint32)}, "f: expected shape"),
        ({"kintree_table": np.array([[0, 0, 3, 1, 1], range(5)])}, "hang on earlier ones"),
        ({"weights": np.full((216, 5), np.nan)}, "weights: expected finite"),
        ({"J_regressor": np.zeros((24, 216))}, "Is it SMPL's"),
    ],
)
def test_other_models_are_refused(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    path = tmp_path / "model.pkl"
    path.write_bytes(pickle.dumps({**flame_arrays(), **change}))
    with pytest.raises((FormatError, ConventionError), match=message):
        read_flame(path)


# ------------------------------------------------------------------ embeddings
def files(folder: Path) -> dict[str, Path]:
    """Every layout of an embedding."""
    e = embeddings()
    full = {
        "static_lmk_faces_idx": e["static_index"],
        "static_lmk_bary_coords": e["static_weights"],
        "dynamic_lmk_faces_idx": e["dynamic_index"],
        "dynamic_lmk_bary_coords": e["dynamic_weights"],
        "full_lmk_faces_idx": np.concatenate([e["dynamic_index"][0], e["static_index"]])[None],
        "full_lmk_bary_coords": np.concatenate([e["dynamic_weights"][0], e["static_weights"]])[
            None
        ],
    }
    static = {"lmk_face_idx": e["static_index"], "lmk_b_coords": e["static_weights"]}
    dynamic = {"lmk_face_idx": e["dynamic_index"], "lmk_b_coords": e["dynamic_weights"]}
    media = {"lmk_face_idx": e["mediapipe_index"], "lmk_b_coords": e["mediapipe_weights"],
             "landmark_indices": e["mediapipe_landmarks"]}  # fmt: skip
    data = {
        "static.pkl": python2_pickle(static), "dynamic.npy": npy_of_dict(dynamic),
        "landmark_embedding.npy": npy_of_dict(full),
    }  # fmt: skip
    for name, content in data.items():
        (folder / name).write_bytes(content)
    np.savez(folder / "mediapipe.npz", **media)
    np.savez(folder / "full.npz", full_lmk_faces_idx=full["full_lmk_faces_idx"],
             full_lmk_bary_coords=full["full_lmk_bary_coords"])  # fmt: skip
    return {p.name: p for p in folder.iterdir()}


def test_layouts_of_embeddings(model: FlameModel, tmp_path: Path) -> None:
    found = files(tmp_path)
    e = embeddings()
    triangles = model.template[model.faces[e["static_index"]]]
    face = (triangles * e["static_weights"][..., None]).sum(axis=1)
    static = read_embedding([found["static.pkl"]], model.faces)
    assert static.landmarks.tolist() == list(range(17, 68))
    np.testing.assert_allclose(static.points(model.template), face, atol=1e-12)

    for paths in (["static.pkl", "dynamic.npy"], ["landmark_embedding.npy"]):
        both = read_embedding([found[p] for p in paths], model.faces)
        assert both.columns.tolist() == list(range(68))
        for yaw, row in ((0.0, 0), (-12.4, 12), (-80.0, 39), (1.0, 40), (39.0, 78), (60.0, 78)):
            corners = model.template[model.faces[e["dynamic_index"][row]]]
            jaw = (corners * e["dynamic_weights"][row][..., None]).sum(axis=1)
            points = both.points(model.template, yaw)
            np.testing.assert_allclose(points[:17], jaw, atol=1e-12)
            np.testing.assert_allclose(points[17:], face, atol=1e-12)

    full = read_embedding([found["full.npz"]], model.faces)
    assert full.columns.tolist() == list(range(68))
    assert full.contour is None
    media = read_embedding([found["mediapipe.npz"]], model.faces)
    assert media.landmarks.tolist() == sorted(e["mediapipe_landmarks"].tolist())
    at = media.landmarks.tolist().index(int(e["mediapipe_landmarks"][7]))
    corners = model.template[model.faces[e["mediapipe_index"][7]]]
    expected = (corners * e["mediapipe_weights"][7][:, None]).sum(axis=0)
    np.testing.assert_allclose(media.points(model.template)[at], expected, atol=1e-12)


def test_yaw_is_that_of_the_head() -> None:
    """A head turned about +y shows its left cheek's side to the right of the image."""
    R = np.diag([1.0, -1, -1]) @ Rotation.from_euler("y", 25, degrees=True).as_matrix()
    assert turned_deg(R[None])[0] == pytest.approx(25)
    assert (R @ [0, 0, 1])[0] > 0  # the nose points to the right


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"x": np.zeros(3)}, "a landmark embedding"),
        ({"lmk_face_idx": np.arange(51), "lmk_b_coords": np.full((51, 3), 0.5)}, "sum to 1"),
        ({"lmk_face_idx": np.arange(51), "lmk_b_coords": np.ones((50, 3)) / 3}, "weights of shape"),
        ({"lmk_face_idx": np.full(51, 9999), "lmk_b_coords": np.ones((51, 3)) / 3}, "topology"),
        ({"lmk_face_idx": np.full(51, -1), "lmk_b_coords": np.ones((51, 3)) / 3}, "topology"),
        ({"lmk_face_idx": np.arange(30), "lmk_b_coords": np.ones((30, 3)) / 3}, "51 or 68"),
        ({"lmk_face_idx": np.zeros((79, 17), int), "lmk_b_coords": np.ones((79, 17, 3)) / 3},
         "a dynamic one alone"),
        ({"lmk_face_idx": np.zeros((79, 16), int), "lmk_b_coords": np.ones((79, 16, 3)) / 3},
         r"shape \(79, 17\)"),
        ({"lmk_face_idx": "x", "lmk_b_coords": np.ones((51, 3)) / 3}, "arrays lmk_face_idx"),
        ({"lmk_face_idx": np.arange(3), "lmk_b_coords": np.ones((3, 3)) / 3,
          "landmark_indices": np.array([1, 1, 2])}, "3 different numbers"),
    ],
)  # fmt: skip
def test_embeddings_that_cannot_be(
    model: FlameModel, tmp_path: Path, content: dict[str, Any], message: str
) -> None:
    path = tmp_path / "embedding.pkl"
    path.write_bytes(pickle.dumps(content))
    with pytest.raises(UncropError, match=message):
        read_embedding([path], model.faces)


def test_two_of_a_kind(model: FlameModel, tmp_path: Path) -> None:
    found = files(tmp_path)
    with pytest.raises(ConventionError, match="two of a kind"):
        read_embedding([found["static.pkl"], found["full.npz"]], model.faces)


# ------------------------------------------------------------------ a track without meshes
def flame_track(model: FlameModel, tmp_path: Path) -> tuple[Track, Any]:
    """Landmarks by FLAME's own rule: jaw points by the head's yaw; no meshes."""
    embedding = read_embedding([files(tmp_path)["landmark_embedding.npy"]], model.faces)
    meshes = FlameMeshes(model, coefficients(), N)
    yaw = 45 * np.sin(np.arange(N) / 4)
    turn = Rotation.from_euler("yx", np.stack([yaw, 5 * np.cos(np.arange(N))], 1), degrees=True)
    R = np.diag([1.0, -1, -1]) @ turn.as_matrix()
    w2c = Pose(R, np.tile([0.01, 0.0, 1.2], (N, 1)))
    K = Intrinsics(2100.0, 2100.0, 250.0, 262.0, Size(512, 512))
    points = np.stack(
        [embedding.points(meshes.vertices(i).astype(float), float(yaw[i])) for i in range(N)]
    )
    noise = np.random.default_rng(0).normal(0, 0.3, (N, 68, 2))
    track = Track(
        name="flame", frame_ids=np.arange(N), w2c=w2c, intrinsics=K, image_space="crop", crop=None,
        flame=coefficients(), landmarks=K.project(w2c(points)) + noise,
    )  # fmt: skip
    return replace(track, meshes=meshes), embedding


def test_a_track_is_fitted_by_coefficients_alone(model: FlameModel, tmp_path: Path) -> None:
    track, embedding = flame_track(model, tmp_path)
    fit = refit_track(track, embedding=embedding)
    assert np.sqrt(np.mean(fit.after_px**2)) == pytest.approx(0.3 * 2**0.5, rel=0.15)
    assert fit.turned_deg.max() < 0.5
    assert "68 landmarks by the given embedding" in fit.pairs.what


def test_poses_that_say_nothing_are_fitted_anew(model: FlameModel, tmp_path: Path) -> None:
    track, embedding = flame_track(model, tmp_path)
    R = np.swapaxes(track.w2c.R, 1, 2).copy()
    broken = replace(track, w2c=Pose(R, -track.w2c.t[:, [1, 0, 2]] * [1, 1, -0.5]))
    fit = refit_track(broken, embedding=embedding)
    assert [f.check for f in fit.findings] == ["poses-replaced"]
    assert np.sqrt(np.mean(fit.after_px**2)) == pytest.approx(0.3 * 2**0.5, rel=0.2)
    np.testing.assert_allclose(fit.track.w2c.R, track.w2c.R, atol=0.02)
    off = replace(embedding, contour=None, weights=np.roll(embedding.weights, 1, axis=0),
                  corners=np.roll(embedding.corners, 9, axis=0))  # fmt: skip
    with pytest.raises(ConventionError, match="for one reading of K"):
        refit_track(broken, embedding=off)
