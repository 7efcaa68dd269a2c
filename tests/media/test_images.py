"""Still images: headers, bounds, the tracker's forward model."""

from __future__ import annotations

import io
import struct
import zlib
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from PIL import Image as Pillow

from converter.errors import FormatError, MissingInputError, UncropError, UnsafeFileError
from converter.geometry import BBox, Crop, Size
from converter.media.images import (
    ImageFiles,
    decode_image,
    encode_image,
    list_images,
    read_image,
    read_size,
    render_crop,
)
from converter.media.limits import Limits


def picture(width: int, height: int, seed: int = 0) -> Any:
    rng = np.random.default_rng(seed)
    noise = rng.integers(0, 256, (height, width, 3), dtype=np.uint8)
    return cv2.GaussianBlur(noise, (0, 0), 2.0)


# --- headers and bounds -----------------------------------------------------------------------


@pytest.mark.parametrize("suffix", [".png", ".jpg"])
def test_size_and_pixels_are_those_of_cv2(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"a{suffix}"
    cv2.imwrite(str(path), picture(37, 21))
    assert read_size(path) == Size(37, 21)
    np.testing.assert_array_equal(read_image(path), cv2.imread(str(path)))


@pytest.mark.parametrize("orientation", range(1, 9))
def test_jpegs_are_turned_by_their_orientation_as_trackers_do(
    tmp_path: Path, orientation: int
) -> None:
    path = tmp_path / "a.jpg"
    exif = Pillow.Exif()
    exif[0x0112] = orientation
    Pillow.fromarray(picture(40, 24)).save(path, exif=exif)
    assert read_size(path) == Size.of(cv2.imread(str(path)))
    np.testing.assert_array_equal(read_image(path), cv2.imread(str(path)))


def test_images_are_listed_as_the_tracker_sorts_them(tmp_path: Path) -> None:
    for name in ("b.jpg", "a.png", "c.PNG", "notes.txt", "a.jpeg"):
        (tmp_path / name).touch()
    assert [p.name for p in list_images(tmp_path)] == ["a.jpeg", "a.png", "b.jpg", "c.PNG"]
    assert list_images(tmp_path / "absent") == []


def _png_header(width: int, height: int) -> bytes:
    body = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    chunk = struct.pack(">I", 13) + body + struct.pack(">I", zlib.crc32(body))
    return b"\x89PNG\r\n\x1a\n" + chunk + b"\0\0\0\0IEND\xaeB`\x82"


@pytest.mark.parametrize(
    ("data", "error"),
    [
        (b"", FormatError),
        (b"GIF89a" + bytes(100), FormatError),
        (_png_header(30_000, 30_000), UnsafeFileError),
        (_png_header(2**31 - 1, 2**31 - 1), UncropError),
        (_png_header(0, 5), UncropError),
        (_png_header(64, 64), FormatError),
        (b"\x89PNG\r\n\x1a\n" + bytes(50), FormatError),
        (b"\xff\xd8\xff\xe0" + bytes(50), FormatError),
    ],
)
def test_hostile_images_are_refused(data: bytes, error: type[UncropError]) -> None:
    with pytest.raises(error, match="a.png"):
        decode_image(data, "a.png")


@pytest.mark.parametrize("suffix", [".png", ".jpg"])
def test_a_truncated_image_is_never_half_grey(suffix: str) -> None:
    data = encode_image(picture(80, 60), suffix)  # type: ignore[arg-type]
    for end in range(8, len(data) - 8, max(1, len(data) // 40)):
        with pytest.raises(FormatError):
            decode_image(data[:end], "a")


def test_the_pixel_cap_can_be_raised(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    cv2.imwrite(str(path), picture(50, 40))
    with pytest.raises(UnsafeFileError, match="megapixels"):
        read_image(path, Limits(image_pixels=1999))
    assert read_image(path, Limits(image_pixels=2000)).shape == (40, 50, 3)


def test_images_of_another_size_are_named(tmp_path: Path) -> None:
    paths = [tmp_path / f"{i}.png" for i in range(3)]
    for path, width in zip(paths, (30, 30, 31), strict=True):
        cv2.imwrite(str(path), picture(width, 20))
    frames = ImageFiles.of(paths)
    assert [f.shape for f in frames.stream([0, 1])] == [(20, 30, 3)] * 2
    with pytest.raises(FormatError, match=r"2\.png.*30x20.*31x20"):
        frames.read(2)
    with pytest.raises(MissingInputError):
        ImageFiles.of([tmp_path / "none.png"])


# --- the tracker's forward model --------------------------------------------------------------


@pytest.mark.parametrize(
    "box", [(20, 80, 10, 70), (0, 90, 10, 60), (31, 60, 5, 66), (60, 200, 30, 90)]
)
def test_render_crop_is_cut_pad_resize(box: tuple[int, int, int, int]) -> None:
    """The tracker's own steps, written out with other functions."""
    image = picture(120, 90)
    crop = Crop.from_bbox(BBox(*box), Size(120, 90), Size(64, 64))
    x0, x1, y0, y1 = max(box[0], 0), min(box[1], 119), max(box[2], 0), min(box[3], 89)
    cut = image[y0:y1, x0:x1]
    side = max(cut.shape[:2])
    vertical, horizontal = (side - cut.shape[0]) // 2, (side - cut.shape[1]) // 2
    padded = cv2.copyMakeBorder(
        cut, vertical, vertical, horizontal, horizontal, cv2.BORDER_CONSTANT
    )
    expected = cv2.resize(padded, (64, 64), interpolation=cv2.INTER_CUBIC)
    np.testing.assert_array_equal(render_crop(image, crop), expected)


def test_encoding_round_trips() -> None:
    image = picture(33, 27)
    np.testing.assert_array_equal(decode_image(encode_image(image, ".png"), "a"), image)
    jpeg = decode_image(encode_image(image, ".jpg", 100), "a")
    assert np.abs(jpeg.astype(int) - image).mean() < 4
    rgba = np.dstack([image, np.full((27, 33), 255, np.uint8)])
    with Pillow.open(io.BytesIO(encode_image(rgba, ".png"))) as read:
        assert read.mode == "RGBA"
