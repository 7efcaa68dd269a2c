"""FLAME's model file, and the meshes that a track's coefficients make of it.

FLAME (https://flame.is.tue.mpg.de, Li et al. 2017): a template, shape and expression directions,
pose correctives and linear blend skinning over five joints (root, neck, jaw, left eye, right eye).
Read from the user's own generic_model.pkl, flame2023.pkl or a .npz of the same names; nothing in a
pickle is run (`converter.media.pickle_model`).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from converter.errors import ConventionError, FormatError, MissingInputError
from converter.geometry import matrix_from_rotation_6d
from converter.geometry.pixels import Floats
from converter.media.arrays import read_npz
from converter.media.pickle_model import MODEL_LIMITS, read_model_pickle
from converter.track import Flame
from fitting.pose.problem import Ints

N_SHAPE, N_EXPRESSION = 300, 100
N_JOINTS = 5
ROOT, NECK, JAW, LEFT_EYE, RIGHT_EYE = range(N_JOINTS)

_NAMES = (
    "v_template", "shapedirs", "posedirs", "J_regressor", "kintree_table", "weights", "f",
)  # fmt: skip
_REMEDY = "Give FLAME's generic_model.pkl or flame2023.pkl, or a .npz with its arrays."


@dataclass(frozen=True, slots=True, eq=False)
class FlameModel:
    """The arrays of a FLAME model; V vertices, F faces, J = 5 joints.

    Attributes
    ----------
    template
        (V, 3) metres: x to the subject's left, y up, z out of the face.
    shape_directions
        (V, 3, 400): 300 of identity, then 100 of expression.
    pose_directions
        (V, 3, 36), by the four joints' rotations less identity, row by row.
    joint_regressor
        (5, V).
    parents
        (5,) joint that each one hangs on; -1 for the root.
    weights
        (V, 5) skinning.
    faces
        (F, 3).

    """

    template: Floats
    shape_directions: Floats
    pose_directions: Floats
    joint_regressor: Floats
    parents: Ints
    weights: Floats
    faces: NDArray[np.int32]

    def shaped(self, shape: Floats | None, expression: Floats | None = None) -> Floats:
        """Vertices (V, 3) before posing; coefficients (<= 300,) and (<= 100,), None: zeros."""
        vertices = self.template
        for coefficients, first in ((shape, 0), (expression, N_SHAPE)):
            if coefficients is not None:
                used = self.shape_directions[..., first : first + len(coefficients)]
                vertices = vertices + used @ coefficients
        return vertices

    def posed(self, shaped: Floats, rotations: Floats) -> Floats:
        """Vertices (V, 3) posed by joint rotations (5, 3, 3): pose correctives, then skinning."""
        joints = self.joint_regressor @ shaped
        feature = (rotations[1:] - np.eye(3)).ravel()
        corrected = shaped + self.pose_directions @ feature
        turned, moved = np.zeros((N_JOINTS, 3, 3)), np.zeros((N_JOINTS, 3))
        for j, parent in enumerate(self.parents.tolist()):
            if parent < 0:
                turned[j], moved[j] = rotations[j], joints[j]
                continue
            turned[j] = turned[parent] @ rotations[j]
            moved[j] = turned[parent] @ (joints[j] - joints[parent]) + moved[parent]
        offsets = moved - np.einsum("jab,jb->ja", turned, joints)
        R = np.einsum("vj,jab->vab", self.weights, turned)
        posed: Floats = np.einsum("vab,vb->va", R, corrected) + self.weights @ offsets
        return posed


def read_flame(path: Path | str) -> FlameModel:
    """Read a FLAME model that the user owns.

    Raises
    ------
    MissingInputError, UnsafeFileError, FormatError
        If it is absent, asks for code, is damaged, or lacks an array.
    ConventionError
        If the arrays' shapes are not FLAME's.

    """
    content = _content(Path(path))
    missing = [n for n in _NAMES if not isinstance(content.get(n), np.ndarray)]
    if missing:
        raise FormatError(path, "the arrays of a FLAME model", f"no {', '.join(missing)}", _REMEDY)
    arrays = {name: np.asarray(content[name]) for name in _NAMES}
    n = len(arrays["v_template"])
    _require_shapes(path, arrays, n)
    for name, array in arrays.items():
        if not np.isfinite(array).all():
            raise FormatError(f"{path}: {name}", "finite numbers", "NaN or infinity", _REMEDY)
    faces = arrays["f"].astype(np.int64)
    if faces.min() < 0 or faces.max() >= n:
        raise FormatError(f"{path}: f", f"vertices from 0 to {n - 1}", f"{faces.max()}", _REMEDY)
    return FlameModel(
        template=arrays["v_template"].astype(np.float64),
        shape_directions=arrays["shapedirs"].astype(np.float64),
        pose_directions=arrays["posedirs"].astype(np.float64),
        joint_regressor=arrays["J_regressor"].astype(np.float64),
        parents=_parents(path, arrays["kintree_table"]),
        weights=arrays["weights"].astype(np.float64),
        faces=faces.astype(np.int32),
    )


def _content(path: Path) -> dict[str, Any]:
    if path.suffix.lower() == ".npz":
        return dict(read_npz(path, MODEL_LIMITS, only=_NAMES))
    return read_model_pickle(path, MODEL_LIMITS)


def _require_shapes(path: Path | str, arrays: dict[str, NDArray[Any]], n: int) -> None:
    expected = {
        "v_template": (n, 3),
        "shapedirs": (n, 3, N_SHAPE + N_EXPRESSION),
        "posedirs": (n, 3, 9 * (N_JOINTS - 1)),
        "J_regressor": (N_JOINTS, n),
        "kintree_table": (2, N_JOINTS),
        "weights": (n, N_JOINTS),
        "f": (len(arrays["f"]) if arrays["f"].ndim else 0, 3),
    }
    for name, shape in expected.items():
        if arrays[name].shape != shape or 0 in shape:
            hint = " Is it SMPL's, or a model with fewer components?" if name != "f" else ""
            raise ConventionError(
                f"{path}: {name}", f"shape {shape}", f"{arrays[name].shape}", _REMEDY + hint
            )


def _parents(path: Path | str, table: NDArray[Any]) -> Ints:
    parents = table[0].astype(np.int64)
    parents[0] = -1  # 4294967295 in the file
    if np.any(parents[1:] < 0) or np.any(parents[1:] >= np.arange(1, N_JOINTS)):
        raise ConventionError(
            f"{path}: kintree_table", "joints that hang on earlier ones", f"{parents.tolist()}"
        )
    return np.asarray(parents)


@dataclass(slots=True, eq=False)
class FlameMeshes:
    """Meshes of a track's FLAME coefficients, made when asked for (`converter.track.Meshes`).

    metrical-tracker's own meshes: global and neck rotation are none (the camera moves), jaw and
    eyes are posed. Its eyelid shapes are no part of FLAME; lids are left as they are.
    """

    model: FlameModel
    flame: Flame
    n_frames: int
    _shaped: Floats = field(init=False)
    _mean: NDArray[np.float32] | None = field(init=False, default=None)

    def __post_init__(self) -> None:
        """Raise MissingInputError or ConventionError if the coefficients do not fit."""
        shape, expression = self.flame.shape, self.flame.expression
        if shape is None:
            raise MissingInputError("FLAME", "coefficients of shape in the track", "none")
        for name, found, most in (
            ("shape", shape.shape[-1:], N_SHAPE),
            ("expression", () if expression is None else expression.shape[-1:], N_EXPRESSION),
        ):
            if found and found[0] > most:
                raise ConventionError(f"FLAME {name}", f"at most {most} values", f"{found[0]}")
        self._shaped = self.model.shaped(shape)

    def __len__(self) -> int:
        return self.n_frames

    @property
    def faces(self) -> NDArray[np.int32]:
        """Triangles, shape (F, 3)."""
        return self.model.faces

    def vertices(self, index: int) -> NDArray[np.float32]:
        """Vertices of track frame ``index``, shape (V, 3), world space, metres."""
        shaped = self._shaped
        if self.flame.expression is not None:
            coefficients = self.flame.expression[index]
            used = self.model.shape_directions[..., N_SHAPE : N_SHAPE + len(coefficients)]
            shaped = shaped + used @ coefficients
        return self.model.posed(shaped, self._rotations(index)).astype(np.float32)

    @property
    def mean(self) -> NDArray[np.float32]:
        """Mean of the vertices over all frames, shape (V, 3), metres."""
        if self._mean is None:
            total = np.zeros_like(self._shaped)
            for index in range(self.n_frames):
                total += self.vertices(index)
            self._mean = (total / self.n_frames).astype(np.float32)
        return self._mean

    def _rotations(self, index: int) -> Floats:
        rotations = np.tile(np.eye(3), (N_JOINTS, 1, 1))
        if self.flame.jaw is not None:
            rotations[JAW] = matrix_from_rotation_6d(self.flame.jaw[index])
        if self.flame.eyes is not None:
            eyes = self.flame.eyes[index].reshape(2, 6)
            rotations[[LEFT_EYE, RIGHT_EYE]] = matrix_from_rotation_6d(eyes)
        return rotations
