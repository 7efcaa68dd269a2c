"""face_alignment's own code, on weights that see colours: offline, in processes of their own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

from converter.errors import MissingInputError
from converter.geometry.pixels import Floats
from tests.fitting.detector_weights import picture, places, write_weights

REPOSITORY = Path(__file__).resolve().parent.parent.parent
WITHOUT_JIT = {"NUMBA_DISABLE_JIT": "1", "OMP_NUM_THREADS": "2"}


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A TORCH_HOME with stand-in weights."""
    pytest.importorskip("face_alignment", reason="the extra uncrop[landmarks] is not installed")
    folder = tmp_path_factory.mktemp("torch")
    write_weights(folder)
    return folder


def uncrop(*arguments: object, home: Path) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, **WITHOUT_JIT, "TORCH_HOME": str(home)}
    return subprocess.run(
        [sys.executable, "-m", "converter.cli.main", *map(str, arguments)],
        cwd=REPOSITORY, env=environment, capture_output=True, text=True, check=False, timeout=500,
    )  # fmt: skip


def write_actor(folder: Path, faces: list[Floats | None]) -> Path:
    (folder / "images").mkdir(parents=True)
    for number, points in enumerate(faces, start=1):
        cv2.imwrite(str(folder / "images" / f"{number:05d}.png"), picture(points))
    return folder


@pytest.mark.slow
def test_landmarks_of_a_track_without_them(home: Path, tmp_path: Path) -> None:
    """The package's loader, S3FD and FAN, end to end; a frame without a face is written as lost."""
    actor = write_actor(tmp_path / "actor", [places(), None, places(24.0)])
    done = uncrop("landmarks", actor, "--single-pass", "--device", "cpu", home=home)
    assert done.returncode == 0, done.stderr
    assert "2 faces in 3 images" in done.stdout
    assert "no face in 1: 00002.png" in done.stdout
    for name, points in (("00001", places()), ("00003", places(24.0))):
        found = np.load(actor / "kpt" / f"{name}.npy")
        assert found.shape == (68, 2)
        assert found.dtype == np.float32
        assert np.array_equal(found, np.round(found))
        # A cell of the heat map is 300 * 2 / 195 * 200 / 64 = 9.6 px.
        off = np.linalg.norm(found + 0.5 - points, axis=1)
        assert np.sqrt(np.mean(off**2)) < 6
        assert off.max() < 12
    lost = np.load(actor / "kpt" / "00002.npy")
    assert lost.dtype == np.float64
    assert not lost.any()

    again = uncrop("landmarks", actor, "--json", home=home)
    assert json.loads(again.stdout) == {
        "ok": True, "out": str(actor / "kpt"), "n_images": 3, "n_detected": 0, "n_kept": 3,
        "no_face": [],
    }  # fmt: skip


def test_missing_weights_are_named_with_address_and_place(tmp_path: Path) -> None:
    pytest.importorskip("face_alignment", reason="the extra uncrop[landmarks] is not installed")
    actor = write_actor(tmp_path / "actor", [None])
    done = uncrop("landmarks", actor, home=tmp_path / "empty")
    assert done.returncode == 3
    (line,) = done.stderr.strip().splitlines()
    place = tmp_path / "empty" / "hub" / "checkpoints"
    for name in ("2DFAN4-11f355bf06.pth.tar", "s3fd-619a316812.pth"):
        assert f"https://www.adrianbulat.com/downloads/python-fan/{name} to {place / name}" in line
    assert not (actor / "kpt").exists()
    assert not (tmp_path / "empty").exists()


def test_weights_that_are_others(tmp_path: Path) -> None:
    """Damaged, or made to run code: one line, and nothing runs."""
    torch = pytest.importorskip("torch")
    pytest.importorskip("face_alignment", reason="the extra uncrop[landmarks] is not installed")

    class Runs:
        def __reduce__(self):  # type: ignore[no-untyped-def]
            return os.mkdir, (str(tmp_path / "pwned"),)

    place = tmp_path / "home" / "hub" / "checkpoints"
    place.mkdir(parents=True)
    actor = write_actor(tmp_path / "actor", [None])
    names = "2DFAN4-11f355bf06.pth.tar", "s3fd-619a316812.pth"
    for content in (b"damaged", Runs(), {}):
        for name in names:
            if isinstance(content, bytes):
                (place / name).write_bytes(content)
            else:
                torch.save(content, place / name)
        done = uncrop("landmarks", actor, home=tmp_path / "home")
        assert done.returncode == 3, done.stderr
        assert "again." in done.stderr.strip().splitlines()[-1]
    assert not (tmp_path / "pwned").exists()
    assert not (actor / "kpt").exists()


def test_without_the_package_the_extra_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from fitting.detectors import require_weights

    monkeypatch.setitem(sys.modules, "face_alignment", None)
    with pytest.raises(MissingInputError, match="pip install face-alignment"):
        require_weights()


def test_without_images(tmp_path: Path) -> None:
    (tmp_path / "actor" / "images").mkdir(parents=True)
    done = uncrop("landmarks", tmp_path / "actor", home=tmp_path)
    assert done.returncode == 3
    assert "Give --actor DIR" in done.stderr
    done = uncrop("landmarks", tmp_path / "nowhere", home=tmp_path)
    assert done.returncode == 3
