"""What goes into a bundle comes out of it, bit for bit, and the same track gives the same bytes."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from converter import registry
from converter.bundle.contents import BundleMeshes, BundleVideo, EncodedFrames
from converter.bundle.read import check_bundle, read_bundle
from converter.bundle.write import write_bundle
from converter.errors import ConventionError, OutputError, TargetError
from converter.geometry.pixels import Size
from converter.geometry.pose import Pose
from converter.media.images import ImageFiles
from converter.media.video import VideoFrames
from converter.registry import ReadOptions
from converter.track import Track, VideoFile
from tests.bundle.tools import assert_same, full_track, without_images
from tests.conftest import REPOSITORY, MakeTrack
from tests.strategies import tracks


@settings(max_examples=25)
@given(tracks(), st.sampled_from(["crop", "source"]))
def test_any_track_comes_back(
    tmp_path_factory: pytest.TempPathFactory, track: Track, space: str
) -> None:
    path = tmp_path_factory.mktemp("t") / "t.h5"
    track = track.in_source() if space == "source" else track
    write_bundle(track, path)
    assert_same(read_bundle(path), track)
    assert check_bundle(path) == []


def variants() -> dict[str, Track]:
    track = full_track()
    no_source = replace(track, crop=replace(track.crop, source=None))  # type: ignore[type-var]
    return {
        "everything": track,
        "one frame": replace(
            without_everything(track), frame_ids=track.frame_ids[:1], w2c=track.w2c[:1],
            intrinsics=track.intrinsics[:1], source_indices=None,
        ),
        "cameras only": without_everything(track),
        "no crop": replace(track, crop=None),
        "no source size": no_source,
        "source space": track.in_source(),
        "no faces": replace(track, meshes=replace(track.meshes, faces=np.zeros((0, 3), "i4"))),  # type: ignore[type-var]
        "all landmarks lost": replace(track, landmarks=np.full((3, 68, 2), np.nan)),
        "many frames": without_everything(full_track(2500)),
    }  # fmt: skip


def without_everything(track: Track) -> Track:
    return Track(
        track.name, track.frame_ids, track.w2c, track.intrinsics, track.image_space, track.crop
    )


@pytest.mark.parametrize("name", variants())
def test_variants_come_back(name: str, tmp_path: Path) -> None:
    track = variants()[name]
    write_bundle(track, tmp_path / "t.h5")
    again = read_bundle(tmp_path / "t.h5")
    assert_same(again, track)
    write_bundle(again, tmp_path / "u.h5")
    assert (tmp_path / "t.h5").read_bytes() == (tmp_path / "u.h5").read_bytes()


def test_synthetic_track_with_source_images(make_track: MakeTrack, tmp_path: Path) -> None:
    folder, _ = make_track(n_frames=3, source="both")
    track = registry.source("metrical_tracker").read(folder, ReadOptions())
    write_bundle(track, tmp_path / "t.h5", with_images=True)
    assert_same(read_bundle(tmp_path / "t.h5"), track)


# ------------------------------------------------------------------ images
def test_images_and_video_are_the_files_themselves(sample_track: Track, whole: Path) -> None:
    again = read_bundle(whole)
    assert_same(again, sample_track)
    assert isinstance(sample_track.crop_frames, ImageFiles)
    assert isinstance(again.crop_frames, EncodedFrames)
    for index, path in enumerate(sample_track.crop_frames.paths):
        assert again.crop_frames.encoded(index) == path.read_bytes()
    assert again.crop_frames.size == sample_track.crop_frames.size
    assert isinstance(sample_track.source_frames, VideoFrames)
    assert isinstance(again.source_frames, BundleVideo)
    assert again.video is not None
    assert again.video.locate().read_bytes() == sample_track.source_frames.path.read_bytes()
    some = [0, 5, len(again) - 1]
    pairs = zip(
        again.source_frames.stream(some), sample_track.source_frames.stream(some), strict=True
    )
    assert all(np.array_equal(a, b) for a, b in pairs)
    assert again.source_frames.name(5) == sample_track.source_frames.name(5)


def test_bundle_of_a_bundle_is_the_same_file(whole: Path, tmp_path: Path) -> None:
    write_bundle(read_bundle(whole), tmp_path / "b.h5", with_images=True)
    assert (tmp_path / "b.h5").read_bytes() == whole.read_bytes()


def test_sound_of_another_file_than_the_frames(
    sample_track: Track, whole: Path, tmp_path: Path
) -> None:
    """Source frames as images, and a video for the sound alone."""
    frames = sample_track.crop_frames
    track = replace(sample_track, source_frames=frames)
    write_bundle(track, tmp_path / "b.h5", with_images=True)
    again = read_bundle(tmp_path / "b.h5")
    assert isinstance(again.source_frames, EncodedFrames)
    assert isinstance(frames, ImageFiles)
    assert again.source_frames.encoded(1) == frames.paths[1].read_bytes()
    assert sample_track.video is not None
    assert again.video is not None
    assert again.video.name == sample_track.video.name
    assert again.video.locate().read_bytes() == sample_track.video.locate().read_bytes()


@dataclass(frozen=True)
class Drawn:
    """`converter.track.Frames` that are computed."""

    n: int
    size: Size = Size(20, 10)
    origin: str = "drawn"

    def __len__(self) -> int:
        return self.n

    def name(self, index: int) -> str:
        return str(index)

    def read(self, index: int) -> np.ndarray:
        return np.full((10, 20, 3), index * 40, np.uint8)

    def stream(self, indices: Sequence[int]) -> Any:
        return map(self.read, indices)


def test_computed_images_are_stored_without_loss(tmp_path: Path) -> None:
    write_bundle(replace(full_track(), crop_frames=Drawn(3)), tmp_path / "t.h5", with_images=True)
    frames = read_bundle(tmp_path / "t.h5").crop_frames
    assert frames is not None
    assert [int(image.min()) for image in frames.stream(range(3))] == [0, 40, 80]
    assert frames.size == Size(20, 10)


def test_without_images_none_are_in(sample_track: Track, tmp_path: Path) -> None:
    write_bundle(sample_track, tmp_path / "t.h5")
    again = read_bundle(tmp_path / "t.h5")
    assert (again.crop_frames, again.source_frames, again.video) == (None, None, None)
    assert_same(again, without_images(sample_track))


def test_mean_mesh_only(tmp_path: Path) -> None:
    track = full_track()
    write_bundle(track, tmp_path / "t.h5", meshes="mean")
    again = read_bundle(tmp_path / "t.h5")
    assert track.meshes is not None
    assert isinstance(again.meshes, BundleMeshes)
    assert again.meshes.every is None
    assert np.array_equal(again.meshes.vertices(2), track.meshes.mean)
    with pytest.raises(IndexError):
        again.meshes.vertices(3)
    write_bundle(again, tmp_path / "u.h5")  # not N copies of the mean
    assert (tmp_path / "t.h5").read_bytes() == (tmp_path / "u.h5").read_bytes()


# ------------------------------------------------------------------ the same bytes
def test_same_bytes_whatever_the_environment(whole: Path, tmp_path: Path) -> None:
    script = (
        "import sys, pathlib\n"
        "from converter import registry\n"
        "from converter.bundle.write import write_bundle\n"
        "track = registry.source('metrical_tracker').read(\n"
        "    pathlib.Path(sys.argv[1]), registry.ReadOptions())\n"
        "write_bundle(track, pathlib.Path(sys.argv[2]), with_images=True)\n"
    )
    out = tmp_path / "other.h5"
    environment = {
        **os.environ, "TZ": "Pacific/Kiritimati", "PYTHONHASHSEED": "4711", "LC_ALL": "C",
        "PYTHONUTF8": "0", "OMP_NUM_THREADS": "1",
    }  # fmt: skip
    arguments = [sys.executable, "-c", script, str(REPOSITORY / "fixtures" / "sample"), str(out)]
    subprocess.run(arguments, check=True, env=environment, cwd=REPOSITORY)
    assert digest(out) == digest(whole)


def test_same_bytes_whatever_the_order(bundle: Path, tmp_path: Path) -> None:
    track = full_track()
    native = dict(reversed(list(track.native.items())))
    write_bundle(replace(track, native=native), tmp_path / "other.h5")
    assert digest(tmp_path / "other.h5") == digest(bundle)


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


# ------------------------------------------------------------------ files and handles
def test_many_threads_read_one_bundle(whole: Path) -> None:
    track = read_bundle(whole)
    assert track.meshes is not None
    assert track.crop_frames is not None
    expected = [track.meshes.vertices(i).tobytes() for i in range(len(track))]
    images = [digest_of(track.crop_frames.read(i)) for i in range(4)]
    with ThreadPoolExecutor(8) as pool:
        work = list(range(len(track))) * 5
        found = list(pool.map(track.meshes.vertices, work))
        again = list(pool.map(track.crop_frames.read, list(range(4)) * 5))
    assert [v.tobytes() for v in found] == [expected[i] for i in work]
    assert [digest_of(image) for image in again] == images * 5


def digest_of(array: np.ndarray) -> str:
    return hashlib.sha256(array.tobytes()).hexdigest()


@pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="lists descriptors by /proc")
def test_nothing_stays_open_and_no_copy_behind(whole: Path) -> None:
    def is_open() -> bool:
        links = [p for p in Path("/proc/self/fd").iterdir() if p.is_symlink()]
        return any(os.path.realpath(p) == os.path.realpath(whole) for p in links)

    track = read_bundle(whole)
    assert track.video is not None
    assert track.meshes is not None
    track.meshes.vertices(0)
    copy = track.video.locate()
    assert copy.is_file()
    assert is_open()
    del track
    assert not is_open()
    assert not copy.exists()
    check_bundle(whole)
    assert not is_open()


def test_a_track_outlives_its_file(bundle: Path) -> None:
    """``convert t.h5 --to bundle -o t.h5 --overwrite`` replaces what it reads from."""
    track = read_bundle(bundle)
    write_bundle(track, bundle, meshes="mean", overwrite=True)
    assert track.meshes is not None
    assert np.array_equal(track.meshes.vertices(1), full_track().meshes.vertices(1))  # type: ignore[union-attr]


# ------------------------------------------------------------------ what is not written
def test_native_arrays_without_a_place_are_refused(tmp_path: Path) -> None:
    track = replace(full_track(), native={"gaze": np.zeros((3, 2))})
    with pytest.raises(TargetError, match="gaze"):
        write_bundle(track, tmp_path / "t.h5")
    with pytest.raises(TargetError, match="gaze"):
        registry.target("bundle").require(track, None)
    assert list(tmp_path.iterdir()) == []


BROKEN = {
    "NaN camera": lambda t: replace(t, w2c=Pose(t.w2c.R, t.w2c.t * np.nan)),
    "mirrored camera": lambda t: replace(t, w2c=Pose(-t.w2c.R, t.w2c.t)),
    "NaN expression": lambda t: replace(
        t, flame=replace(t.flame, expression=np.full((3, 100), np.nan))
    ),
    "wrong shape": lambda t: replace(t, landmarks=np.zeros((3, 67, 2))),
    "odd name": lambda t: replace(t, name="../../etc"),
    "empty name": lambda t: replace(t, name=""),
    "NUL in a name": lambda t: replace(t, name="a\0b"),
    "negative index": lambda t: replace(t, source_indices=t.source_indices - 100),
    "fps 0": lambda t: replace(t, fps=0.0, source_indices=None),
    "numbers that do not fit": lambda t: replace(t, frame_ids=t.frame_ids + 0.5),
    "faces of other vertices": lambda t: replace(
        t, meshes=replace(t.meshes, faces=t.meshes.faces + 1)
    ),
}


@pytest.mark.parametrize("name", BROKEN)
def test_what_could_not_be_read_back_is_not_written(name: str, tmp_path: Path) -> None:
    with pytest.raises((ConventionError, OutputError)) as caught:
        write_bundle(BROKEN[name](full_track()), tmp_path / "t.h5")
    assert ".partial" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_a_broken_camera_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    """By its own name, and without touching the place of the output."""
    with pytest.raises(ConventionError, match="ada-1: w2c"):
        write_bundle(BROKEN["NaN camera"](full_track()), tmp_path / "no folder" / "t.h5")


def test_an_image_that_grows_while_it_is_read(tmp_path: Path) -> None:
    import cv2

    from converter.bundle import write

    paths = [tmp_path / f"{i}.png" for i in range(3)]
    for path in paths:
        cv2.imwrite(str(path), np.zeros((8, 8, 3), np.uint8))
    frames = ImageFiles.of(paths)

    def grow(stage: str, done: int, total: int) -> None:
        if stage == "write crop images" and done == 1:
            paths[2].write_bytes(paths[2].read_bytes() + b"x")

    with pytest.raises(write.FormatError, match="changed"):
        write_bundle(replace(full_track(), crop_frames=frames), tmp_path / "t.h5",
                     with_images=True, progress=grow)  # fmt: skip
    assert not (tmp_path / "t.h5").exists()


def test_a_full_disk_leaves_nothing(tmp_path: Path) -> None:
    """At the first bytes, among the metadata, among the data; HDF5 alone dies of it (SIGSEGV)."""
    script = (
        "import sys, pathlib, resource\n"
        "from converter.bundle.write import write_bundle\n"
        "from converter.errors import OutputError\n"
        "from tests.bundle.tools import full_track\n"
        "for limit in (100, 3000, 20_000, 60_000):\n"
        "    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))\n"
        "    try:\n"
        "        write_bundle(full_track(), pathlib.Path(sys.argv[1]))\n"
        "    except OutputError as error:\n"
        "        print(error)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path / "t.h5")],
        capture_output=True, text=True, cwd=REPOSITORY,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
    found = f"{tmp_path}/t.h5: expected a place that can be written, found File too large.\n"
    assert done.stdout == 4 * found
    assert list(tmp_path.iterdir()) == []


def test_what_is_there_stays(tmp_path: Path) -> None:
    (tmp_path / "t.h5").write_bytes(b"mine")
    with pytest.raises(OutputError, match="overwrite"):
        write_bundle(full_track(), tmp_path / "t.h5")
    assert (tmp_path / "t.h5").read_bytes() == b"mine"


@pytest.mark.shared
def test_the_real_track(shared_data: Path, tmp_path: Path) -> None:
    track = registry.source("metrical_tracker").read(shared_data / "duda", ReadOptions())
    write_bundle(track, tmp_path / "t.h5", with_images=True)
    again = read_bundle(tmp_path / "t.h5")
    assert_same(again, track)
    assert check_bundle(tmp_path / "t.h5") == []
    assert isinstance(track.video, VideoFile)
    assert again.video is not None
    assert digest(again.video.locate()) == digest(track.video.locate())
