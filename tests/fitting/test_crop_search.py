"""Where a crop may lie: features, mirror images, and the small tools of the search."""

from __future__ import annotations

import io
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image as Pillow

from converter.errors import UncropError
from converter.geometry.crop import BBox, Crop
from converter.geometry.pixels import Size
from converter.media.images import ImageFiles, decode_image, list_images, render_crop
from converter.media.video import VideoFrames
from fitting.crop.certificate import CropImage, compare, is_within, recompressed
from fitting.crop.linear import least_squares
from fitting.crop.mapping import Grey
from fitting.crop.pair import to_grey
from fitting.crop.pyramid import find_places
from fitting.crop.search import (
    FAST,
    SMALL,
    THOROUGH,
    TINY,
    USUAL,
    Attempt,
    Described,
    Estimate,
    estimates,
    find_mirrored,
)
from fitting.crop.sequences import Kept, Sources
from fixtures.synthetic.crop_cases import CropCase, cut, scene

BOX = (300, 780, 30, 510)
CASE = CropCase("search", BOX, source_size=(960, 540))
FRAME = scene(CASE, 0)
CROP = to_grey(cut(FRAME, BOX, 384))
SOURCE = Described(to_grey(FRAME))


def off(edges: np.ndarray) -> float:
    return float(np.max(np.abs(edges - BOX)))


def test_every_estimate_of_a_plain_crop_is_near_and_says_something_new() -> None:
    known: list[Estimate] = []
    usual = list(estimates(Described(CROP), SOURCE, (*FAST, *SMALL, *USUAL), known))
    found = usual + list(estimates(Described(CROP), SOURCE, THOROUGH, known))
    assert usual
    assert found == known
    assert all(off(e.edges) < 4 for e in found)
    assert all(np.max(np.abs(a.edges - b.edges)) > 1 for a in found for b in found if a is not b)


def test_what_was_enlarged_is_smooth() -> None:
    tiny = to_grey(cut(FRAME, (400, 440, 200, 240), 384))
    assert Described(tiny).is_smooth
    assert not Described(CROP).is_smooth


def test_a_dark_crop_is_found_by_quick_features() -> None:
    dark = (
        Described((CROP * 0.12).astype(np.uint8)),
        Described((SOURCE.image * 0.12).astype(np.uint8)),
    )
    found = next(estimates(*dark, FAST[:1], []))
    assert off(found.edges) < 4


@pytest.mark.parametrize("side", [100, 150])
def test_a_box_much_smaller_than_its_crop_is_found_soon(side: int) -> None:
    box = (900, 900 + side, 400, 400 + side)
    frame = scene(CropCase("small", box, source_size=(1920, 1080), seed=2), 0)
    crop, source = Described(to_grey(cut(frame, box, 512))), Described(to_grey(frame))
    found = next(estimates(crop, source, TINY, []))
    assert np.max(np.abs(found.edges - box)) < 4


@pytest.mark.parametrize(
    ("flip", "fault"),
    [(np.s_[:, ::-1], "mirrored left to right"), (np.s_[::-1], "mirrored top to bottom")],
)
@pytest.mark.parametrize("attempts", [FAST, SMALL, USUAL, THOROUGH])
def test_a_mirror_image_is_found_by_its_features(
    flip: tuple[slice, ...], fault: str, attempts: Sequence[Attempt]
) -> None:
    mirrored: Grey = np.ascontiguousarray(CROP[flip])
    found = next(find_mirrored(Described(mirrored), SOURCE, attempts))
    assert found.fault == fault
    assert np.array_equal(found.upright, CROP)
    assert off(found.estimate.edges) < 4


def test_an_upright_crop_is_no_mirror_image_of_its_place() -> None:
    for attempts in (FAST, SMALL, USUAL, THOROUGH):
        found = find_mirrored(Described(CROP), SOURCE, attempts)
        assert all(off(m.estimate.edges) > 40 for m in found)


def test_places_are_found_in_the_small_source_and_in_the_large_one() -> None:
    for box in ((300, 780, 30, 510), (400, 440, 200, 240)):
        place = find_places(to_grey(cut(FRAME, box, 256)), to_grey(FRAME))[0]
        assert np.max(np.abs(place.edges - box)) < 0.08 * (box[1] - box[0]) + 2


@given(st.integers(0, 10**6), st.booleans())
def test_least_squares_are_those_of_numpy(seed: int, weighted: bool) -> None:
    rng = np.random.default_rng(seed)
    columns = [rng.normal(size=(40, 5)).astype(np.float32) for _ in range(3)]
    target = rng.normal(size=(40, 5)).astype(np.float32)
    weights = rng.uniform(0.1, 2, (40, 1)).astype(np.float32) if weighted else None
    J = np.stack([c.ravel() for c in columns], axis=1).astype(np.float64)
    root = np.sqrt(np.ones((40, 5)) if weights is None else weights * np.ones((40, 5))).ravel()
    expected = np.linalg.lstsq(J * root[:, None], target.ravel() * root, rcond=None)[0]
    np.testing.assert_allclose(least_squares(columns, target, weights), expected, atol=1e-4)


def test_the_share_of_differing_pixels_counts_a_pixel_once() -> None:
    image = cut(FRAME, BOX, 384)
    image[0, 0] += 1  # all channels
    image[5, 7, 2] ^= 64
    crop = Crop.from_bbox(BBox(*BOX), Size(960, 540), Size(384, 384))
    found = compare(CropImage(image), FRAME, crop)
    assert found.max_abs_diff == 64
    assert found.differing_px == 2 / 384**2


@pytest.mark.parametrize("quality", [30, 75, 95])
@pytest.mark.parametrize("sampling", [0, 1, 2])
def test_a_few_rows_of_a_jpg_settle_what_all_of_it_would(quality: int, sampling: int) -> None:
    """Alone they come out as among the others, so what is found in them is true of the whole."""
    size = Size(384, 384)
    stream = io.BytesIO()
    pixels = cut(FRAME, BOX, 384)
    Pillow.fromarray(pixels[..., ::-1]).save(stream, "JPEG", quality=quality, subsampling=sampling)
    shown = decode_image(stream.getvalue(), "jpg")
    image = CropImage.of(shown, stream.getvalue())
    for step in ((0, 0, 0, 0), (1, 1, 0, 0), (0, 1, 0, 1), (-3, -3, 2, 2)):
        box = BBox(*(edge + s for edge, s in zip(BOX, step, strict=True)))
        crop = Crop.from_bbox(box, Size(960, 540), size)
        worst = compare(image, FRAME, crop).max_abs_diff
        for limit in (0, 1, worst - 1, worst):
            assert is_within(image, FRAME, crop, limit) == (worst <= limit)
        rendered = render_crop(FRAME, crop)
        whole, band = (
            recompressed(part, stream.getvalue()) for part in (rendered, rendered[160:224])
        )
        assert np.array_equal(whole[176:208], band[16:48])


def test_what_is_kept_is_made_once_and_what_failed_is_tried_again() -> None:
    made: list[int] = []

    def slowly(index: int) -> int:
        made.append(index)
        time.sleep(0.05)
        if len(made) == 1:
            raise UncropError("here", "a frame", "none")
        return 10 * index

    kept: Kept[int] = Kept()
    with pytest.raises(UncropError):
        kept.get(3, slowly)
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(lambda _: kept.get(3, slowly), range(4))) == [30] * 4
    assert made == [3, 3]


@pytest.mark.parametrize("kind", ["files", "video"])
def test_several_threads_are_given_the_frames_they_ask_for(tmp_path: Path, kind: str) -> None:
    images = [np.full((48, 64, 3), 8 * i, np.uint8) for i in range(24)]
    if kind == "files":
        for i, image in enumerate(images):
            cv2.imwrite(str(tmp_path / f"{i + 1:05d}.png"), image)
        frames: ImageFiles | VideoFrames = ImageFiles.of(list_images(tmp_path))
    else:
        codec = cv2.VideoWriter.fourcc(*"mp4v")
        video = cv2.VideoWriter(str(tmp_path / "video.mp4"), codec, 25, (64, 48))
        for image in images:
            video.write(image)
        video.release()
        frames = VideoFrames(tmp_path / "video.mp4", 25.0)
    order = [int(i) for i in np.random.default_rng(0).permutation(24)]
    with Sources(frames) as sources, ThreadPoolExecutor(4) as pool:
        sources.prefetch(sorted(order))
        found = list(pool.map(sources.grey, order))
    for index, grey in zip(order, found, strict=True):
        assert abs(float(np.median(grey)) - 8 * index) < 4
