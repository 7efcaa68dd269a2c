"""What stands still beside the head: proof of one box, by one source frame."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest

from converter.errors import UncropError
from converter.geometry.crop import BBox, Crop
from converter.geometry.pixels import Size
from converter.media.images import ImageFiles, list_images
from fitting.crop import CropCertificate, recover_crop
from fitting.crop.mapping import Mapping
from fitting.crop.pair import Pair, to_grey
from fitting.crop.still import _is_repeated, is_repeated_beside, looks_moved, stands_still
from fixtures.synthetic.crop_cases import (
    SMALL,
    Box,
    CropCase,
    Image,
    crop_of,
    cut,
    scene,
    write_case,
)

CASE = CropCase("still", (300, 780, 30, 510), source_size=SMALL, size=256, n_frames=5, seed=3)
SIZE = Size(*SMALL)


def recovered(folder: Path) -> CropCertificate:
    crops, sources = (ImageFiles.of(list_images(folder / n)) for n in ("crops", "source"))
    return recover_crop(crops, sources)


def mapping_of(box: Box, size: int) -> Mapping:
    return Mapping.of_crop(Crop.from_bbox(BBox(*box), SIZE, Size(size, size)))


def write(folder: Path, frames: list[Image], boxes: list[Box], size: int = 256) -> None:
    for name in ("crops", "source"):
        (folder / name).mkdir()
    for number, (frame, box) in enumerate(zip(frames, boxes, strict=True), 1):
        assert cv2.imwrite(str(folder / "source" / f"{number:05d}.png"), frame)
        assert cv2.imwrite(str(folder / "crops" / f"{number:05d}.png"), cut(frame, box, size))


def spoil(folder: Path, but: int) -> None:
    """Leave one source frame that can be read, by its number."""
    for path in list_images(folder / "source"):
        if int(path.stem) != but:
            path.write_bytes(path.read_bytes()[:200])


def test_one_source_frame_is_read_of_a_room_that_stands_still(tmp_path: Path) -> None:
    write_case(tmp_path, CASE)
    spoil(tmp_path, but=3)
    certificate = recovered(tmp_path)
    assert certificate.verdict == "exact"
    assert certificate.bbox == BBox(*CASE.bbox)
    assert (certificate.frames_checked, certificate.frames_still) == (1, 2)
    assert "every pixel of 1 of 5 frames equal; 2 more show the same room" in str(certificate)


def test_all_are_read_where_the_camera_moves(tmp_path: Path) -> None:
    frames = [np.roll(scene(CASE, i), i, axis=1) for i in range(CASE.n_frames)]
    write(tmp_path, frames, [CASE.bbox] * len(frames))
    certificate = recovered(tmp_path)
    assert certificate.bbox == BBox(*CASE.bbox)
    assert (certificate.frames_checked, certificate.frames_still) == (5, 0)
    assert [p.offset for p in certificate.pairs] == [0] * 5
    spoil(tmp_path, but=3)
    with pytest.raises(UncropError):
        recovered(tmp_path)


def test_all_are_read_where_numbers_may_be_wrong(tmp_path: Path) -> None:
    write_case(tmp_path, CASE)
    list_images(tmp_path / "source")[-1].unlink()
    assert recovered(tmp_path).frames_still == 0


def before_a_wall(head_at: tuple[int, int]) -> Image:
    """A head with texture in front of a wall with next to none."""
    frame = np.full((SIZE.height, SIZE.width, 3), 150, np.uint8)
    frame[:, ::8] += 2
    head = scene(CASE, 0)[150:390, 450:630]
    mask = np.zeros(head.shape[:2], np.uint8)
    cv2.ellipse(mask, (90, 120), (80, 110), 0, 0, 360, 255, -1)
    x, y = head_at
    frame[y : y + 240, x : x + 180][mask > 0] = head[mask > 0]
    return frame


@pytest.mark.parametrize("step", [(1, 0), (2, -1), (6, 4)])
def test_a_second_box_that_follows_the_head_is_named(tmp_path: Path, step: tuple[int, int]) -> None:
    """Before a bare wall its crops look like those of the first box: the head proves nothing."""
    dx, dy = step
    frames = [before_a_wall((450, 150))] * 3 + [before_a_wall((450 + dx, 150 + dy))] * 2
    x0, x1, y0, y1 = 400, 680, 130, 410
    first, second = (x0, x1, y0, y1), (x0 + dx, x1 + dx, y0 + dy, y1 + dy)
    write(tmp_path, frames, [first] * 3 + [second] * 2)
    certificate = recovered(tmp_path)
    assert certificate.cause == "two-boxes"
    assert str(list(second)) in certificate.reason


@pytest.mark.parametrize("step", [(3, 0), (5, -4)])
def test_a_crop_is_not_taken_for_that_of_the_frame_before(
    tmp_path: Path, step: tuple[int, int]
) -> None:
    """Only the last crop is of the second box, and looks like the first one of the frame before."""
    dx, dy = step
    frames = [before_a_wall((450, 150))] * 3 + [before_a_wall((450 + dx, 150 + dy))]
    x0, x1, y0, y1 = 440, 640, 160, 360
    first, second = (x0, x1, y0, y1), (x0 + dx, x1 + dx, y0 + dy, y1 + dy)
    write(tmp_path, frames, [first] * 3 + [second])
    assert recovered(tmp_path).cause == "two-boxes"


def before_tiles(period: tuple[int, int], head_at: tuple[int, int]) -> Image:
    """A head before a wall that shows the same again after each ``period``, (x, y)."""
    frame, (x, y) = before_a_wall(head_at), period
    tile = np.full((y, x), 150, np.uint8)
    cv2.circle(tile, (x // 2, y // 2), max(min(x, y) // 4, 2), 70, -1)
    cv2.line(tile, (0, y // 3), (x // 3, 0), 210, 1)
    wall = np.tile(tile, (SIZE.height // y + 1, SIZE.width // x + 1))[: SIZE.height, : SIZE.width]
    is_wall = np.isin(frame, (150, 152)).all(axis=2)
    frame[is_wall] = wall[is_wall][:, None]
    return frame


@pytest.mark.parametrize(
    ("period", "step"),
    [((12, 12), (12, 0)), ((9, 30), (0, -30)), ((40, 21), (80, 21)), ((110, 90), (-110, 0))],
)
@pytest.mark.parametrize("size", [256, 512])
def test_a_wall_that_repeats_by_the_step_to_a_second_box_proves_nothing(
    tmp_path: Path, period: tuple[int, int], step: tuple[int, int], size: int
) -> None:
    """The second box moves with the head, and by whole tiles: the room looks as it did."""
    dx, dy = step
    frames = [before_tiles(period, (450, 150))] * 3
    frames += [before_tiles(period, (450 + dx, 150 + dy))] * 2
    x0, x1, y0, y1 = 400, 680, 130, 410
    first, second = (x0, x1, y0, y1), (x0 + dx, x1 + dx, y0 + dy, y1 + dy)
    write(tmp_path, frames, [first] * 3 + [second] * 2, size)
    assert recovered(tmp_path).cause == "two-boxes"


@pytest.mark.parametrize(
    ("tile", "period"), [((4, 4), (4, 4)), ((18, 40), (180, 400))], ids=["fine", "coarse"]
)
def test_a_pattern_repeats_whether_it_is_fine_or_coarse(
    tile: tuple[int, int], period: tuple[int, int]
) -> None:
    """Fine ones vanish where the room is made small; coarse ones repeat far from the box."""
    box, frame = (340, 740, 70, 470), before_a_wall((450, 150))
    shown = np.random.default_rng(0).integers(60, 200, tile[::-1], np.uint8)
    shown = cv2.resize(shown, period, interpolation=cv2.INTER_LINEAR)
    wall = np.tile(shown, (SIZE.height // period[1] + 1, SIZE.width // period[0] + 1))
    is_wall = np.isin(frame, (150, 152)).all(axis=2)
    frame[is_wall] = wall[: SIZE.height, : SIZE.width][is_wall][:, None]
    first = Pair(to_grey(cut(frame, box, 512)), to_grey(frame))
    assert is_repeated_beside(first, mapping_of(box, 512))


@pytest.mark.parametrize("seed", [0, 1, 2])
@pytest.mark.parametrize("box", [(300, 780, 30, 510), (500, 720, 120, 340)])
def test_a_room_that_does_not_repeat_is_not_taken_for_one_that_does(seed: int, box: Box) -> None:
    frame = scene(replace(CASE, seed=seed, bbox=box), 0)
    first = Pair(to_grey(cut(frame, box, 512)), to_grey(frame))
    assert not is_repeated_beside(first, mapping_of(box, 512))


def test_of_a_tiny_box_little_can_be_told() -> None:
    frame = scene(CASE, 0)
    for box in ((500, 504, 120, 124), (500, 526, 120, 146), (0, 26, 0, 26)):
        first = Pair(to_grey(cut(frame, box, 256)), to_grey(frame))
        assert is_repeated_beside(first, mapping_of(box, 256)) in (True, False)
    one_block = np.zeros((16, 16), np.bool_)
    one_block[0, 0] = True
    assert _is_repeated(first, mapping_of(box, 256), one_block, 4, np.inf)


def striped(dx: int = 0) -> Image:
    """A head before a curtain, whose stripes say nothing of up and down, with a little noise."""
    frame = before_a_wall((450, 150))
    x = np.arange(SIZE.width, dtype=np.float32)
    curtain = 120 + 60 * np.sin(x / 5) + 30 * np.sin(x / 23)
    noise = np.random.default_rng(dx).normal(0, 1.5, (SIZE.height, SIZE.width))
    is_wall = np.isin(frame, (150, 152)).all(axis=2)
    frame[is_wall] = np.clip(curtain[None] + noise, 0, 255).astype(np.uint8)[is_wall][:, None]
    return frame


@pytest.mark.parametrize("step", [1, 4])
def test_stripes_do_not_say_where_they_are_along_themselves(step: int) -> None:
    box, apart = (400, 680, 130, 410), (400, 680, 130 + step, 410 + step)
    source, later = striped(), striped(1)
    first = Pair(to_grey(cut(source, box, 512)), to_grey(source))
    other = Pair(to_grey(cut(later, apart, 512)), to_grey(source), 1)
    assert not stands_still(first, other, mapping_of(box, 512))


def pairs_of(case: CropCase, index: int) -> tuple[Pair, Pair]:
    """The first crop and another, both with the first source frame."""
    frames = [scene(case, i) for i in (0, index)]
    crops = [crop_of(case, frame, i) for frame, i in zip(frames, (0, index), strict=True)]
    if case.crop_suffix == ".jpg":
        data = [cv2.imencode(".jpg", c, [cv2.IMWRITE_JPEG_QUALITY, 70])[1] for c in crops]
        crops = [np.asarray(cv2.imdecode(d, cv2.IMREAD_COLOR), np.uint8) for d in data]
    source = to_grey(frames[0])
    return Pair(to_grey(crops[0]), source), Pair(to_grey(crops[1]), source, 1)


@pytest.mark.parametrize("altered", ["", ".jpg", "gamma", "occluder", "faint noise", "sharp"])
@pytest.mark.parametrize("size", [256, 512])
def test_a_still_room_is_told_from_every_box_one_pixel_apart(altered: str, size: int) -> None:
    case = replace(CASE, size=size, alter=altered.removeprefix(".jpg"))
    case = replace(case, crop_suffix=".jpg") if altered == ".jpg" else case
    first, other = pairs_of(case, 2)
    mapping = mapping_of(case.bbox, size)
    if size == 512 or altered in ("", "occluder", "faint noise"):  # small ones leave some in doubt
        assert stands_still(first, other, mapping)
    for near in mapping.neighbours(SIZE):
        box = (near.x_min, near.x_max, near.y_min, near.y_max)
        _, apart = pairs_of(replace(case, bbox=box), 2)
        assert not stands_still(first, apart, mapping), near


def test_heads_alone_prove_nothing() -> None:
    source = to_grey(before_a_wall((450, 150)))
    crop = to_grey(cut(before_a_wall((450, 150)), (400, 680, 130, 410), 256))
    first = Pair(crop, source)
    assert not stands_still(first, Pair(crop, source, 1), mapping_of((400, 680, 130, 410), 256))


def test_a_moving_camera_is_seen_in_the_crops() -> None:
    one, still, moved = (cut(np.roll(scene(CASE, i), 5 * (i == 3), axis=1), CASE.bbox, 256)
                         for i in (0, 2, 3))  # fmt: skip
    assert not looks_moved(to_grey(one), to_grey(still))
    assert looks_moved(to_grey(one), to_grey(moved))
