"""Still images: headers, bounds, exact resampling against oracles, the tracker's forward model."""

from __future__ import annotations

import io
import struct
import zlib
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image as Pillow

from converter.errors import FormatError, MissingInputError, UncropError, UnsafeFileError
from converter.geometry import BBox, Crop, PixelAffine, Size
from converter.media.images import (
    ImageFiles,
    decode_image,
    encode_image,
    list_images,
    read_image,
    read_size,
    render_crop,
    resample,
    resample_nearest,
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


# --- resampling -------------------------------------------------------------------------------


@given(st.integers(-40, 40), st.integers(-40, 40), st.integers(2, 90), st.integers(2, 90))
def test_whole_pixel_shifts_copy_pixels(tx: int, ty: int, width: int, height: int) -> None:
    image = picture(50, 34)
    out = resample(image, PixelAffine(1, 1, tx, ty), Size(width, height))
    rows = np.clip(np.arange(height) - ty, 0, 33)
    columns = np.clip(np.arange(width) - tx, 0, 49)
    np.testing.assert_array_equal(out, image[rows[:, None], columns[None, :]])


def _cubic(x: Any) -> Any:
    """Keys' kernel, a = -1/2."""
    x = np.abs(x)
    near = 1.5 * x**3 - 2.5 * x**2 + 1
    far = -0.5 * x**3 + 2.5 * x**2 - 4 * x + 2
    return np.where(x < 1, near, np.where(x < 2, far, 0))


def _weights(n_in: int, n_out: int, scale: float, shift: float) -> Any:
    """Naive resampling matrix: clamped borders, kernel widened when shrinking."""
    width = max(1.0, 1 / scale)
    centres = (np.arange(n_out) + 0.5 - shift) / scale
    taps = np.arange(-300, n_in + 300)
    w = _cubic((taps[None, :] + 0.5 - centres[:, None]) / width)
    w /= w.sum(axis=1, keepdims=True)
    out = np.zeros((n_out, n_in))
    np.add.at(out.T, np.clip(taps, 0, n_in - 1), w.T)
    return out


@pytest.mark.parametrize(
    "affine",
    [
        PixelAffine(1, 1, -3.37, 2.81),
        PixelAffine(1, 1, 0.5, -7),
        PixelAffine(1.27, 1.25, -3.2, 1.1),
        PixelAffine(0.63, 0.64, 3.2, 1.1),
        PixelAffine(0.3, 1.4, 0, -2.5),
        PixelAffine(2.5, 2.5, -20.4, 11.7),
    ],
    ids=str,
)
def test_resampling_is_the_bicubic_sum(affine: PixelAffine) -> None:
    """Against a naive matrix product, borders repeated, to the rounding of 8 bits."""
    image = picture(60, 48)
    size = Size(70, 52)
    out = resample(image, affine, size).astype(float)
    columns = _weights(60, 70, affine.sx, affine.tx)
    rows = _weights(48, 52, affine.sy, affine.ty)
    expected = np.einsum("ij,jkc,lk->ilc", rows, image.astype(float), columns)
    assert np.abs(out - np.clip(expected, 0, 255)).max() <= 1.5


@pytest.mark.parametrize(
    "affine",
    [PixelAffine(1, 1, -10.37, -5.81), PixelAffine(0.63, 0.64, 3.2, 1.1),
     PixelAffine(1.27, 1.25, -3.2, 1.1), PixelAffine(0.3, 0.3, 0, 0)],
    ids=str,
)  # fmt: skip
def test_dots_land_where_the_map_says(affine: PixelAffine) -> None:
    rng = np.random.default_rng(1)
    centres = np.array(
        [(50 + 60 * i, 60 + 60 * j) for i in range(5) for j in range(4)]
    ) + rng.random((20, 2))
    y, x = np.mgrid[0:350, 0:400] + 0.5
    light = sum(200 * np.exp(-((x - a) ** 2 + (y - b) ** 2) / 18) for a, b in centres)
    image = np.repeat(np.round(light)[..., None], 3, 2).astype(np.uint8)
    out = resample(image, affine, Size(420, 400))[..., 0].astype(float)
    y, x = np.mgrid[0:400, 0:420] + 0.5
    errors = []
    for point in affine(centres):
        near = out * (np.hypot(x - point[0], y - point[1]) < 12 * affine.sx)
        errors.append(np.array([(x * near).sum(), (y * near).sum()]) / near.sum() - point)
    assert np.abs(errors).max() <= 0.02
    assert np.abs(np.mean(errors, axis=0)).max() <= 0.01


@given(
    st.floats(0.2, 4), st.floats(0.2, 4), st.floats(-300, 300), st.floats(-300, 300),
    st.integers(1, 60), st.integers(1, 60),
)  # fmt: skip
def test_any_map_gives_the_size_asked_for(
    sx: float, sy: float, tx: float, ty: float, width: int, height: int
) -> None:
    """Also far outside the image, where only border pixels are repeated."""
    image = np.full((20, 30, 3), 77, np.uint8)
    out = resample(image, PixelAffine(sx, sy, tx, ty), Size(width, height))
    assert out.shape == (height, width, 3)
    assert (out == 77).all()


def test_labels_keep_their_colours() -> None:
    rng = np.random.default_rng(0)
    palette = np.array([(255, 0, 0), (0, 255, 0), (0, 0, 255)], np.uint8)
    labels = palette[rng.integers(0, 3, (40, 50))]
    affine = PixelAffine(1.7, 1.3, -4.21374, 6.51932)
    out = resample_nearest(labels, affine, Size(100, 60), (255, 255, 255))
    for v, u in np.ndindex(60, 100):
        x = int(np.floor((u + 0.5 - affine.tx) / affine.sx))
        y = int(np.floor((v + 0.5 - affine.ty) / affine.sy))
        inside = 0 <= x < 50 and 0 <= y < 40
        expected = labels[y, x] if inside else (255, 255, 255)
        assert tuple(out[v, u]) == tuple(expected)


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
