"""What people read at 2 a.m.: every kind of refusal, held against a golden file.

A changed message shows up as a changed line of tests/golden/messages.txt; read it, and if it still
says what, where, expected, found and what to do, accept it with UNCROP_GOLDEN=write.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from converter.cli.main import main
from tests.damage import Folders, edit_frame, without_camera_block

GOLDEN = Path(__file__).parent / "golden" / "messages.txt"

Case = Callable[[Folders], list[str]]


def _gaussiantalker(d: Folders, *more: str) -> list[str]:
    return ["convert", str(d.root), "--to", "gaussiantalker", "-o", str(d.root / "out"), *more]


def _edit(d: Folders, number: int, change: Callable[[dict[str, Any]], object]) -> None:
    edit_frame(d.frames()[number], lambda content: (change(content), None)[1])


def frame_truncated(d: Folders) -> list[str]:
    d.frames()[3].write_bytes(d.frames()[3].read_bytes()[:1500])
    return _gaussiantalker(d)


def frame_runs_code(d: Folders) -> list[str]:
    d.frames()[3].write_bytes(b"\x80\x02cposix\nsystem\nX\x04\x00\x00\x00true\x85R.")
    return _gaussiantalker(d)


def frame_not_finite(d: Folders) -> list[str]:
    _edit(d, 2, lambda c: c["opencv"]["t"].fill(np.nan))
    return _gaussiantalker(d)


def frame_of_another_program(d: Folders) -> list[str]:
    _edit(d, 2, lambda c: (c.clear(), c.update(weights=np.zeros(3))))
    return _gaussiantalker(d)


def K_of_the_wrong_shape(d: Folders) -> list[str]:
    _edit(d, 1, lambda c: c["opencv"].update(K=np.zeros((1, 4, 4), np.float32)))
    return _gaussiantalker(d)


def two_cameras(d: Folders) -> list[str]:
    _edit(d, 1, lambda c: c["opencv"].update(K=np.repeat(c["opencv"]["K"], 2, axis=0)))
    return _gaussiantalker(d)


def mirrored(d: Folders) -> list[str]:
    d.edit_frames(without_camera_block)
    _edit(d, 1, lambda c: c["opencv"].update(R=-c["opencv"]["R"]))
    return _gaussiantalker(d)


def behind_the_camera(d: Folders) -> list[str]:
    d.edit_frames(without_camera_block)
    _edit(d, 1, lambda c: c["opencv"]["t"].__imul__(-1))
    return _gaussiantalker(d)


def renamed_frame(d: Folders) -> list[str]:
    d.frames()[5].rename(d.checkpoint / "00099.frame")
    return _gaussiantalker(d)


def bbox_of_the_wrong_kind(d: Folders) -> list[str]:
    (d.actor / "bbox.pt").write_bytes((d.actor / "kpt" / "00002.npy").read_bytes())
    return _gaussiantalker(d)


def no_landmarks(d: Folders) -> list[str]:
    for path in (d.actor / "kpt").iterdir():
        path.unlink()
    (d.actor / "kpt").rmdir()
    return _gaussiantalker(d)


def no_meshes(d: Folders) -> list[str]:
    for path in (d.output / "mesh").iterdir():
        path.unlink()
    return _gaussiantalker(d)


def one_mesh_missing(d: Folders) -> list[str]:
    (d.output / "mesh" / "00004.ply").unlink()
    return _gaussiantalker(d)


def landmarks_of_the_wrong_shape(d: Folders) -> list[str]:
    np.save(d.actor / "kpt" / "00003.npy", np.ones((5, 2), np.float32))
    return _gaussiantalker(d)


def video_is_a_playlist(d: Folders) -> list[str]:
    (d.actor / "video.mp4").write_text("#EXTM3U\n#EXTINF:1,\n/etc/passwd\n")
    return _gaussiantalker(d)


def no_source_for_the_window(d: Folders) -> list[str]:
    (d.actor / "video.mp4").unlink()
    return _gaussiantalker(d, "--canvas", "window")


def wrong_actor(d: Folders) -> list[str]:
    return _gaussiantalker(d, "--actor", str(d.root / "nobody"))


def no_track(d: Folders) -> list[str]:
    return ["convert", str(d.actor / "images"), "--to", "bundle", "-o", str(d.root / "t.h5")]


def output_exists(d: Folders) -> list[str]:
    (d.root / "out").mkdir()
    (d.root / "out" / "mine.txt").touch()
    return _gaussiantalker(d)


def output_is_foreign(d: Folders) -> list[str]:
    output_exists(d)
    return _gaussiantalker(d, "--overwrite")


def bundle_without_images(d: Folders) -> list[str]:
    assert (
        main(["convert", str(d.root), "--to", "bundle", "-o", str(d.root / "t.h5"), "--quiet"]) == 0
    )
    return ["convert", str(d.root / "t.h5"), "--to", "gaussiantalker", "-o", str(d.root / "out")]


def _fit(d: Folders, *more: str) -> list[str]:
    return ["fit", str(d.root), "-o", str(d.root / "out.h5"), *more]


def fit_without_landmarks(d: Folders) -> list[str]:
    no_landmarks(d)
    return _fit(d)


def fit_without_meshes(d: Folders) -> list[str]:
    no_meshes(d)
    return _fit(d)


def fit_of_an_unknown_K(d: Folders) -> list[str]:
    d.edit_frames(without_camera_block)
    d.edit_frames(lambda c: c["opencv"]["K"][..., :2, 2].__iadd__(170))
    return _fit(d)


def flame_runs_code(d: Folders) -> list[str]:
    no_meshes(d)
    (d.root / "flame.pkl").write_bytes(b"\x80\x02cposix\nsystem\nU\x04true\x85R.")
    return _fit(d, "--flame", str(d.root / "flame.pkl"))


def flame_is_another_model(d: Folders) -> list[str]:
    no_meshes(d)
    np.savez(d.root / "smpl.npz", v_template=np.zeros((6890, 3)))
    return _fit(d, "--flame", str(d.root / "smpl.npz"))


def embedding_of_other_meshes(d: Folders) -> list[str]:
    faces = {"lmk_face_idx": np.full(51, 10**6), "lmk_b_coords": np.ones((51, 3)) / 3}
    np.savez(d.root / "embedding.npz", **faces)
    return _fit(d, "--landmark-embedding", str(d.root / "embedding.npz"))


def landmarks_of_no_images(d: Folders) -> list[str]:
    for path in (d.actor / "images").iterdir():
        path.unlink()
    return ["landmarks", str(d.actor)]


CASES: list[Case] = [
    frame_truncated, frame_runs_code, frame_not_finite, frame_of_another_program,
    K_of_the_wrong_shape, two_cameras, mirrored, behind_the_camera, renamed_frame,
    bbox_of_the_wrong_kind, no_landmarks, no_meshes, one_mesh_missing,
    landmarks_of_the_wrong_shape, video_is_a_playlist, no_source_for_the_window,
    wrong_actor, no_track, output_exists, output_is_foreign, bundle_without_images,
    fit_without_landmarks, fit_without_meshes, fit_of_an_unknown_K, flame_runs_code,
    flame_is_another_model, embedding_of_other_meshes, landmarks_of_no_images,
]  # fmt: skip


def _golden() -> dict[str, str]:
    if not GOLDEN.is_file():
        return {}
    lines = GOLDEN.read_text(encoding="utf-8").splitlines()
    return dict(line.split(": ", 1) for line in lines if line)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.__name__)
def test_the_message_is_the_golden_one(
    case: Case, fixtures_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = case(Folders.copy(fixtures_dir / "sample", tmp_path / "ada"))
    capsys.readouterr()
    assert main(arguments) == 3
    errors = [
        line for line in capsys.readouterr().err.splitlines() if not line.startswith("warning: ")
    ]
    assert len(errors) == 1
    message = re.sub(r"\S*/ada(?=[/:, ]|$)", "ada", errors[0].replace(str(tmp_path), ""), count=0)
    golden = _golden()
    if os.environ.get("UNCROP_GOLDEN") == "write":
        golden[case.__name__] = message
        ordered = [f"{c.__name__}: {golden[c.__name__]}" for c in CASES if c.__name__ in golden]
        GOLDEN.write_text("\n".join(ordered) + "\n", encoding="utf-8")
    assert message == golden.get(case.__name__)


def test_the_golden_file_holds_nothing_else() -> None:
    assert list(_golden()) == [case.__name__ for case in CASES]
