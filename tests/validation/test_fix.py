"""What has one right answer is mended: a clean copy with the cameras of the undamaged track."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pytest

import converter
from converter.errors import OutputError
from converter.registry import ReadOptions
from converter.track import Track
from converter.validation.fix import FIX_MARKER, fix
from converter.validation.validate import validate
from fixtures.defects import DEFECTS, Defect, TrackCopy
from tests.validation.conftest import CopyOf

MENDED = (
    "naive K", "source K", "naive K without a camera block", "source K without a camera block",
    "scaled K", "K computed with h and w swapped", "img_size swapped", "K transposed",
    "R transposed", "OpenGL axes", "frames exchanged", "stray images", "bbox of corners",
    "frames left by initialisation",
)  # fmt: skip
LEFT = (
    "numbers not finite", "frame truncated", "frame runs code", "K with skew", "R mirrored",
    "shape of another person", "landmarks of another shape", "bbox computed anew", "edited K",
    "poses of another head",
)  # fmt: skip


def of(name: str) -> Defect:
    return next(d for d in DEFECTS if d.name == name)


def read(path: Path) -> Track:
    return converter.read_track(path, ReadOptions(hash_inputs=False))


def digests(folder: Path) -> dict[str, str]:
    return {
        str(p.relative_to(folder)): hashlib.sha256(p.read_bytes()).hexdigest()
        for p in sorted(folder.rglob("*")) if p.is_file()
    }  # fmt: skip


@pytest.mark.parametrize("barely", [False, True], ids=["all-frames", "one-frame"])
@pytest.mark.parametrize("name", MENDED)
def test_what_has_one_right_answer_is_mended(
    copy_of: CopyOf, tmp_path: Path, name: str, barely: bool
) -> None:
    defect = of(name)
    good = read(copy_of(defect.base).root)
    track = copy_of(defect.base)
    defect.apply(track, barely)
    before = digests(track.root)
    result = fix(track.root, tmp_path / "mended")
    assert digests(track.root) == before  # the input stays as it is
    assert defect.check in {f.check for f in result.applied}
    assert all(f.before and f.after and f.before != f.after for f in result.applied)
    assert [f for f in result.left if f.severity == "error"] == []
    mended = read(tmp_path / "mended")
    kept = np.isin(good.frame_ids, mended.frame_ids)
    assert kept.sum() == len(mended)
    assert np.abs(mended.w2c.R - good.w2c.R[kept]).max() < 1e-5
    assert np.abs(mended.w2c.t - good.w2c.t[kept]).max() < 1e-6
    K, expected = mended.in_crop().intrinsics, good.intrinsics
    assert np.abs(K.matrix - expected.matrix).max() < 1e-3
    assert K.size == expected.size
    errors = [f for f in validate(tmp_path / "mended").findings if f.severity == "error"]
    assert errors == []


def test_both_blocks_are_mended_by_the_landmarks(copy_of: CopyOf, tmp_path: Path) -> None:
    for block in ("opencv", "camera"):
        track = copy_of("square")
        good = read(track.root)

        def turn(content: dict, block: str = block) -> None:  # type: ignore[type-arg]
            content[block]["t"][0, 0] += 0.05

        from fixtures.defects import edit_all

        edit_all(track.frames, turn)
        result = fix(track.root, tmp_path / block)
        assert [f.check for f in result.applied] == ["pose-differs"]
        assert block in result.applied[0].where
        assert result.left == ()
        assert np.abs(read(tmp_path / block).w2c.t - good.w2c.t).max() < 1e-6


@pytest.mark.parametrize("name", [n for n in LEFT if any(d.name == n for d in DEFECTS)])
def test_everything_else_is_named_and_left(copy_of: CopyOf, tmp_path: Path, name: str) -> None:
    defect = of(name)
    track = copy_of(defect.base)
    defect.apply(track, False)
    result = fix(track.root, tmp_path / "mended")
    assert result.path is None
    assert result.applied == ()
    assert not (tmp_path / "mended").exists()
    assert defect.check in {f.check for f in result.left}


def test_two_defects_one_mended_one_left(copy_of: CopyOf, tmp_path: Path) -> None:
    track = copy_of("square")
    of("naive K").apply(track, False)
    of("frame truncated").apply(track, False)
    result = fix(track.root, tmp_path / "mended")
    assert {f.check for f in result.applied} == {"K-naive"}
    assert {f.check for f in result.left} == {"frames-damaged"}
    assert all(str(tmp_path / "mended") in f.where for f in result.left)


def test_only_damaged_frames_are_written_anew(copy_of: CopyOf, tmp_path: Path) -> None:
    track = copy_of("square")
    of("naive K").apply(track, True)
    before = digests(track.root)
    fix(track.root, tmp_path / "mended")
    after = digests(tmp_path / "mended")
    marker = after.pop(FIX_MARKER)
    assert marker
    changed = {name for name in after if before.get(name) != after[name]}
    assert changed == {f"output/ada/checkpoint/{track.middle.name}"} | {
        n for n in after if n.endswith(".yml") and before.get(n) != after[n]
    }


def test_an_earlier_copy_is_replaced_only_when_asked(copy_of: CopyOf, tmp_path: Path) -> None:
    track = copy_of("square")
    of("naive K").apply(track, False)
    out = tmp_path / "mended"
    fix(track.root, out)
    with pytest.raises(OutputError):
        fix(track.root, out)
    fix(track.root, out, overwrite=True)
    (out / "mine.txt").write_text("mine")
    with pytest.raises(OutputError):
        fix(track.root, out, overwrite=True)
    assert (out / "mine.txt").exists()


def test_a_good_track_is_not_copied(copy_of: CopyOf, tmp_path: Path) -> None:
    result = fix(copy_of("square").root, tmp_path / "mended")
    assert (result.path, result.applied, result.left) == (None, (), ())


@pytest.mark.shared
@pytest.mark.parametrize("name", ["naive K", "source K", "R transposed",
                                  "naive K without a camera block"])  # fmt: skip
def test_a_real_track_is_mended(shared_data: Path, tmp_path: Path, name: str) -> None:
    good = read(shared_data / "duda")
    track = TrackCopy.of(shared_data / "duda", tmp_path / "duda")
    of(name).apply(track, False)
    result = fix(track.root, tmp_path / "mended")
    assert result.left == ()
    mended = read(tmp_path / "mended")
    assert np.abs(mended.intrinsics.matrix - good.intrinsics.matrix).max() < 1e-3
    assert np.abs(mended.w2c.R - good.w2c.R).max() < 1e-5
