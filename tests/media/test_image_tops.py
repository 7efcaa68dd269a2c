"""The upper rows of pngs: those that whole images begin with."""

from __future__ import annotations

import os
import zlib
from pathlib import Path

import cv2
import numpy as np
import PIL.Image
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from converter.errors import FormatError, MissingInputError, UnsafeFileError
from converter.media.image_tops import read_upper_rows
from converter.media.images import read_image
from converter.media.limits import Limits
from converter.track import Image
from fixtures.hostile.files import png


def picture(width: int, height: int, seed: int = 0, channels: int = 3) -> Image:
    """Slopes and some noise: for encoders that choose filters, all kinds of rows."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:height, :width]
    slopes = (x * rng.integers(0, 4) + y * rng.integers(0, 4))[..., None]
    noise = rng.integers(0, 1 + 40 * rng.integers(0, 2), (height, width, channels))
    return (slopes + noise).astype(np.uint8).squeeze()


@settings(deadline=None, max_examples=60)
@given(
    width=st.integers(1, 90), height=st.integers(1, 90), part=st.floats(0, 1),
    channels=st.sampled_from([1, 3, 4]), level=st.sampled_from([None, 0, 1, 9]),
    seed=st.integers(0, 99),
)  # fmt: skip
def test_rows_are_those_of_the_whole_image(
    width: int, height: int, part: float, channels: int, level: int | None, seed: int,
    tmp_path_factory: pytest.TempPathFactory,
) -> None:  # fmt: skip
    path = tmp_path_factory.mktemp("image") / "a.png"
    options = [] if level is None else [cv2.IMWRITE_PNG_COMPRESSION, level]
    assert cv2.imwrite(str(path), picture(width, height, seed, channels), options)
    n_rows = max(1, round(part * height))
    rows = read_upper_rows(path, n_rows)
    assert rows is not None
    np.testing.assert_array_equal(rows, read_image(path)[:n_rows])


def test_filters_against_the_row_above_are_undone(tmp_path: Path) -> None:
    """Pillow chooses a filter for each row."""
    path = tmp_path / "a.png"
    PIL.Image.fromarray(picture(300, 200, 4)).save(path)
    rows = read_upper_rows(path, 77)
    assert rows is not None
    np.testing.assert_array_equal(rows, read_image(path)[:77])


def test_what_lies_below_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    assert cv2.imwrite(str(path), picture(512, 512, 7))
    rows = read_upper_rows(path, 128)
    os.truncate(path, path.stat().st_size * 2 // 3)
    np.testing.assert_array_equal(read_upper_rows(path, 128), rows)


def test_others_have_to_be_decoded_whole(tmp_path: Path) -> None:
    image = PIL.Image.fromarray(picture(40, 30, 1))
    image.convert("P").save(tmp_path / "palette.png")
    image.convert("I;16").save(tmp_path / "deep.png")
    image.save(tmp_path / "a.jpg")
    (tmp_path / "interlaced.png").write_bytes(interlaced(tmp_path / "deep.png"))
    image.save(tmp_path / "short.png")
    for path in tmp_path.iterdir():
        assert read_upper_rows(path, 31 if path.stem == "short" else 30) is None


def interlaced(path: Path) -> bytes:
    """The file with a header of 8 bits that says its rows are interlaced."""
    data = bytearray(path.read_bytes())
    data[24:29] = bytes([8, 0, 0, 0, 1])
    return bytes(data)


@pytest.mark.parametrize("end", [0, 8, 30, 33, 40, 200])
def test_files_that_end_early_are_refused(tmp_path: Path, end: int) -> None:
    path = tmp_path / "a.png"
    assert cv2.imwrite(str(path), picture(40, 30, 1))
    path.write_bytes(path.read_bytes()[:end])
    with pytest.raises(FormatError, match=r"a\.png"):
        read_upper_rows(path, 10)


@pytest.mark.parametrize(
    "packed",
    [b"", b"no deflate", zlib.compress(b"\0" * 50), zlib.compress(b"\7" * 310)],
    ids=["nothing", "noise", "too few", "no such filter"],
)
def test_damaged_rows_are_refused(tmp_path: Path, packed: bytes) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(png(30, 10, data=packed, colour=0))
    with pytest.raises(FormatError, match=r"a\.png"):
        read_upper_rows(path, 10)


def test_unsafe_files_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    assert cv2.imwrite(str(path), picture(40, 30, 1))
    with pytest.raises(UnsafeFileError, match="megapixels"):
        read_upper_rows(path, 10, Limits(image_pixels=1000))
    os.mkfifo(tmp_path / "fifo")
    with pytest.raises(UnsafeFileError, match="pipe"):
        read_upper_rows(tmp_path / "fifo", 10)
    with pytest.raises(MissingInputError):
        read_upper_rows(tmp_path / "none.png", 10)
