"""The rigid fit: against the reference's schedule, against OpenCV, and as frames grow.

``python -m benchmarks.pose [--quick] [--markdown FILE]``
"""

from __future__ import annotations

import importlib.util
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from benchmarks.measure import Cost, Row, Table, run_child, side_by_side, times
from benchmarks.peak import peak_bytes
from converter.geometry import Intrinsics, Pose, Size, matrix_from_rotation_vector
from converter.geometry.pixels import Floats
from fitting import fit_rigid
from fitting.pose import IBUG_68, HeadSmoothing
from fixtures.synthetic.head import head

_SIZE = Size(256, 256)
_FOV_DEG = 20.0
_NOISE_PX = 1.0
_FASTER = 100  # times the reference schedule at 64 frames
_MANY = 1000  # frames at which not all of autograd's steps are run
_AUTOGRAD = "1500 Adam steps, torch autograd"
_SECONDS = 10.0  # for 5,000 frames of 468 points


@dataclass(frozen=True)
class Scene:
    """Frames with known cameras; landmarks with noise."""

    points: Floats
    landmarks: Floats
    w2c: Pose
    K: Intrinsics

    def errors(self, w2c: Pose) -> tuple[float, float]:
        """Root mean squares: rotation in degrees, depth in mm."""
        between = w2c.R @ np.swapaxes(self.w2c.R, 1, 2)
        cosine = np.clip((np.trace(between, axis1=1, axis2=2) - 1) / 2, -1, 1)
        depth = 1000 * (w2c.t - self.w2c.t)[:, 2]
        return _rms(np.degrees(np.arccos(cosine))), _rms(depth)


def make_scene(n_frames: int, points: Floats, outliers: float = 0.0) -> Scene:
    """Heads that sweep 60 degrees of yaw to either side, 1 px of noise at 256."""
    rng = np.random.default_rng(0)
    yaw = np.radians(60) * np.sin(np.linspace(0, 2 * np.pi, n_frames, endpoint=False))
    turn = matrix_from_rotation_vector(yaw[:, None] * np.array([0.0, 1.0, 0.0]))
    R = np.diag([1.0, -1.0, -1.0]) @ turn
    t = np.array([0.01, -0.008, 1.0]) - R @ points.mean(axis=0)
    f = _SIZE.width / 2 / np.tan(np.radians(_FOV_DEG) / 2)
    K = Intrinsics(f, f, _SIZE.width / 2, _SIZE.height / 2, _SIZE)
    w2c = Pose(R, t)
    landmarks = K.project(w2c(points)) + _NOISE_PX * rng.standard_normal((n_frames, len(points), 2))
    wrong = rng.random(landmarks.shape[:2]) < outliers
    landmarks[wrong] += rng.normal(0, 30, (int(wrong.sum()), 2))
    return Scene(points, landmarks, w2c, K)


def lm(s: Scene, **options: object) -> Pose:
    """Fit with the solver that people use."""
    return fit_rigid(s.points, s.landmarks, s.K, groups=IBUG_68, **options).w2c  # type: ignore[arg-type]


def adam(s: Scene) -> Pose:
    """The reference's schedule, our numpy with analytic gradients."""
    return lm(s, solver="adam")


def adam_torch(s: Scene, iterations: int = 1500) -> Pose:
    """The same schedule as the reference runs it: torch, float32, autograd."""
    import torch

    n = len(s.landmarks)
    X = torch.tensor(s.points, dtype=torch.float32).T.expand(n, 3, -1)
    seen = torch.tensor(s.landmarks / _SIZE.width * 2 - 1, dtype=torch.float32)
    rotation = torch.zeros(n, 3, requires_grad=True)
    offset = torch.zeros(n, 3, requires_grad=True)
    start = torch.tensor([0.0, 0.0, 1.0])
    optimiser = torch.optim.Adam([{"params": [offset]}, {"params": [rotation]}], 0.05,
                                 weight_decay=1e-5)  # fmt: skip
    scale = 1 / np.tan(np.radians(_FOV_DEG) / 2)
    for k in range(iterations):
        if k == 1000:
            for group in optimiser.param_groups:
                group["lr"] = 0.005
        R = _rodrigues(rotation)
        p = R.transpose(1, 2) @ (X - (start + offset)[:, :, None])
        ndc = torch.stack([p[:, 0], -p[:, 1]], 2) * scale / (-p[:, 2, :, None] + 1e-8)
        distance = torch.linalg.vector_norm(ndc - seen, dim=2)
        loss = (300 * distance[:, 17:].mean(1) + 200 * distance[:, :17].mean(1)).sum()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    R_gl = _rodrigues(rotation).detach().double().numpy()
    centre = (start + offset).detach().double().numpy()
    return Pose(R_gl, centre).inverse().change_axes(np.diag([1.0, -1.0, -1.0]))


def _rodrigues(w):  # type: ignore[no-untyped-def]
    import torch

    angle = (w + 1e-8).norm(dim=1)[:, None, None]
    zero = torch.zeros_like(w[:, 0])
    k = torch.stack([zero, -w[:, 2], w[:, 1], w[:, 2], zero, -w[:, 0], -w[:, 1], w[:, 0], zero], 1)
    k = k.reshape(-1, 3, 3) / angle
    return torch.eye(3) + torch.sin(angle) * k + (1 - torch.cos(angle)) * k @ k


def solve_pnp(s: Scene) -> Pose:
    """OpenCV frame by frame: SQPNP, then refineLM."""
    import cv2

    K = s.K.matrix
    R, t = [], []
    for marks in s.landmarks:
        _, w, x = cv2.solvePnP(s.points, marks, K, None, flags=cv2.SOLVEPNP_SQPNP)
        w, x = cv2.solvePnPRefineLM(s.points, marks, K, None, w, x)
        R.append(cv2.Rodrigues(w)[0])
        t.append(x[:, 0])
    return Pose(np.array(R), np.array(t))


def run(folder: Path, quick: bool) -> Table:
    """Measure all of it."""
    table = Table("Rigid fit")
    points = head().vertices[head().landmarks]
    _against_the_schedule(table, points, quick)
    _against_opencv(table, points, quick)
    _as_frames_grow(table, points, quick)
    _dense(table, quick)
    return table


def _against_the_schedule(table: Table, points: Floats, quick: bool) -> None:
    has_torch = importlib.util.find_spec("torch") is not None
    for n in (2,) if quick else (1, 64, 1000):
        s = make_scene(n, points)
        ways = {"1500 Adam steps, numpy": lambda s=s: adam(s)}
        steps = 30 if quick else 1500 if n < _MANY else 150
        if has_torch:
            ways[_AUTOGRAD] = lambda s=s, steps=steps: adam_torch(s, steps)
        costs, poses = _measured(ways, 1)
        if has_torch:  # every step costs the same
            part, whole = costs[_AUTOGRAD], 1500 / steps
            costs[_AUTOGRAD] = Cost(part.wall_s * whole, part.cpu_s * whole)
        ours, our_poses = _measured({"lm": lambda s=s: lm(s)}, 1 if quick else 5)
        costs, poses = {**ours, **costs}, {**our_poses, **poses}
        fast = costs["lm"]
        for name, cost in costs.items():
            judged = n == 64 and name == _AUTOGRAD
            ratio = cost.cpu_s / fast.cpu_s
            table.rows.append(
                Row(
                    f"{n} frames: {name}",
                    cost.wall_s,
                    cost.cpu_s,
                    "" if cost is fast else f"{ratio:.0f}x lm's CPU",
                    f">= {_FASTER}x" if judged else "",
                    ratio >= _FASTER if judged else None,
                    _accuracy(s, poses[name]),
                )
            )

    if not has_torch:
        table.rows.append(Row(_AUTOGRAD, limit=f">= {_FASTER}x", note="skipped: no torch"))


def _against_opencv(table: Table, points: Floats, quick: bool) -> None:
    n = 20 if quick else 500
    for outliers in (0.0, 0.1, 0.3):
        s = make_scene(n, points, outliers)
        costs, poses = _measured(
            {
                "lm": lambda s=s: lm(s),
                "lm, norm": lambda s=s: lm(s, robust="norm"),
                "lm, squares, equal weights": lambda s=s: _squares(s),
                "lm, smoothed": lambda s=s: lm(s, smoothing=HeadSmoothing()),
                "solvePnP SQPNP + refineLM": lambda s=s: solve_pnp(s),
            },
            1 if quick else 3,
        )
        opencv = costs["solvePnP SQPNP + refineLM"]
        for name, cost in costs.items():
            table.rows.append(
                Row(
                    f"{n} frames, {outliers:.0%} outliers: {name}",
                    cost.wall_s,
                    cost.cpu_s,
                    "" if cost is opencv else f"{times(opencv.cpu_s, cost.cpu_s)} OpenCV",
                    note=_accuracy(s, poses[name]),
                )
            )


def _squares(s: Scene) -> Pose:
    return fit_rigid(s.points, s.landmarks, s.K, robust="squares").w2c


def _as_frames_grow(table: Table, points: Floats, quick: bool) -> None:
    first = 0.0
    for n in (1, 8, 64) if quick else (1, 8, 64, 512, 4096):
        s = make_scene(n, points)
        costs, _ = _measured(
            {
                "lm": lambda s=s: lm(s),
                "lm, shared focal": lambda s=s: lm(s, fov="shared"),
                "lm, smoothed": lambda s=s: lm(s, smoothing=HeadSmoothing()),
            },
            1 if quick else 3,
        )
        per_frame = 1000 * costs["lm"].cpu_s / n
        first = first or per_frame
        others = ", ".join(
            f"{name.removeprefix('lm, ')} {1000 * c.cpu_s / n:.2f}"
            for name, c in costs.items()
            if name != "lm"
        )
        table.rows.append(
            Row(
                f"{n} frames: cost per frame",
                costs["lm"].wall_s,
                costs["lm"].cpu_s,
                f"{per_frame:.3f} ms",
                "flat or falling",
                per_frame <= 1.2 * first,
                f"{others} ms",
            )
        )


def _dense(table: Table, quick: bool) -> None:
    """In processes of their own, for their memory; inputs alone first, to subtract."""
    base = 0.0
    plan = [("inputs alone", 5000), ("fixed", 5000), ("fixed", 500), ("shared", 5000)]
    for what, n in [(what, n // 50) for what, n in plan[:2]] if quick else plan:
        child = run_child(["-m", "benchmarks.pose", "--dense", what, str(n)])
        alone = what == "inputs alone"
        base = child.cost.cpu_s if alone else base
        own = child.cost.cpu_s - base
        judged = what == "fixed" and n == 5000
        table.rows.append(
            Row(
                f"{n} frames of 468 points: {what}",
                child.cost.wall_s,
                child.cost.cpu_s,
                f"{own:.2f} CPU s without inputs" if n == 5000 and not alone else "",
                f"<= {_SECONDS:.0f} s" if judged else "",
                own <= _SECONDS if judged else None,
                note=f"peak {child.peak_bytes / 2**20:.0f} MiB",
            )
        )


def _dense_child(what: str, n: int) -> None:
    rng = np.random.default_rng(1)
    vertices = head().vertices
    front = vertices[vertices[:, 2] > 0]
    s = make_scene(n, front[rng.permutation(len(front))[:468]])
    if what != "inputs alone":
        fit_rigid(s.points, s.landmarks, s.K, fov=what)  # type: ignore[arg-type]
    print(peak_bytes())


def _measured(
    ways: dict[str, Callable[[], Pose]], repetitions: int
) -> tuple[dict[str, Cost], dict[str, Pose]]:
    poses: dict[str, Pose] = {}

    def keep(name: str, way: Callable[[], Pose]) -> Callable[[], object]:
        return lambda: poses.update({name: way()})

    return side_by_side({name: keep(name, way) for name, way in ways.items()}, repetitions), poses


def _accuracy(s: Scene, w2c: Pose) -> str:
    rotation, depth = s.errors(w2c)
    return f"{rotation:.2f} degrees, {depth:.1f} mm deep"


def _rms(values: Floats) -> float:
    return float(np.sqrt(np.mean(values**2)))


if __name__ == "__main__":
    if "--dense" in sys.argv:
        _dense_child(sys.argv[-2], int(sys.argv[-1]))
    else:
        from benchmarks.run import as_markdown, machine, show

        print(machine())
        with tempfile.TemporaryDirectory() as scratch:
            done = run(Path(scratch), "--quick" in sys.argv)
        show(done)
        if "--markdown" in sys.argv:
            Path(sys.argv[sys.argv.index("--markdown") + 1]).write_text(as_markdown(done))
