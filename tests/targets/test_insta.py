"""INSTA's folder: every reader's camera is right, and the mistakes people make are seen."""

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

from converter import registry
from converter.errors import MissingInputError, TargetError
from converter.geometry.intrinsics import Intrinsics
from converter.media.files import sha256_of
from converter.media.torchfile import read_torch, torch_bytes
from converter.registry import ReadOptions, Written, no_progress
from converter.track import Flame, Track
from fixtures.synthetic.track import write_parsing
from tests.conftest import MakeTrack
from tests.targets.conftest import SPEC

TARGET = registry.target("insta")


def write(track: Track, out: Path, **options: Any) -> Written:
    return TARGET.write(track, out, TARGET.options(**options), overwrite=False,
                        progress=no_progress)  # fmt: skip


def errors(out: Path) -> set[str]:
    return {f.check for f in TARGET.check(out) if f.severity == "error"}


@pytest.fixture(scope="module")
def dataset(made: tuple[Track, Any], tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("insta") / "out"
    write(made[0], out)
    return out


def load(out: Path, name: str = "transforms.json") -> dict[str, Any]:
    content: dict[str, Any] = json.loads((out / name).read_text())
    return content


def picture(path: Path) -> Any:
    """Pixels as they are in the file, alpha included."""
    return cv2.imread(str(path), cv2.IMREAD_UNCHANGED)


@pytest.mark.parametrize(
    "options", [{}, {"size": 128}, {"space": "source"}, {"space": "window"}], ids=str
)
def test_reprojects_with_an_off_centre_principal_point(
    made: tuple[Track, Any], tmp_path: Path, options: dict[str, Any]
) -> None:
    """By the formula of INSTA's loader, written out here, in both readers' files."""
    track, _ = made
    write(track, tmp_path / "out", **options)
    content = load(tmp_path / "out")
    fx = 0.5 * content["w"] / np.tan(np.radians(content["x_fov"]) / 2)
    fy = 0.5 * content["h"] / np.tan(np.radians(content["y_fov"]) / 2)
    assert fx == pytest.approx(content["fl_x"], rel=1e-12)
    located = track.in_source()
    image = picture(tmp_path / "out" / content["frames"][4]["file_path"])
    assert image.shape == (content["h"], content["w"], 4)
    assert track.meshes is not None
    x = track.meshes.vertices(4).astype(np.float64)
    w2c = np.linalg.inv(np.array(content["frames"][4]["transform_matrix"]))
    seen = x @ w2c[:3, :3].T + w2c[:3, 3]
    now = seen[:, :2] * [fx, fy] / seen[:, 2:] + [content["cx"], content["cy"]]
    # Back in source pixels, by the focal length alone, the picture is the tracker's.
    k = located.intrinsics
    back = (now - [content["cx"], content["cy"]]) / [fx, fy] * [k.fx, k.fy] + [k.cx, k.cy]
    np.testing.assert_allclose(back, located.project(4, x), atol=1e-3)
    frame: Any = read_torch(tmp_path / "out" / "checkpoint" / "00004.frame").content
    K = frame["opencv"]["K"][0]
    np.testing.assert_allclose(K[[0, 1, 0, 1], [0, 1, 2, 2]],
                               [fx, fy, content["cx"], content["cy"]], rtol=1e-6)  # fmt: skip
    assert errors(tmp_path / "out") == set()


def test_every_part_is_there(dataset: Path, made: tuple[Track, Any]) -> None:
    content = load(dataset)
    assert all(isinstance(content[k], float) for k in content if k != "frames")
    for frame in content["frames"]:
        assert set(frame) == {"transform_matrix", "file_path", "mesh_path", "exp_path"}
        assert all((dataset / frame[k]).is_file() for k in frame if k != "transform_matrix")
    values = (dataset / "flame" / "exp" / "00002.txt").read_text().split("\n")
    assert len(values) == 101
    assert made[0].flame.expression is not None
    assert float(values[3]) == pytest.approx(made[0].flame.expression[2, 3], abs=1e-8)
    assert sorted(p.name for p in (dataset / "checkpoint").iterdir()) == [
        f"{i:05d}.frame" for i in range(10)
    ]


def test_the_split_never_leaves_an_empty_part(made: tuple[Track, Any], tmp_path: Path) -> None:
    track, _ = made
    written = write(track, tmp_path / "a")
    assert {"split-clamped", "frames-few"} <= {f.check for f in written.findings}
    assert [len(load(tmp_path / "a", f"transforms_{s}.json")["frames"])
            for s in ("train", "test", "val")] == [9, 1, 1]  # fmt: skip
    write(track, tmp_path / "b", test=4)
    assert len(load(tmp_path / "b", "transforms_train.json")["frames"]) == 6
    for n in (0, 10, -1):
        with pytest.raises(TargetError, match="--test"):
            TARGET.require(track, TARGET.options(test=n))


def test_mattes_and_parsing_move_with_the_images(made: tuple[Track, Any], tmp_path: Path) -> None:
    track, truth = made
    write_parsing(tmp_path / "masks", truth, style="insta", space="source")
    (tmp_path / "mattes").mkdir()
    for path in (tmp_path / "masks").glob("*.png"):
        grey = (picture(path)[:, :, 2] > 0).astype(np.uint8) * 255
        cv2.imwrite(str(tmp_path / "mattes" / path.name), grey)
    out = tmp_path / "out"
    written = write(track, out, matte=tmp_path / "mattes", seg_mask=tmp_path / "masks",
                    matte_names="image")  # fmt: skip
    assert [m.file for m in written.missing] == ["depth/"]
    image = picture(out / "images" / "00005.png")
    mask = picture(out / "seg_mask" / "00005.png")
    assert mask.shape[:2] == image.shape[:2]
    original = np.unique(picture(tmp_path / "masks" / "00007.png")[:, :, 2])
    assert set(np.unique(mask[:, :, 2])) <= set(original) | {0}
    # Both were moved by one map: alpha is where the parsing is, but for the matte's soft edge.
    hard = (mask[:, :, 2] > 0) == (image[:, :, 3] > 127)
    assert hard.mean() > 0.99
    assert load(out)["frames"][5]["seg_mask_path"] == "seg_mask/00005.png"
    assert errors(out) == set()


@pytest.mark.parametrize(
    "options", [{}, {"size": 192}, {"space": "source"}, {"space": "window"}], ids=str
)
def test_depth_moves_with_the_images(
    make_track: MakeTrack, tmp_path: Path, options: dict[str, Any]
) -> None:
    """At the pixels of the visible vertices, through the written camera, lies their depth."""
    folder, _ = make_track(**{**SPEC, "depth": True, "n_frames": 4})
    track = registry.read_track(folder, ReadOptions(hash_inputs=False))
    out = tmp_path / "out"
    written = write(track, out, **options)
    assert "depth/" not in {m.file for m in written.missing}
    content = load(out)
    assert content["frames"][2]["depth_path"] == "depth/00002.png"
    depth = picture(out / "depth" / "00002.png")
    assert depth.dtype == np.uint16
    assert depth.shape == picture(out / "images" / "00002.png").shape[:2]
    assert track.meshes is not None
    x = track.meshes.vertices(2).astype(np.float64)
    w2c = np.linalg.inv(np.array(content["frames"][2]["transform_matrix"]))
    p = x @ w2c[:3, :3].T + w2c[:3, 3]
    u = p[:, :2] / p[:, 2:] * [content["fl_x"], content["fl_y"]] + [content["cx"], content["cy"]]
    cells = np.floor(u).astype(int)
    inside = ((cells >= 0) & (cells < depth.shape[::-1])).all(axis=1)
    found = depth[cells[inside, 1], cells[inside, 0]].astype(float)
    z = 1000 * p[inside, 2]
    # The front half of the head is visible; nothing lies behind what is seen but the hidden half.
    near = np.abs(found - z) < 4
    assert near.mean() > 0.35
    # Moved by a few pixels it would not fit as well.
    for shift in (-6, 6):
        other = np.clip(cells[inside] + [shift, 0], 0, np.array(depth.shape[::-1]) - 1)
        assert (np.abs(depth[other[:, 1], other[:, 0]] - z) < 4).mean() < near.mean()
    if not options:
        assert np.array_equal(depth, picture(folder / "output/ada/depth/00002.png"))
    assert errors(out) == set()
    cv2.imwrite(str(out / "depth" / "00001.png"), depth.astype(np.uint8))
    assert "depth-unreadable" in errors(out)


def test_depth_of_another_run_is_left_out(own_track: MakeTrack, tmp_path: Path) -> None:
    folder, _ = own_track(**{**SPEC, "depth": True, "n_frames": 4})
    for path in (folder / "output/ada/depth").iterdir():
        cv2.imwrite(str(path), np.where(picture(path) > 0, picture(path) + 300, 0).astype("u2"))
    read = ReadOptions(hash_inputs=False)
    written = write(registry.read_track(folder, read), tmp_path / "out")
    assert "depth-left-out" in {f.check for f in written.findings}
    assert not (tmp_path / "out" / "depth").exists()
    (folder / "output/ada/depth/00001.png").unlink()
    track = registry.read_track(folder, read)
    assert track.depth is None
    assert "depth-missing" in {f.check for f in track.findings}


def test_what_it_needs_is_named(made: tuple[Track, Any]) -> None:
    track, _ = made
    with pytest.raises(MissingInputError, match="meshes"):
        TARGET.require(replace(track, meshes=None), TARGET.options())
    with pytest.raises(MissingInputError, match="expressions"):
        TARGET.require(replace(track, flame=Flame()), TARGET.options())
    k = track.intrinsics
    varying = replace(track, intrinsics=Intrinsics(
        k.fx * (1 + 0.01 * np.arange(len(track))), k.fy, k.cx, k.cy, k.size))  # fmt: skip
    with pytest.raises(TargetError, match="--space window"):
        TARGET.require(varying, TARGET.options())


# --- planted faults ---------------------------------------------------------------------------


def _cameras(change: Callable[[Any], Any]) -> Callable[[Path], None]:
    def damage(out: Path) -> None:
        for path in out.glob("transforms*.json"):
            content = json.loads(path.read_text())
            for frame in content["frames"]:
                frame["transform_matrix"] = change(np.array(frame["transform_matrix"])).tolist()
            path.write_text(json.dumps(content))

    return damage


def _root(**changes: Callable[[float], float]) -> Callable[[Path], None]:
    def damage(out: Path) -> None:
        for path in out.glob("transforms*.json"):
            content = json.loads(path.read_text())
            for key, change in changes.items():
                content[key] = change(content[key])
            path.write_text(json.dumps(content))

    return damage


def _shifted(out: Path) -> None:
    path = out / "transforms.json"
    content = json.loads(path.read_text())
    matrices = [f["transform_matrix"] for f in content["frames"]]
    for frame, matrix in zip(content["frames"], matrices[1:] + matrices[:1], strict=True):
        frame["transform_matrix"] = matrix
    path.write_text(json.dumps(content))


def _frame_K(out: Path) -> None:
    path = out / "checkpoint" / "00003.frame"
    content: Any = read_torch(path).content
    content["opencv"]["K"][0, 0, 2] += 1
    path.write_bytes(torch_bytes(content, stem="00003", tensors=False))


def _empty_train(out: Path) -> None:
    path = out / "transforms_train.json"
    path.write_text(json.dumps({**load(out), "frames": []}))


def _other_mesh(out: Path) -> None:
    text = (out / "canonical.obj").read_text()
    (out / "canonical.obj").write_text(text.replace("v 0", "v 1", 1).replace("v -0", "v 1", 1))


FAULTS: dict[str, Callable[[Path], None]] = {
    "NeRF's axes": _cameras(lambda m: m @ np.diag([1.0, -1, -1, 1])),
    "world to camera": _cameras(np.linalg.inv),
    "R transposed": _cameras(lambda m: np.block([[m[:3, :3].T, m[:3, 3:]], [m[3:]]])),
    "frames shifted": _shifted,
    "principal point in the centre": _root(cx=lambda v: v + 3.0),
    "x_fov of another size": _root(x_fov=lambda v: v * 1.01),
    "whole numbers": _root(w=int),
    "K of one frame": _frame_K,
    "empty train split": _empty_train,
    "another canonical mesh": _other_mesh,
}


@pytest.mark.parametrize("fault", FAULTS)
def test_check_sees_the_fault(dataset: Path, tmp_path: Path, fault: str) -> None:
    out = tmp_path / "out"
    shutil.copytree(dataset, out)
    FAULTS[fault](out)
    # The hashes are made right again, so that only the contents speak.
    manifest = json.loads((out / "uncrop.json").read_text())
    manifest["files"] = {name: sha256_of(out / name) for name in manifest["files"]}
    (out / "uncrop.json").write_text(json.dumps(manifest))
    assert errors(out)
