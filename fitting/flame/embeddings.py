"""Files that say where landmarks are on FLAME's mesh; the user's own, none ships.

| file | holds |
|---|---|
| flame_static_embedding.pkl | lmk_face_idx (51,), lmk_b_coords (51, 3): iBUG 17 to 67 |
| flame_dynamic_embedding.npy | lmk_face_idx (79, 17), lmk_b_coords (79, 17, 3): jaw, by yaw |
| landmark_embedding.npy (DECA, metrical-tracker) | static_, dynamic_ and full_lmk_faces_idx, ... |
| mediapipe_landmark_embedding.npz | lmk_face_idx (105,), lmk_b_coords, landmark_indices |

All of them also as .npz. Layouts: https://github.com/soubhiksanyal/FLAME_PyTorch,
https://github.com/yfeng95/DECA (decalib/models/FLAME.py),
https://github.com/Zielon/metrical-tracker (flame/FLAME.py).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from converter.errors import ConventionError, FormatError
from converter.geometry.pixels import Floats
from converter.media.arrays import read_npz
from converter.media.pickle_model import read_model_pickle
from fitting.pose.embedding import CONTOUR_ROWS, Contour, Embedding
from fitting.pose.problem import Ints

_N_FACE, _N_JAW, _N_ALL = 51, 17, 68
_SUM_LIMIT = 1e-3
_REMEDY = "Give FLAME's static, dynamic or MediaPipe landmark embedding."


def read_embedding(paths: Sequence[Path | str], faces: NDArray[np.int32]) -> Embedding:
    """Read one embedding, or a static and a dynamic one that belong together.

    Parameters
    ----------
    paths
        The files.
    faces
        (F, 3) triangles of the mesh, in the model's order; the files name them by number.

    Raises
    ------
    MissingInputError, UnsafeFileError, FormatError
        If a file is absent, asks for code, is damaged, or holds no embedding.
    ConventionError
        If faces or weights cannot be, or two files say the same thing.

    """
    static: Embedding | None = None
    contour: Contour | None = None
    for path in paths:
        own, sliding = _read(Path(path), faces)
        if (own and static) or (sliding and contour):
            raise ConventionError(path, "one static and one dynamic embedding", "two of a kind")
        static, contour = static or own, contour or sliding
    if static is None:
        raise FormatError(
            ", ".join(str(p) for p in paths), "a static embedding", "a dynamic one alone",
            "Give the static one as well.",
        )  # fmt: skip
    if contour is None:
        return static
    kept = ~np.isin(static.landmarks, contour.landmarks)
    return replace(
        static,
        landmarks=static.landmarks[kept],
        corners=static.corners[kept],
        weights=static.weights[kept],
        contour=contour,
    )


def _read(path: Path, faces: NDArray[np.int32]) -> tuple[Embedding | None, Contour | None]:
    content = read_npz(path) if path.suffix.lower() == ".npz" else read_model_pickle(path)
    static: Embedding | None = None
    contour: Contour | None = None
    if "lmk_face_idx" in content:
        index, weights = _pair(path, content, "lmk_face_idx", "lmk_b_coords")
        if index.ndim == 2 and len(index) == CONTOUR_ROWS:
            contour = _contour(path, index, weights, faces)
        else:
            static = _static(path, content, index, weights, faces)
    if "dynamic_lmk_faces_idx" in content:
        names = ("dynamic_lmk_faces_idx", "dynamic_lmk_bary_coords")
        contour = _contour(path, *_pair(path, content, *names), faces)
    for prefix in ("static", "full"):
        if static is None and f"{prefix}_lmk_faces_idx" in content:
            names = (f"{prefix}_lmk_faces_idx", f"{prefix}_lmk_bary_coords")
            static = _static(path, content, *_pair(path, content, *names), faces)
    if static is None and contour is None:
        raise FormatError(
            path, "a landmark embedding", f"{', '.join(sorted(content)[:6])}", _REMEDY
        )
    return static, contour


def _pair(path: Path, content: dict[str, Any], faces: str, weights: str) -> tuple[Any, Any]:
    found = content.get(faces), content.get(weights)
    if not all(isinstance(a, np.ndarray) and a.dtype.kind in "iuf" for a in found):
        raise FormatError(path, f"arrays {faces} and {weights}", "others", _REMEDY)
    return found


def _static(
    path: Path, content: dict[str, Any], index: Any, weights: Any, faces: NDArray[np.int32]
) -> Embedding:
    index, weights = index.reshape(-1), weights.reshape(-1, weights.shape[-1])
    corners, own = _resolved(path, index, weights, faces)
    landmarks = content.get("landmark_indices")
    if isinstance(landmarks, np.ndarray):
        named = landmarks.reshape(-1).astype(np.int64)
        if len(named) != len(index) or len(np.unique(named)) != len(named) or named.min() < 0:
            raise ConventionError(
                f"{path}: landmark_indices", f"{len(index)} different numbers", "others"
            )
        order = np.argsort(named)
        return Embedding(named[order], corners[order], own[order])
    if len(index) not in (_N_FACE, _N_ALL):
        raise ConventionError(
            path, f"{_N_FACE} or {_N_ALL} landmarks, or landmark_indices", f"{len(index)}"
        )
    first = _N_ALL - len(index)
    return Embedding(np.arange(first, _N_ALL, dtype=np.int64), corners, own)


def _contour(path: Path, index: Any, weights: Any, faces: NDArray[np.int32]) -> Contour:
    if index.shape != (CONTOUR_ROWS, _N_JAW):
        raise ConventionError(
            f"{path}: dynamic embedding", f"shape ({CONTOUR_ROWS}, {_N_JAW})", f"{index.shape}"
        )
    corners, own = _resolved(path, index, weights, faces)
    return Contour(np.arange(_N_JAW, dtype=np.int64), corners, own)


def _resolved(
    path: Path, index: Any, weights: Any, faces: NDArray[np.int32]
) -> tuple[Ints, Floats]:
    """Vertices and weights (..., 3) of faces (...,)."""
    whole = index.astype(np.int64)
    if index.size == 0 or np.any(whole != index) or whole.min() < 0 or whole.max() >= len(faces):
        raise ConventionError(
            path, f"faces from 0 to {len(faces) - 1}, those of the mesh",
            f"{index.min()} to {index.max()}" if index.size else "none",
            "It belongs to a mesh of another topology.",
        )  # fmt: skip
    own = weights.astype(np.float64)
    if own.shape != (*index.shape, 3) or not np.isfinite(own).all():
        raise ConventionError(path, f"weights of shape {(*index.shape, 3)}", f"{own.shape}")
    if np.abs(own.sum(axis=-1) - 1).max() > _SUM_LIMIT:
        raise ConventionError(path, "weights that sum to 1", f"{own.sum(axis=-1).max():g}")
    return faces.astype(np.int64)[whole], own
