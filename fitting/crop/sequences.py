"""Reading crops and source frames: each once, and only those that are needed."""

from __future__ import annotations

import os
import re
from collections import OrderedDict
from collections.abc import Callable, Collection, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import cached_property
from pathlib import PurePath
from threading import Lock, RLock
from typing import Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

from converter.errors import UncropError
from converter.geometry.pixels import Size
from converter.media.files import read_bytes
from converter.media.image_tops import read_upper_rows
from converter.media.images import ImageFiles
from converter.media.parallel import n_cores, ordered_map
from converter.track import Frames, Image
from fitting.crop.certificate import CropImage
from fitting.crop.mapping import Grey
from fitting.crop.pair import to_grey
from fitting.crop.search import Described

T = TypeVar("T")

_N_KEPT = 16
_BACK = 2


def spread(n: int, count: int) -> list[int]:
    """Up to ``count`` positions out of ``n``, from the first to the last."""
    if count >= n:
        return list(range(n))
    if count == 1:
        return [n // 2]
    return [int(i) for i in np.unique(np.linspace(0, n - 1, count).round())]


def guess_sources(crops: Frames, sources: Frames) -> list[int]:
    """Guess each crop's source frame: the same name, else ffmpeg's numbers, else the order.

    Numbers may lie outside the sequence: then its source frame is missing.
    """
    names = [PurePath(crops.name(i)).stem for i in range(len(crops))]
    if isinstance(sources, ImageFiles):
        places = {path.stem: i for i, path in enumerate(sources.paths)}
        n_same = sum(n in places for n in names)
        if n_same > len(names) // 2:
            return _filled([places.get(n, -1) for n in names])
        if n_same > len(sources) // 2:  # of a few crops only
            return [places.get(n, len(sources)) for n in names]
    elif all(re.fullmatch(r"\d{1,12}", n, re.ASCII) for n in names):
        return [int(n) - 1 for n in names]
    if len(crops) <= len(sources):
        return list(range(len(crops)))
    scale = (len(sources) - 1) / max(len(crops) - 1, 1)
    return [round(i * scale) for i in range(len(crops))]


def _filled(places: Sequence[int]) -> list[int]:
    """Replace -1 by the place after the one before."""
    filled: list[int] = []
    for place in places:
        filled.append(place if place >= 0 else (filled[-1] + 1 if filled else 0))
    return filled


def paired(guesses: Sequence[int], n_sources: int) -> list[int]:
    """Crops whose source frame is among ``n_sources``; all, if it is of none."""
    there = [i for i, guess in enumerate(guesses) if 0 <= guess < n_sources]
    return there or list(range(len(guesses)))


class Crops:
    """Crops with their bytes, where they are files."""

    def __init__(self, frames: Frames, wanted: Collection[int] = ()) -> None:
        self.frames = frames
        self.wanted = frozenset(wanted)
        """Crops that will be asked for: kept if they are read for something else before."""
        self._images: Kept[CropImage] = Kept()
        self._greys: Kept[Grey] = Kept()
        self._described: Kept[Described] = Kept()

    def __len__(self) -> int:
        return len(self.frames)

    def name(self, index: int) -> str:
        """File name of a crop."""
        return self.frames.name(index)

    def image(self, index: int) -> CropImage:
        """Pixels, and the bytes of a jpg."""
        return self._images.get(index, self._read)

    def is_readable(self, index: int) -> bool:
        """Whether a crop can be decoded."""
        try:
            self.image(index)
        except UncropError:
            return False
        return True

    def _read(self, index: int) -> CropImage:
        frames = self.frames
        if not isinstance(frames, ImageFiles):
            return CropImage(frames.read(index))
        path = frames.paths[index]
        if path.suffix.lower() == ".png":
            return CropImage(frames.read(index))
        data = read_bytes(path, frames.limits)
        return CropImage.of(frames.decode(index, data), data)

    def grey(self, index: int) -> Grey:
        """Luma of a crop."""
        return self._greys.get(index, lambda i: to_grey(self.image(i).pixels))

    def described(self, index: int) -> Described:
        """A crop with its features."""
        return self._described.get(index, lambda i: Described(self.grey(i)))

    def strips(
        self, indices: Sequence[int], rows: slice, size: Size
    ) -> dict[int, NDArray[np.float32]]:
        """Luma of some ``rows`` of several crops, made as small as ``size``.

        Those that cannot be read are left out.
        """
        import cv2

        def strip(index: int) -> NDArray[np.float32] | None:
            try:
                grey = self._upper(index, rows.stop)[rows]
            except UncropError:
                return None
            levels = grey.astype(np.float32)  # dark ones would lose by rounding what they show
            small = cv2.resize(levels, (size.width, size.height), interpolation=cv2.INTER_AREA)
            return np.asarray(small)

        images = zip(indices, ordered_map(strip, indices), strict=True)
        return {index: image for index, image in images if image is not None}

    def is_cheap(self, index: int, n_rows: int) -> bool:
        """Whether the upper rows of a crop can be had for a fraction of what a png costs."""
        frames = self.frames
        if not isinstance(frames, ImageFiles):
            return False
        is_png = frames.paths[index].suffix.lower() == ".png"
        return not is_png or self._upper_of_png(index, n_rows) is not None

    def _upper(self, index: int, n_rows: int) -> Grey:
        if index in self.wanted:  # not read again
            return to_grey(self.image(index).pixels[:n_rows])
        rows = self._upper_of_png(index, n_rows)
        return to_grey(self._read(index).pixels[:n_rows] if rows is None else rows)

    def _upper_of_png(self, index: int, n_rows: int) -> Image | None:
        frames = self.frames
        if not isinstance(frames, ImageFiles):
            return None
        return read_upper_rows(frames.paths[index], n_rows, frames.limits)

    @cached_property
    def files(self) -> list[os.stat_result]:
        """What is known of the files without reading them; empty for what are no files."""
        if not isinstance(self.frames, ImageFiles):
            return []
        try:
            return [path.stat() for path in self.frames.paths]
        except OSError:
            return []


class Sources:
    """Source frames, those used last kept; files are read ahead while others are worked on.

    A video is read forwards only: a few frames are read in one pass and kept; many are taken from
    one pass as they are asked for, in ascending order. Several threads may ask.
    """

    def __init__(self, frames: Frames) -> None:
        self.frames = frames
        self._images: Kept[Image] = Kept()
        self._greys: Kept[Grey] = Kept()
        self._described: Kept[Described] = Kept()
        self._reading = RLock()
        self._pool: ThreadPoolExecutor | None = None
        self._coming: dict[int, Future[Image]] = {}
        self._passing: Iterator[tuple[int, Image]] = iter(())

    def __enter__(self) -> Sources:
        return self

    def __exit__(self, *_: object) -> None:
        if self._pool is not None:
            self._pool.shutdown(cancel_futures=True)

    def __len__(self) -> int:
        return len(self.frames)

    def name(self, index: int) -> str:
        """Name of a source frame."""
        return self.frames.name(index)

    def begin(self, indices: Sequence[int]) -> None:
        """As `prefetch`, for files; a video is read once it is known what is wanted of it."""
        if isinstance(self.frames, ImageFiles):
            self.prefetch(indices)

    def prefetch(self, indices: Sequence[int]) -> None:
        """Say which frames will be wanted, the first of them soonest."""
        with self._reading:
            self._prefetch(indices)

    def _prefetch(self, indices: Sequence[int]) -> None:
        if isinstance(self.frames, ImageFiles):
            self._pool = self._pool or ThreadPoolExecutor(n_cores(), thread_name_prefix="uncrop")
            for index in dict.fromkeys(indices[:_N_KEPT]):
                if index not in self._images and index not in self._coming:
                    self._coming[index] = self._pool.submit(self.frames.read, index)
            return
        around = sorted({j for i in indices for j in range(max(i - _BACK, 0), i + 1)})
        if len(around) > _N_KEPT:
            self._passing = zip(around, self.frames.stream(around), strict=True)
            return
        around = [index for index in around if index not in self._images]
        for index, image in zip(around, self.frames.stream(around), strict=True):
            self._images.put(index, image)

    def image(self, index: int) -> Image:
        """Pixels of a source frame."""
        if isinstance(self.frames, ImageFiles):
            return self._images.get(index, self._read_file)
        with self._reading:
            return self._images.get(index, self._read)

    def _read_file(self, index: int) -> Image:
        with self._reading:
            coming = self._coming.get(index)
        image = self.frames.read(index) if coming is None else coming.result()
        with self._reading:
            self._coming.pop(index, None)
        return image

    def _read(self, index: int) -> Image:
        for passed, image in self._passing:
            if passed == index:
                return image
            self._images.put(passed, image)
            if passed > index:
                break
        around = range(max(index - _BACK, 0), index + 1)
        for passed, image in zip(around, self.frames.stream(around), strict=True):
            self._images.put(passed, image)
        return image

    def grey(self, index: int) -> Grey:
        """Luma of a source frame."""
        return self._greys.get(index, lambda i: to_grey(self.image(i)))

    def described(self, index: int) -> Described:
        """A source frame with its features."""
        return self._described.get(index, lambda i: Described(self.grey(i)))


class Kept(Generic[T]):
    """Values by position, the last that were made; several threads may ask, each is made once."""

    def __init__(self) -> None:
        self._values: OrderedDict[int, Future[T]] = OrderedDict()
        self._lock = Lock()

    def __contains__(self, index: int) -> bool:
        return index in self._values

    def put(self, index: int, value: T) -> None:
        """Keep a value, and forget the oldest where there are too many."""
        made: Future[T] = Future()
        made.set_result(value)
        with self._lock:
            self._keep(index, made)

    def get(self, index: int, make: Callable[[int], T]) -> T:
        """Return the value, made if it is not kept, or not yet."""
        with self._lock:
            known = self._values.get(index)
            if known is None:
                made = self._keep(index, Future())
        if known is not None:
            return known.result()
        try:
            made.set_result(make(index))
        except BaseException as error:
            with self._lock:  # what failed is tried again by who asks next
                self._values.pop(index, None)
            made.set_exception(error)
            raise
        return made.result()

    def _keep(self, index: int, value: Future[T]) -> Future[T]:
        self._values[index] = value
        while len(self._values) > _N_KEPT:
            self._values.popitem(last=False)
        return value
