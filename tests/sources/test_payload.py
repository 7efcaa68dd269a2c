"""What one .frame may look like: every known variant reads, everything else is refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from converter.errors import ConventionError, FormatError, UncropError, UnsafeFileError
from converter.geometry.crop import BBox
from converter.geometry.pixels import Size
from converter.media.limits import DEFAULT_LIMITS
from converter.media.torchfile import read_torch, write_torch
from converter.sources.metrical_tracker.payload import FramePayload, read_frame
from converter.sources.metrical_tracker.reader import read_bbox
from tests.conftest import MakeTrack
from tests.damage import edit_frame
from tests.sources.reading import SMALL, checks, read

BARE = {**SMALL, "n_frames": 4, "pictures": False, "mesh": False, "kpt": False, "kpt_dense": False}

Content = dict[str, Any]
Change = Callable[[Content], None]


@pytest.fixture
def frame(own_track: MakeTrack) -> Path:
    _, truth = own_track(**BARE)
    return truth.output / "checkpoint" / "00002.frame"


def read_changed(path: Path, change: Change) -> FramePayload:
    edit_frame(path, change)
    return read_frame(path, DEFAULT_LIMITS)


def assert_same(a: FramePayload, b: FramePayload) -> None:
    for name in ("K", "R", "t"):
        np.testing.assert_array_equal(getattr(a, name), getattr(b, name))
    assert a.frame_id == b.frame_id
    assert a.img_size == b.img_size
    assert a.flame.keys() == b.flame.keys()
    for name, block in a.flame.items():
        np.testing.assert_array_equal(block, b.flame[name])


def each_array(content: Content, change: Callable[[Any], Any]) -> None:
    for block in (content["flame"], content["camera"], content["opencv"]):
        for name in block:
            block[name] = change(block[name])


def without_batch(c: Content) -> None:
    each_array(c, lambda a: a[0])


def column_t(c: Content) -> None:
    c["opencv"]["t"] = c["opencv"]["t"].reshape(1, 3, 1)


def double_batch(c: Content) -> None:
    each_array(c, lambda a: a[None])


def as_lists(c: Content) -> None:
    each_array(c, lambda a: a.tolist())
    c["img_size"] = c["img_size"].tolist()


def int_id(c: Content) -> None:
    c["frame_id"] = int(c["frame_id"])


def array_id(c: Content) -> None:
    c["frame_id"] = np.array([int(c["frame_id"])])


def extras(c: Content) -> None:
    c["note"], c["depth"] = "hello", {"a": [1, 2, np.zeros(3)]}
    c["camera"]["near"] = 0.1


def fortran(c: Content) -> None:
    c["opencv"]["R"] = np.asfortranarray(c["opencv"]["R"])


def doubles(c: Content) -> None:
    c["opencv"]["R"] = c["opencv"]["R"].astype(np.float64)


@pytest.mark.parametrize(
    "change",
    [without_batch, column_t, double_batch, as_lists, int_id, array_id, extras, fortran, doubles],
)
def test_variants_mean_the_same(frame: Path, change: Change) -> None:
    plain = read_frame(frame, DEFAULT_LIMITS)
    assert plain.global_step == 1872 + 314 * 3
    assert plain.img_size == Size(128, 128)
    assert_same(read_changed(frame, change), plain)


def test_tensors(frame: Path) -> None:
    plain = read_frame(frame, DEFAULT_LIMITS)
    write_torch(frame, read_torch(frame).content, stem="00002", tensors=True)
    assert_same(read_frame(frame, DEFAULT_LIMITS), plain)


@pytest.mark.parametrize("key", ["tex", "sh", "exp", "eyelids", "jaw", "eyes", "shape"])
def test_missing_flame_blocks(frame: Path, key: str) -> None:
    payload = read_changed(frame, lambda c: c["flame"].pop(key))
    assert key not in payload.flame
    assert getattr(read(frame.parent).flame, {"tex": "texture", "sh": "light"}.get(
        key, {"exp": "expression"}.get(key, key))) is None  # fmt: skip


def test_missing_global_step_and_blocks(frame: Path) -> None:
    assert read_changed(frame, lambda c: c.pop("global_step")).global_step is None
    assert read_changed(frame, lambda c: c.pop("flame")).flame == {}
    assert read_changed(frame, lambda c: c.pop("camera")).camera is None
    assert read_changed(frame, lambda c: c.pop("img_size")).img_size is None
    assert read_changed(frame, lambda c: c.pop("frame_id")).frame_id is None
    assert len(read(frame.parent)) == 4


def test_blocks_of_forks_are_named(frame: Path) -> None:
    def change(c: Content) -> None:
        c["flame"]["global"] = np.zeros(3, np.float32)
        c["flame"]["neck"] = np.zeros((1, 6), np.float32)

    assert read_changed(frame, change).unread == ("global", "neck")
    said = [str(f) for f in read(frame.parent).findings if f.check == "flame-unread"]
    assert said == [
        "flame: global, neck: blocks that the tracker itself does not write are not read."
    ]


def n_cameras(c: Content) -> None:
    c["opencv"]["K"] = np.repeat(c["opencv"]["K"], 4, axis=0)


def joint(c: Content) -> None:
    c["sparse_frame"] = [0, 1]
    c["opencv"] = [c["opencv"], c["opencv"]]


def put(block: str, key: str, value: object) -> Change:
    def change(c: Content) -> None:
        c[block][key] = value

    return change


def top(key: str, value: object) -> Change:
    def change(c: Content) -> None:
        c[key] = value

    return change


EYE = np.eye(3, dtype=np.float32)

REFUSED: list[tuple[Change, type[UncropError], str]] = [
    (n_cameras, ConventionError, "opencv.K: expected 1x3x3 float, found 4 cameras. Tracks of"),
    (joint, FormatError, "expected one frame, found lists over frames (a joint-optimisation fork)"),
    (lambda c: c.pop("opencv"), FormatError, "expected the keys flame, camera, opencv, img_size, "
     "found camera, flame, frame_id"),
    (lambda c: c["opencv"].pop("t"), FormatError, "opencv.t: expected 1x3 float, found nothing"),
    (top("opencv", [1]), FormatError, "opencv: expected a dictionary, found list"),
    (put("opencv", "K", np.zeros((1, 4, 4))), FormatError,
     "opencv.K: expected 1x3x3 float, found 1x4x4 float64. Was this written by metrical-tracker?"),
    (put("opencv", "K", [[1.0, 2.0], [3.0]]), FormatError, "found a ragged list"),
    (put("opencv", "K", [[{}] * 3] * 3), FormatError, "found a list of other things"),
    (put("opencv", "K", "text"), FormatError, "found text"),
    (put("opencv", "K", None), FormatError, "found none"),
    (put("opencv", "K", {"a": 1}), FormatError, "found a dictionary"),
    (put("opencv", "K", EYE.astype(bool)), FormatError, "found bool numbers"),
    (put("opencv", "K", [[10**30] * 3] * 3), FormatError, "found a list of other things"),
    (put("opencv", "K", EYE.astype(np.float64) * 1e300), ConventionError,
     "expected numbers up to 1e+09, found 1e+300"),
    (put("opencv", "t", np.full((1, 3), np.nan)), ConventionError,
     "opencv.t: expected finite numbers, found NaN or infinity"),
    (put("flame", "exp", np.full((1, 100), np.inf)), ConventionError, "flame.exp: expected finite"),
    (put("camera", "fl", np.full((1, 1), -np.inf)), ConventionError, "camera.fl: expected finite"),
    (put("flame", "jaw", np.zeros((1, 3))), FormatError, "flame.jaw: expected 1x6 float"),
    (put("flame", "exp", np.zeros((1, 2, 50))), FormatError, "flame.exp: expected 1xN float"),
    (put("camera", "R", EYE[None]), FormatError, "camera.R: expected 1x6 float, found 1x3x3"),
    (top("img_size", np.array([512, 0])), ConventionError, "img_size: expected (height, width)"),
    (top("img_size", np.array([np.nan, 3])), ConventionError, "img_size: expected (height, width)"),
    (top("img_size", np.array([512])), FormatError, "img_size: expected 1x2 float, found 1 int64"),
    (top("img_size", [512.5, 512]), ConventionError, "found (512.5, 512)"),
    (top("frame_id", "../x"), FormatError, "frame_id: expected a whole number, found '../x'"),
    (top("frame_id", -1), FormatError, "frame_id: expected a whole number, found -1"),
    (top("frame_id", True), FormatError, "frame_id: expected a whole number, found True"),
    (top("frame_id", "9" * 5000), FormatError, "frame_id: expected a whole number, found '999"),
    (top("frame_id", [1]), FormatError, "frame_id: expected a whole number, found [1]"),
    (top("global_step", "many"), FormatError, "global_step: expected 1x1 float, found text"),
    (top("global_step", 0.5), FormatError, "global_step: expected a whole number, found 0.5"),
    (top("global_step", 10**40), FormatError, "global_step"),
]  # fmt: skip


@pytest.mark.parametrize(("change", "kind", "said"), REFUSED)
def test_refused_in_one_line(
    frame: Path, change: Change, kind: type[UncropError], said: str
) -> None:
    with pytest.raises(UncropError) as caught:
        read_changed(frame, change)
    assert type(caught.value) is kind
    text = str(caught.value)
    assert said in text
    assert text.startswith(str(frame))
    assert len(text) < len(str(frame)) + 250


@pytest.mark.parametrize("content", [[1, 2], 3, "text", None, np.zeros(3), {}])
def test_no_dictionary(frame: Path, content: Any) -> None:
    write_torch(frame, content, stem="00002", tensors=False)
    with pytest.raises(FormatError, match="00002"):
        read_frame(frame, DEFAULT_LIMITS)


def test_a_joint_checkpoint_is_refused_by_its_reason(frame: Path) -> None:
    folder = frame.parent
    write_torch(folder / "checkpoint.frame", {"sparse_frame": [1], "exp": [np.zeros(3)]},
                stem="checkpoint", tensors=False)  # fmt: skip
    for path in folder.glob("0*.frame"):
        path.unlink()
    with pytest.raises(FormatError, match="a joint-optimisation fork"):
        read(folder)


def test_renamed_files(frame: Path) -> None:
    content = read_torch(frame).content
    frame.with_name("00009.frame").write_bytes(frame.read_bytes())
    with pytest.raises(ConventionError, match=r"frame_id: expected 9, as the file is named, fou"):
        read(frame.parent)
    assert isinstance(content, dict)
    content["frame_id"] = "00009"
    write_torch(frame.with_name("00009.frame"), content, stem="00002", tensors=False)
    track = read(frame.parent)
    assert "frames-renamed" in checks(track)
    said = next(str(f) for f in track.findings if f.check == "frames-renamed")
    assert "was written as 00002.frame" in said


def test_two_files_of_one_frame(frame: Path) -> None:
    frame.with_name("2.frame").write_bytes(frame.read_bytes())
    with pytest.raises(FormatError, match="one file per frame, found"):
        read(frame.parent)


def test_names_that_are_no_numbers(frame: Path) -> None:
    frame.with_name("best.frame").write_bytes(frame.read_bytes())
    track = read(frame.parent)
    assert len(track) == 4
    assert "files-stray" in checks(track)
    for path in frame.parent.glob("0*.frame"):
        path.unlink()
    with pytest.raises(FormatError, match="frames named by number"):
        read(frame.parent)


def test_every_frame_is_damaged(frame: Path) -> None:
    for path in frame.parent.iterdir():
        path.write_bytes(b"")
    with pytest.raises(FormatError, match="an empty file"):
        read(frame.parent)
    with pytest.raises(FormatError, match=r"none of 4; 00000\.frame: an empty file"):
        read(frame.parent, skip_damaged=True)


# --- bbox.pt ----------------------------------------------------------------------------------


def saved(path: Path, content: Any, *, tensors: bool = False) -> Path:
    write_torch(path, content, stem="bbox", tensors=tensors)
    return path


@pytest.mark.parametrize(
    "content",
    [[1, 20, 3, 40], (1, 20, 3, 40), [1.0, 20.0, 3, 40], np.array([1, 20, 3, 40]),
     np.array([[1, 20, 3, 40]], np.float32), np.array([1, 20, 3, 40], np.int32)],
)  # fmt: skip
@pytest.mark.parametrize("tensors", [False, True])
def test_bbox(tmp_path: Path, content: Any, tensors: bool) -> None:
    path = saved(tmp_path / "bbox.pt", content, tensors=tensors)
    assert read_bbox(path, DEFAULT_LIMITS) == BBox(1, 20, 3, 40)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ([1, 20, 3], r"found \[1, 20, 3\]"),
        ([1, 20.5, 3, 40], r"found \[1\.0, 20\.5, 3\.0, 40\.0\]"),
        (["1", "20", "3", "40"], "found text"),
        ([True, True, False, True], "found bool values"),
        ([[1, 2], [3]], "found a ragged list"),
        ([np.nan, 1, 2, 3], "found .*nan"),
        ([0, 1e30, 0, 5], "found"),
        ([0, 10**30, 0, 5], "found object values"),
        ({"bbox": [1, 2, 3, 4]}, "found a dict"),
        ([{}] * 4, "found object values"),
        ("x", "found a str"),
        ([], "found"),
    ],
)
def test_bbox_refused(tmp_path: Path, content: Any, said: str) -> None:
    path = saved(tmp_path / "bbox.pt", content)
    with pytest.raises(FormatError, match=said):
        read_bbox(path, DEFAULT_LIMITS)


def test_bbox_of_corners(tmp_path: Path) -> None:
    path = saved(tmp_path / "bbox.pt", [787, 61, 1197, 471])
    with pytest.raises(ConventionError) as caught:
        read_bbox(path, DEFAULT_LIMITS)
    assert "the order x_min, y_min, x_max, y_max" in str(caught.value)
    assert "Its corners would be [787, 1197, 61, 471]." in str(caught.value)


# --- files of real writers --------------------------------------------------------------------

WRITERS = ["torch1.13_numpy1.23", "torch2.13_numpy1.26", "torch2.13_numpy2.4"]


@pytest.mark.shared
@pytest.mark.parametrize("writer", WRITERS)
@pytest.mark.parametrize("form", ["zip", "legacy"])
def test_every_frame_writers_track(shared_data: Path, writer: str, form: str) -> None:
    folder = shared_data / "frame-writers" / writer / form
    truth = np.load(folder / "truth.npz")
    arguments = json.loads((folder / "truth.json").read_text())["args"]
    track = read(folder)
    assert len(track) == len(truth["K"])
    np.testing.assert_allclose(track.intrinsics.matrix, truth["K"][0], atol=2e-4)
    np.testing.assert_allclose(track.w2c.R, truth["R"], atol=1e-5)
    np.testing.assert_allclose(track.w2c.t, truth["t"], atol=1e-6)
    assert track.crop is not None
    np.testing.assert_allclose(track.crop.crop_from_source.matrix, truth["A"], atol=1e-9)
    assert track.flame.expression is not None
    np.testing.assert_allclose(track.flame.expression, truth["exp"], atol=1e-6)
    stated = read(folder, begin_frames=arguments["begin_frames"])
    if form == "zip":
        assert stated.landmarks is not None
        np.testing.assert_allclose(stated.landmarks, truth["lmk_crop"], atol=1.01)


@pytest.mark.shared
@pytest.mark.parametrize("writer", WRITERS)
def test_every_frame_writers_file(shared_data: Path, writer: str) -> None:
    files = sorted((shared_data / "frame-writers" / writer / "edge").iterdir())
    assert len(files) == 12
    for path in files:
        if path.name == "objarr.frame":
            with pytest.raises(UnsafeFileError, match="arrays of objects, text or records"):
                read_frame(path, DEFAULT_LIMITS)
        elif path.suffix == ".frame":
            assert read_frame(path, DEFAULT_LIMITS).K[2, 2] == 1
        else:
            assert read_bbox(path, DEFAULT_LIMITS) == BBox(400, 1200, 200, 1000)
