"""metrical-tracker's layout, written back: nothing is lost, and faults are seen."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from converter import registry
from converter.dataset.frame_blocks import camera_blocks, poses_of
from converter.errors import MissingInputError, TargetError
from converter.geometry.crop import Crop
from converter.geometry.intrinsics import Intrinsics
from converter.geometry.pixels import Size
from converter.geometry.pose import Pose, rotation_6d_from_matrix
from converter.media.files import sha256_of
from converter.media.images import ImageFiles, read_image, render_crop
from converter.media.torchfile import read_torch
from converter.registry import ReadOptions, Written, no_progress
from converter.track import Flame, Track
from tests import strategies
from tests.conftest import MakeTrack
from tests.damage import edit_frame

TARGET = registry.target("metrical_tracker")


def write(track: Track, out: Path, **options: Any) -> Written:
    own = TARGET.options(**options)
    return TARGET.write(track, out, own, overwrite=False, progress=no_progress)


def read(path: Path, **options: Any) -> Track:
    return registry.read_track(path, ReadOptions(hash_inputs=False, **options))


def assert_same(a: Track, b: Track) -> None:
    """Every number equal, bit by bit."""
    assert (a.name, a.image_space, a.fps) == (b.name, b.image_space, b.fps)
    assert a.intrinsics == b.intrinsics
    assert a.crop == b.crop
    arrays = {
        "frame_ids": (a.frame_ids, b.frame_ids),
        "source_indices": (a.source_indices, b.source_indices),
        "R": (a.w2c.R, b.w2c.R),
        "t": (a.w2c.t, b.w2c.t),
        "landmarks": (a.landmarks, b.landmarks),
        "dense_landmarks": (a.dense_landmarks, b.dense_landmarks),
        **{n: (getattr(a.flame, n), getattr(b.flame, n)) for n in Flame.__slots__},
        **{n: (a.native.get(n), b.native.get(n)) for n in a.native | b.native},
    }
    for name, (x, y) in arrays.items():
        assert (x is None) == (y is None), name
        assert x is None or np.array_equal(x, y, equal_nan=x.dtype.kind == "f"), name


def assert_same_files(a: Track, b: Track) -> None:
    """Images pixel by pixel, meshes number by number."""
    for name in ("crop_frames", "source_frames"):
        x, y = getattr(a, name), getattr(b, name)
        assert (x is None) == (y is None), name
        picks = [0, len(a) // 2, len(a) - 1]
        if x is not None:
            assert all(
                np.array_equal(p, q) for p, q in zip(x.stream(picks), y.stream(picks), strict=True)
            )
    assert (a.video is None) == (b.video is None)
    if a.video is not None and b.video is not None:
        assert a.video.locate().read_bytes() == b.video.locate().read_bytes()
    assert (a.meshes is None) == (b.meshes is None)
    if a.meshes is not None and b.meshes is not None:
        assert np.array_equal(a.meshes.faces, b.meshes.faces)
        assert all(
            np.array_equal(a.meshes.vertices(i), b.meshes.vertices(i)) for i in range(len(a))
        )


SPECS: dict[str, dict[str, Any]] = {
    "video": {"source": "video", "begin_frames": 1, "lost_landmarks": (3,)},
    "frames": {"source": "both", "begin_frames": 2},
    "gaps": {"source": "folder", "missing_frames": (0, 4, 5), "begin_frames": 3},
    "whole": {"source": "folder", "crop_mode": "whole"},
    "unpadded": {"source": "folder", "crop_mode": "unpadded", "bbox": (200, 460, 20, 320)},
    "clamped": {"source": "folder", "bbox": (150, 510, 0, 359), "crop_size": 250},
    "jpg": {"source": "folder", "image_extension": "jpg"},
}


@pytest.mark.parametrize("name", SPECS)
def test_a_track_comes_back_bit_by_bit(name: str, make_track: MakeTrack, tmp_path: Path) -> None:
    track = read(make_track(**SPECS[name])[0])
    with_source = "video" if name == "video" else "all"
    written = write(track, tmp_path / "out", with_source=with_source)
    again = read(tmp_path / "out")
    assert_same(track, again)
    assert_same_files(track, again)
    assert "max reprojection difference 0.0000" in " ".join(written.summary)
    blank = [f for f in written.findings if f.check == "images-blank"]
    assert bool(blank) == (name == "gaps")


def test_twice_through_is_the_same_folder(make_track: MakeTrack, tmp_path: Path) -> None:
    write(read(make_track(begin_frames=1)[0]), tmp_path / "a", with_source="all")
    write(read(tmp_path / "a"), tmp_path / "b", with_source="all")
    for a in sorted((tmp_path / "a").rglob("*")):
        if a.is_file() and a.name not in ("uncrop.json", "track.h5"):
            assert a.read_bytes() == (tmp_path / "b" / a.relative_to(tmp_path / "a")).read_bytes()


def test_without_source_only_the_size_of_the_source_is_unknown(
    make_track: MakeTrack, tmp_path: Path
) -> None:
    folder, truth = make_track()
    track = read(folder)
    write(track, tmp_path / "out", with_source="none")
    assert track.crop is not None
    bare = replace(track, crop=replace(track.crop, source=None), source_frames=None)
    assert_same(bare, read(tmp_path / "out"))
    assert_same(track, read(tmp_path / "out", source=truth.actor / "source"))


def test_a_bundle_becomes_a_track_folder_again(make_track: MakeTrack, tmp_path: Path) -> None:
    track = read(make_track(source="video", begin_frames=1)[0])
    registry.write_track(track, "bundle", tmp_path / "track.h5", with_images=True)
    write(read(tmp_path / "track.h5"), tmp_path / "out")
    again = read(tmp_path / "out")
    assert_same(track, again)
    assert_same_files(track, again)


# --- the law --------------------------------------------------------------------------------------


def _single(array: Any) -> Any:
    """What float32 holds."""
    return np.asarray(array, np.float64).astype(np.float32).astype(np.float64)


@st.composite
def imageless_tracks(draw: st.DrawFn) -> Track:
    """Tracks of everything but files, of numbers that the format can hold."""
    track = draw(strategies.tracks())
    n, crop = len(track), track.require_crop()
    t = track.w2c.t.copy()
    t[:, 2] = np.abs(t[:, 2]) + 0.25
    k = track.intrinsics
    fy = k.fx if draw(st.booleans()) else k.fy
    k = Intrinsics(*(_single(v) for v in (k.fx, fy, k.cx, k.cy)), k.size)
    if k.n_frames is not None:
        k = k[0]
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    flame = Flame(
        shape=_single(rng.normal(size=300)),
        texture=_single(rng.normal(size=140)) if draw(st.booleans()) else None,
        expression=_single(rng.normal(size=(n, 100))),
        jaw=_single(rng.normal(size=(n, 6))),
        eyes=_single(rng.normal(size=(n, 12))),
        eyelids=_single(rng.normal(size=(n, 2))),
        light=_single(rng.normal(size=(n, 9, 3))) if draw(st.booleans()) else None,
    )
    begin = draw(st.integers(0, 3))
    landmarks = rng.integers(-50, 600, (n, 68, 2)) + 0.5
    landmarks[rng.random(n) < 0.3] = np.nan
    native = {"global_step": np.arange(n) * 314.0 + 2186} if draw(st.booleans()) else {}
    return replace(
        track,
        w2c=Pose(_single(track.w2c.R), _single(t)),
        intrinsics=k,
        crop=replace(crop, source=None),
        source_indices=track.frame_ids + begin,
        flame=flame,
        landmarks=landmarks,
        dense_landmarks=rng.normal(size=(n, 478, 2)) * 300 if draw(st.booleans()) else None,
        native=native,
    )


@given(imageless_tracks())
def test_lossless_in_everything_the_format_holds(track: Track) -> None:
    with tempfile.TemporaryDirectory() as folder:
        write(track, Path(folder) / "out")
        again = read(Path(folder) / "out")
    # The camera block is the format's own: it comes back beside what the track had.
    kept = {name: again.native[name] for name in track.native}
    assert_same(track, replace(again, native=kept))


@given(strategies.tracks())
def test_the_camera_block_says_the_same_camera(track: Track) -> None:
    k = track.intrinsics
    track = replace(track, intrinsics=Intrinsics(k.fx, k.fx, k.cx, k.cy, k.size))
    blocks = camera_blocks(track)
    assert blocks is not None
    pose = poses_of(blocks.R6, blocks.t)
    assert np.allclose(pose.R, track.w2c.R, atol=1e-12)
    assert np.allclose(pose.t, track.w2c.t, atol=1e-12)
    k = Intrinsics.from_ndc(blocks.fl, blocks.pp, track.intrinsics.size)
    assert np.allclose(k.matrix, track.intrinsics.matrix, rtol=1e-12, atol=1e-9)


def test_a_refitted_frame_gets_a_new_camera_block_and_the_others_keep_theirs(
    make_track: MakeTrack,
) -> None:
    track = read(make_track()[0])
    R, t = track.w2c.R.copy(), track.w2c.t.copy()
    R[2], t[2] = R[3], t[3] + 0.01
    blocks = camera_blocks(replace(track, w2c=Pose(R, t)))
    assert blocks is not None
    kept = track.native["camera_R6"]
    assert np.array_equal(np.delete(blocks.R6, 2, 0), np.delete(kept, 2, 0))
    d = np.diag([-1.0, -1.0, 1.0])
    assert np.allclose(blocks.R6[2], rotation_6d_from_matrix((d @ R[2]).T))
    assert np.allclose(blocks.t[2], d @ t[2])


# --- other sizes, other trackers ------------------------------------------------------------------


@pytest.mark.parametrize("side", [768, 1024, 130])
def test_recropped_images_are_cut_from_the_source_and_K_follows(
    side: int, make_track: MakeTrack, tmp_path: Path
) -> None:
    folder, truth = make_track(bbox=(150, 510, 0, 359), crop_size=250)
    track = read(folder)
    write(track, tmp_path / "out", size=side, with_source="all")
    again = read(tmp_path / "out")
    assert again.crop is not None
    assert again.crop.output == again.intrinsics.size == Size(side, side)
    assert track.source_frames is not None
    assert again.crop_frames is not None
    assert np.array_equal(
        again.crop_frames.read(3), render_crop(track.source_frames.read(3), again.crop)
    )
    for i in range(len(track)):
        true = truth.project(i, truth.vertices[i], "source")
        seen = again.in_source().project(i, truth.vertices[i])
        assert np.abs(seen - true).max() < 0.001
    assert np.allclose(again.landmarks, track.landmarks * (side / 250), atol=1e-3)


def test_recropped_images_of_other_frames_are_refused(
    make_track: MakeTrack, tmp_path: Path
) -> None:
    track = read(make_track()[0])
    frames = track.source_frames
    assert isinstance(frames, ImageFiles)
    shifted = replace(frames, paths=(*frames.paths[3:], *frames.paths[:3]))
    with pytest.raises(TargetError, match="lie on the tracker's crops"):
        write(replace(track, source_frames=shifted), tmp_path / "out", size=512)
    assert list(tmp_path.iterdir()) == []


def imported(make_track: MakeTrack, **spec: Any) -> tuple[Track, Any]:
    """A track as sources of other trackers give it: K of the source frame, no crop."""
    folder, truth = make_track(**spec)
    track = read(folder).in_source()
    size = track.intrinsics.size
    landmarks = track.require_crop().source_from_crop(track.landmarks)
    provenance = replace(track.provenance, tracker="another")
    return replace(
        track,
        crop=Crop.whole(size, size),
        landmarks=landmarks,
        dense_landmarks=None,
        crop_frames=None,
        native={},
        provenance=provenance,
    ), truth


@pytest.mark.parametrize("side", [None, 300])
def test_an_imported_track_gets_a_square_round_the_head(
    make_track: MakeTrack, tmp_path: Path, side: int | None
) -> None:
    track, truth = imported(make_track)
    write(track, tmp_path / "out", size=side, with_source="all")
    again = read(tmp_path / "out")
    assert again.crop is not None
    assert again.crop.output == Size(side or 512, side or 512)
    assert np.allclose(again.intrinsics.fx, again.intrinsics.fy, rtol=1e-6)
    box = again.crop.bbox
    assert box.size.width % 2 == box.size.height % 2 == 0
    for i in range(len(track)):
        true = truth.project(i, truth.vertices[i], "source")
        assert np.abs(again.in_source().project(i, truth.vertices[i]) - true).max() < 0.01
        face = true[truth.landmark_vertices]
        assert np.all((face > [box.x_min, box.y_min]) & (face < [box.x_max, box.y_max]))


def test_unequal_focal_lengths_leave_the_camera_block_out(
    make_track: MakeTrack, tmp_path: Path
) -> None:
    track = read(make_track()[0])
    k = track.intrinsics
    squeezed = replace(track, intrinsics=Intrinsics(k.fx, k.fy * 1.1, k.cx, k.cy, k.size))
    squeezed = replace(squeezed, native={}, meshes=None, landmarks=None, dense_landmarks=None)
    written = write(squeezed, tmp_path / "out", with_source="none")
    assert [f.check for f in written.findings if f.check == "camera-block"]
    assert np.allclose(read(tmp_path / "out").intrinsics.matrix, squeezed.intrinsics.matrix)


# --- what real programs read ----------------------------------------------------------------------


def test_torch_reads_the_files_under_numpy_1_names(make_track: MakeTrack, tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    track = read(make_track()[0])
    write(track, tmp_path / "out", with_source="none")
    frame = tmp_path / "out" / "output" / "ada" / "checkpoint" / "00003.frame"
    assert b"numpy.core.multiarray\n_reconstruct" in frame.read_bytes()
    assert b"numpy._core" not in frame.read_bytes()
    loaded = torch.load(frame, weights_only=False)
    assert loaded["opencv"]["R"].dtype == np.float32
    assert np.array_equal(loaded["opencv"]["R"][0], track.w2c.R[3])
    assert loaded["frame_id"] == "00003"
    assert loaded["img_size"].dtype == np.int64
    assert isinstance(loaded["global_step"], int)
    bbox = torch.load(tmp_path / "out" / "input" / "ada" / "bbox.pt", weights_only=False)
    assert bbox.dtype == np.int64
    assert bbox.shape == (4,)


def test_real_frames_have_the_same_keys_and_types(make_track: MakeTrack, tmp_path: Path) -> None:
    folder, truth = make_track()
    write(read(folder), tmp_path / "out", with_source="none")
    real: Any = read_torch(truth.output / "checkpoint" / "00002.frame").content
    ours: Any = read_torch(tmp_path / "out/output/ada/checkpoint/00002.frame").content
    assert list(real) == list(ours)
    for block in ("flame", "camera", "opencv"):
        assert list(real[block]) == list(ours[block])
        for key, value in real[block].items():
            assert value.dtype == ours[block][key].dtype
            assert np.array_equal(value, ours[block][key]), (block, key)
    assert np.array_equal(real["img_size"], ours["img_size"])
    assert (real["frame_id"], real["global_step"]) == (ours["frame_id"], ours["global_step"])


# --- faults are seen ------------------------------------------------------------------------------


def reseal(out: Path) -> None:
    """Make the manifest's hashes right again, so that only the contents speak."""
    manifest = json.loads((out / "uncrop.json").read_text())
    manifest["files"] = {name: sha256_of(out / name) for name in manifest["files"]}
    (out / "uncrop.json").write_text(json.dumps(manifest))


def _both_blocks(change: Callable[[Any, Any], tuple[Any, Any]]) -> Callable[[Path], None]:
    """Write other poses into both blocks of every frame, consistently."""

    def damage(checkpoint: Path) -> None:
        d = np.diag([-1.0, -1.0, 1.0])

        def edit(content: dict[str, Any]) -> None:
            R, t = change(content["opencv"]["R"][0].astype(float), content["opencv"]["t"][0])
            content["opencv"]["R"] = R[None].astype(np.float32)
            content["opencv"]["t"] = t[None].astype(np.float32)
            content["camera"]["R"] = rotation_6d_from_matrix((d @ R).T)[None].astype(np.float32)
            content["camera"]["t"] = (d @ t)[None].astype(np.float32)

        for path in checkpoint.glob("*.frame"):
            edit_frame(path, edit)

    return damage


def _one_block(block: str) -> Callable[[Path], None]:
    def damage(checkpoint: Path) -> None:
        def edit(content: dict[str, Any]) -> None:
            content[block]["t"] = content[block]["t"] + np.float32(1e-4)

        edit_frame(checkpoint / "00003.frame", edit)

    return damage


def _shifted(checkpoint: Path) -> None:
    """Every frame holds its neighbour's camera under its own number."""
    contents: list[Any] = [read_torch(p).content for p in sorted(checkpoint.glob("*.frame"))]
    for path, other in zip(sorted(checkpoint.glob("*.frame")), contents[1:], strict=False):

        def edit(content: dict[str, Any], other: Any = other) -> None:
            content["opencv"], content["camera"] = other["opencv"], other["camera"]

        edit_frame(path, edit)


FLIP = np.diag([1.0, -1.0, -1.0])
DAMAGES: dict[str, Callable[[Path], None]] = {
    "axis flip": _both_blocks(lambda R, t: (FLIP @ R @ FLIP, t)),
    "R transposed": _both_blocks(lambda R, t: (R.T, t)),
    "camera block off": _one_block("camera"),
    "opencv block off": _one_block("opencv"),
    "frame number shifted": _shifted,
}


@pytest.mark.parametrize("name", DAMAGES)
def test_a_wrong_camera_is_seen(name: str, make_track: MakeTrack, tmp_path: Path) -> None:
    out = tmp_path / "out"
    write(read(make_track()[0]), out, with_source="none")
    DAMAGES[name](out / "output" / "ada" / "checkpoint")
    reseal(out)
    findings = TARGET.check(out)
    assert [f for f in findings if f.check == "reprojection" and f.severity == "error"], findings


def test_shifted_images_are_seen_by_content(make_track: MakeTrack, tmp_path: Path) -> None:
    out = tmp_path / "out"
    write(read(make_track()[0]), out, with_source="none")
    images = sorted((out / "input" / "ada" / "images").iterdir())
    contents = [p.read_bytes() for p in images]
    for path, data in zip(images, contents[1:], strict=False):
        path.write_bytes(data)
    reseal(out)
    assert [f for f in TARGET.check(out) if f.severity == "error"]


def test_moved_landmarks_and_an_altered_file_are_seen(
    make_track: MakeTrack, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    write(read(make_track()[0]), out, with_source="none")
    path = next((out / "input" / "ada" / "kpt").iterdir())
    np.save(path, np.load(path) + np.float32(1))
    assert "file-changed" in [f.check for f in TARGET.check(out)]
    reseal(out)
    assert [f.check for f in TARGET.check(out) if f.severity == "error"] == ["landmarks-off"]


# --- refusals -------------------------------------------------------------------------------------


def test_refuses_what_the_layout_cannot_hold(make_track: MakeTrack, tmp_path: Path) -> None:
    track = read(make_track()[0])
    crop = track.require_crop()
    odd = replace(track, crop=replace(crop, pad_x=crop.pad_x + 3))
    t = track.w2c.t * np.array([1, 1, -1])
    cases: list[tuple[Track, dict[str, Any], type[Exception], str]] = [
        (odd.in_source(), {}, TargetError, "a crop that the tracker makes"),
        (replace(track, w2c=Pose(track.w2c.R, t)), {}, TargetError, "in front of the camera"),
        (replace(track, source_frames=None), {"size": 768}, MissingInputError, "source frames"),
        (track, {"size": 7}, TargetError, "64 to 4096"),
        (replace(track, crop=None), {"size": 768}, MissingInputError, "bbox.pt"),
        (replace(track, frame_ids=track.frame_ids * 3 + 40), {}, TargetError, "no faster"),
    ]
    for case, options, error, message in cases:
        with pytest.raises(error, match=message):
            write(case, tmp_path / "out", **options)
    assert list(tmp_path.iterdir()) == []


def test_black_images_keep_the_numbers_of_the_others(make_track: MakeTrack, tmp_path: Path) -> None:
    track = read(make_track(missing_frames=(4, 5), begin_frames=1)[0])
    write(track, tmp_path / "out", with_source="none")
    images = sorted(p.name for p in (tmp_path / "out" / "input" / "ada" / "images").iterdir())
    assert images == [f"{n:05d}.png" for n in range(2, 14)]
    assert not read_image(tmp_path / "out" / "input" / "ada" / "images" / "00006.png").any()


# --- the real track -------------------------------------------------------------------------------


@pytest.mark.shared
def test_duda_comes_back_bit_by_bit(shared_data: Path, tmp_path: Path) -> None:
    track = read(shared_data / "duda")
    written = write(track, tmp_path / "out")
    again = read(tmp_path / "out")
    assert_same(track, again)
    assert_same_files(track, again)
    assert any("max reprojection difference 0.0000" in line for line in written.summary)
    assert (tmp_path / "out" / "proof.jpg").stat().st_size > 100_000


def test_depth_is_carried_over_and_moved_with_the_crops(
    make_track: MakeTrack, tmp_path: Path
) -> None:
    folder, _ = make_track(n_frames=3, begin_frames=1, depth=True)
    track = registry.read_track(folder, ReadOptions(hash_inputs=False))
    assert track.depth is not None
    side = track.intrinsics.size.width
    for size in (None, 2 * side):
        out = tmp_path / f"{size}"
        TARGET.write(track, out, TARGET.options(size=size), overwrite=False, progress=no_progress)
        again = registry.read_track(out, ReadOptions(hash_inputs=False))
        assert again.depth is not None
        found, kept = again.depth.read(1), track.depth.read(1)
        expected = kept if size is None else np.kron(kept, np.ones((2, 2), np.uint16))
        assert np.array_equal(found, expected)
