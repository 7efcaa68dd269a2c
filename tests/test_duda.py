"""The real 1080p video: what the main job must hold on it, whole and damaged."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import av
import cv2
import numpy as np
import pytest

from converter.cli.main import main
from converter.media.images import read_size
from tests.damage import (
    Folders,
    edit_frame,
    naive_K,
    source_K,
    swapped_size,
    without_camera_block,
)

pytestmark = pytest.mark.shared

BBOX = [787, 1197, 61, 471]
SCALE = 512 / 410
CROP_FROM_SOURCE = np.array(
    [[SCALE, 0, -BBOX[0] * SCALE], [0, SCALE, -BBOX[2] * SCALE], [0, 0, 1.0]]
)


@pytest.fixture
def duda(shared_data: Path, tmp_path: Path) -> Folders:
    return Folders.copy(shared_data / "duda", tmp_path / "duda")


def convert(track: Path, out: Path, *more: str) -> int:
    return main(["convert", str(track), "--to", "gaussiantalker", "-o", str(out), *more])


@pytest.mark.parametrize(
    ("canvas", "size"),
    [("full", "1920x1080"), ("window", "1856x522"), ("padded", "1984x1638"), ("crop", "512x512")],
)
def test_converts_from_the_video_alone(
    shared_data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], canvas: str, size: str
) -> None:
    out = tmp_path / "out"
    assert convert(shared_data / "duda", out, "--canvas", canvas) == 0
    printed = capsys.readouterr().out
    assert "00000.frame shows image 00002" in printed
    assert "(offset 2)" in printed
    difference = re.search(r"max reprojection difference ([\d.]+) px over 75 frames", printed)
    assert difference is not None
    assert float(difference[1]) <= 0.01
    assert str(read_size(out / "ori_imgs" / "0.jpg")) == size
    assert (out / "proof.jpg").stat().st_size > 100_000
    assert main(["inspect", str(out)]) == 0


def test_full_writes_the_frames_themselves(
    shared_data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The default: native pixels, equal to the decoded frames but for JPEG; residual printed."""
    out = tmp_path / "out"
    assert convert(shared_data / "duda", out) == 0
    residual = re.search(
        r"the mesh moves by ([\d.]+) px \(median\), ([\d.]+) px at most", capsys.readouterr().out
    )
    assert residual is not None
    assert float(residual[1]) <= 0.3
    assert float(residual[2]) <= 1.2
    with av.open(str(next((shared_data / "duda").rglob("video.mp4")))) as container:
        stream = enumerate(container.decode(video=0))
        frames = {i - 1: f.to_ndarray(format="bgr24") for i, f in stream if i in (1, 31, 75)}
    for image_id, frame in frames.items():
        jpeg = cv2.imencode(".jpg", frame, [cv2.IMWRITE_JPEG_QUALITY, 95])[1].tobytes()
        assert (out / "ori_imgs" / f"{image_id}.jpg").read_bytes() == jpeg


Damage = Callable[[Folders], None]


def no_bbox(d: Folders) -> None:
    (d.actor / "bbox.pt").unlink()


def no_video(d: Folders) -> None:
    (d.actor / "video.mp4").unlink()


def half_of_kpt_zero(d: Folders) -> None:
    for path in sorted((d.actor / "kpt").iterdir())[20:58]:
        np.save(path, np.zeros((68, 2)))


def frames_missing(d: Folders) -> None:
    for path in d.frames()[10:20]:
        path.unlink()


def frame_truncated(d: Folders) -> None:
    path = d.frames()[7]
    path.write_bytes(path.read_bytes()[:2000])


def sides_swapped(d: Folders) -> None:
    d.edit_frames(swapped_size)


def K_in_source_space(d: Folders) -> None:
    d.edit_frames(source_K(CROP_FROM_SOURCE))


def K_in_source_space_alone(d: Folders) -> None:
    d.edit_frames(source_K(CROP_FROM_SOURCE))
    d.edit_frames(without_camera_block)


def K_naive(d: Folders) -> None:
    d.edit_frames(naive_K(BBOX))


def K_naive_alone(d: Folders) -> None:
    d.edit_frames(naive_K(BBOX))
    d.edit_frames(without_camera_block)


def one_nan(d: Folders) -> None:
    edit_frame(d.frames()[3], lambda c: c["opencv"]["t"].fill(np.nan))


@pytest.mark.parametrize(
    ("damage", "code", "said"),
    [
        (
            no_bbox,
            0,
            r"bbox\.pt is missing and was recovered: bbox \[787, 1197, 61, 471\], verdict exact, "
            "every pixel of 3 of 76 frames equal",
        ),
        (no_video, 0, "warning: duda: there are no source frames, so the images come from"),
        (half_of_kpt_zero, 0, "38 of 75 frames have no landmarks and are left out of every file"),
        (frames_missing, 0, "10 of 75 frames are missing"),
        (frame_truncated, 3, r"00007\.frame: .* ends early.*--skip-damaged leaves the frame out"),
        (sides_swapped, 0, "max reprojection difference"),
        (K_in_source_space, 0, "K was already rewritten to source resolution"),
        (K_in_source_space_alone, 0, "read as K of the source frame"),
        (K_naive, 0, "added to the principal point without rescaling"),
        (K_naive_alone, 0, r"with bbox \[787, 1197, 61, 471\] taken off the principal point again"),
        (one_nan, 3, r"00003\.frame: opencv\.t: expected finite numbers, found NaN"),
    ],
)
def test_damage_is_repaired_and_named_or_refused_in_one_line(
    duda: Folders,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    damage: Damage,
    code: int,
    said: str,
) -> None:
    damage(duda)
    out = tmp_path / "out"
    assert convert(duda.root, out) == code
    captured = capsys.readouterr()
    assert re.search(said, captured.out + captured.err), captured.out + captured.err
    if code == 0:
        focal = json.loads((out / "transforms_train.json").read_text())["focal_len"]
        expected = 2339.0 if "crop" in json.dumps(_canvas(out)) else 2339.0 / SCALE
        assert focal == pytest.approx(expected, rel=1e-6)
    else:
        assert len(captured.err.strip().splitlines()) == 1
        assert sorted(p.name for p in tmp_path.iterdir()) == ["duda"]


def _canvas(out: Path) -> str:
    return str(json.loads((out / "uncrop.json").read_text())["canvas"]["kind"])


def test_the_damaged_frame_can_be_left_out(duda: Folders, tmp_path: Path) -> None:
    frame_truncated(duda)
    assert convert(duda.root, tmp_path / "out", "--skip-damaged", "--canvas", "crop") == 0
    ids = json.loads((tmp_path / "out" / "uncrop.json").read_text())["frame_ids"]
    assert ids == [i for i in range(75) if i != 7]


def test_a_frame_without_a_mesh_can_be_left_out(
    duda: Folders, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    next(duda.root.rglob("mesh/00011.*")).unlink()
    assert convert(duda.root, tmp_path / "out") == 3
    assert "00011.ply: expected the mesh of this frame" in capsys.readouterr().err
    assert convert(duda.root, tmp_path / "out", "--skip-damaged", "--canvas", "crop") == 0
    assert "1 frame without a mesh left out (00011)" in capsys.readouterr().err
    ids = json.loads((tmp_path / "out" / "uncrop.json").read_text())["frame_ids"]
    assert ids == [i for i in range(75) if i != 11]


def test_another_video_is_refused(
    duda: Folders, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sample = Path(__file__).parent.parent / "fixtures" / "sample" / "input" / "ada" / "video.mp4"
    shutil.copyfile(sample, duda.actor / "video.mp4")
    assert convert(duda.root, tmp_path / "out") == 3
    assert "expected" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
