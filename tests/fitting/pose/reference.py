"""The reference's inputs and answers of ../shared/data/rigid-fit-reference, as our types."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from converter.geometry import (
    OPENCV_FROM_OPENGL,
    Intrinsics,
    Pose,
    Size,
    matrix_from_rotation_vector,
)
from converter.geometry.pixels import Floats
from fitting.pose import IBUG_68, CameraSmoothing, Ears
from fitting.pose.problem import Problem, build_problem
from fitting.pose.state import State
from fitting.pose.terms import Coupling, camera_coupling

SIDE = 256
CONFIGURATIONS = [
    *(("n08_fov20_px1", f"e{e}s{s}f{f}") for s in (0, 1) for e in (0, 1) for f in (0, 1)),
    *(("n64_fov20_px1", key) for key in ("e0s0f0", "e1s0f0", "e0s1f0", "e1s1f1")),
]


@dataclass(frozen=True)
class Reference:
    """One configuration: how to fit it, and what the real fit made of it."""

    points: Floats
    landmarks: Floats
    intrinsics: Intrinsics
    ears: Ears | None
    smoothing: CameraSmoothing | None
    free: bool
    answer: State
    trace: Floats
    real_loss: float
    best_loss: float
    tail_std: float
    problem: Problem
    coupling: Coupling | None

    def options(self) -> dict[str, Any]:
        """Arguments of `fit_rigid` beyond the first three."""
        return {
            "groups": IBUG_68,
            "ears": self.ears,
            "smoothing": self.smoothing,
            "fov": "free" if self.free else "fixed",
            "focal_prior": None,
            "allow_ill_posed": True,
        }


def _px(ndc: Floats) -> Floats:
    return (ndc.astype(np.float64) / 2 + 0.5) * SIDE


def read_reference(shared_data: Path, case: str, key: str) -> Reference:
    """Read one configuration."""
    folder = shared_data / "rigid-fit-reference"
    with np.load(folder / f"{case}.npz", allow_pickle=False) as stored:
        z = {name: stored[name] for name in stored.files}
    meta = json.loads(str(z["meta"]))[key]
    best = json.loads((folder / "best.json").read_text("utf-8"))[f"{case} {key}"]
    n = len(z["gt"])
    free = key[5] == "1"
    f = SIDE / 2 / np.tan(np.radians(np.full(n, 20.0) if free else z["true_fov"]) / 2)
    K = Intrinsics(f, f, SIDE / 2, SIDE / 2, Size(SIDE, SIDE))
    ears = Ears(z["le3"], z["re3"], _px(z["gt_ear"])) if key[1] == "1" else None
    smoothing = CameraSmoothing() if key[3] == "1" else None
    problem = build_problem(z["lmk3"], _px(z["gt"]), K, IBUG_68, ears=ears)
    linked = np.ones(n - 1, dtype=bool)
    return Reference(
        points=z["lmk3"],
        landmarks=_px(z["gt"]),
        intrinsics=K,
        ears=ears,
        smoothing=smoothing,
        free=free,
        answer=state_of(problem, z[f"{key}_cam"], z[f"{key}_fov"], f),
        trace=z[f"{key}_trace"].astype(np.float64),
        real_loss=meta["loss"],
        best_loss=best["best"]["loss"],
        tail_std=meta["tail_std"],
        problem=problem,
        coupling=None if smoothing is None else camera_coupling(smoothing, linked),
    )


def state_of(problem: Problem, cam: Floats, fov_deg: Floats, focal: Floats) -> State:
    """State of the reference's ``cam`` (camera-to-world, OpenGL axes) and fov."""
    cam = cam.astype(np.float64)
    c2w = Pose(matrix_from_rotation_vector(cam[:, :3]), cam[:, 3:])
    w2c = c2w.inverse().change_axes(OPENCV_FROM_OPENGL)
    log_f = np.log(SIDE / 2 / np.tan(np.radians(fov_deg.astype(np.float64)) / 2) / focal)
    return State.of(w2c, problem.centre, log_f)
