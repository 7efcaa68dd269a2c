"""Which image belongs to which frame. Found by content, never assumed.

Frame i is ``sorted(images)[begin_frames + i]`` (metrical-tracker, datasets/image_dataset.py:21-31),
and the tracker dumps every image it fitted under the frame's own number
(output/<name>/input/NNNNN.png). So the dumps say which offset is right.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from converter.errors import ConventionError, MissingInputError
from converter.findings import counted
from converter.media.images import read_image
from converter.media.limits import DEFAULT_LIMITS, Limits
from converter.track import Image

# Decoders of JPEG and video differ by fractions of a grey level, and so may neighbouring images of
# a person who sits still: an image has to be this much nearer than the ones beside it.
_SAME_GREY_LEVELS = 3.0
_NEARER = 0.7
_MUCH_NEARER = 0.5
_N_SAMPLES = 5
_N_EARLY = 30
_MAX_DECODED = 64
_FROZEN = 64  # images: how long a frozen picture may last at the start
_TORN = 20  # images: how many missing ones are looked for
_NEAR = range(-2, 13)
_WRONG_FOLDERS = (
    "Do the actor folder and the output folder belong to the same track? See --actor and --source."
)


@dataclass(frozen=True, slots=True)
class Numbering:
    """``position in sorted(images) = frame id + offset``, and what shows it."""

    offset: int
    evidence: str
    by_content: bool

    def sentence(self, frame: int, image: str) -> str:
        """What a frame shows, for people, who count images from 1."""
        return (
            f"{frame:05d}.frame shows image {image}, number {frame + self.offset + 1} of the "
            f"sequence (offset {self.offset + 1}), by {self.evidence}"
        )


@dataclass(frozen=True, slots=True)
class Images:
    """The images in the order in which frames count them.

    Attributes
    ----------
    origin
        Where they come from, for messages.
    count
        How many there are.
    read
        Decodes the image at a position.
    random_access
        Whether an image can be decoded without those before it.

    """

    origin: str
    count: int
    read: Callable[[int], Image]
    random_access: bool


def video_places(images: Sequence[Path]) -> list[int]:
    """Place in the video, from 0, of every image in ``sorted(images)``.

    ffmpeg names its images from 00001 on; other names can only be counted.
    """
    numbered = all(re.fullmatch(r"\d{5,12}", image.stem, re.A) for image in images)
    if not images or not numbered or int(images[0].stem) == 0:
        return list(range(len(images)))
    return [int(image.stem) - 1 for image in images]


def find_numbering(
    ids: Sequence[int],
    dumps: Mapping[int, Path],
    images: Images,
    stated: int | None,
    stated_by: str,
    limits: Limits = DEFAULT_LIMITS,
    read_dump: Callable[[Path], Image] | None = None,
) -> Numbering:
    """Find the offset between frame ids and image positions.

    Parameters
    ----------
    ids
        Frame ids, ascending.
    dumps
        Frame id -> the image that the tracker dumped for it.
    images
        The tracker's images, or crops of the source frames.
    stated, stated_by
        begin_frames as said by the user or the yaml, and who said it; None if nobody did.
    limits
        Bounds for the dumps.
    read_dump
        Decodes a dump; by default from its file, under ``limits``.

    Raises
    ------
    MissingInputError
        If there are no dumps and nobody stated begin_frames.
    ConventionError
        If no offset fits, or several do and nobody stated which.

    """
    samples = _samples(ids, dumps, images)
    if not samples:
        if stated is None:
            raise MissingInputError(
                "frame numbering",
                "output/<name>/input/NNNNN.png, or begin_frames from the tracker's yaml",
                "neither",
                "Give --begin-frames N (the tracker's default is 0, its shipped configs say 1).",
            )
        return Numbering(stated, f"begin_frames {stated} from {stated_by}", by_content=False)
    matcher = _Matcher(dumps, images, read_dump or (lambda path: read_image(path, limits)))
    equal, nearest = _fitting(matcher, samples, images.count, stated)
    if nearest is None:
        raise ConventionError(
            f"{dumps[samples[0]]}",
            f"to equal one of the {images.count} images of {images.origin}",
            "none that does",
            _WRONG_FOLDERS,
        )
    if not equal:
        raise _torn(matcher, samples, nearest, images)
    if len(equal) > 1 and stated not in equal:
        listed = ", ".join(map(str, sorted(equal)[:4]))
        raise ConventionError(
            "frame numbering",
            "one offset between frames and images",
            f"{len(equal)} that fit equally ({listed}): a still picture",
            "Give --begin-frames N.",
        )
    if len(equal) > 1 and stated is not None:
        return Numbering(
            stated, f"begin_frames {stated} from {stated_by}: a still picture", by_content=False
        )
    return Numbering(equal[0], f"comparing {len(samples)} of the tracker's dumps", by_content=True)


def _fitting(
    matcher: _Matcher, samples: Sequence[int], n_images: int, stated: int | None
) -> tuple[list[int], int | None]:
    """Return the offsets that fit best, and one that fits at least one frame.

    Likely offsets first; every one if none of those is clearly right.
    """
    likely = [*([] if stated is None else [stated]), 0, 1, *_NEAR]
    nearest: int | None = None
    equal: list[int] = []
    for everywhere in (False, True):
        for frame in samples:
            tried = likely if nearest is None else [*likely, *_around(nearest, _FROZEN)]
            if everywhere and frame == samples[0]:
                tried = [*tried, *range(-frame, n_images - frame)]
            found = matcher.offset_of(frame, dict.fromkeys(tried))
            if found is None:
                continue
            nearest = found if nearest is None else nearest
            equal, level = matcher.best_of(samples, [*_around(found, 2), *likely[:1]])
            if equal and (level == 0 or len(equal) == 1):
                return equal, nearest
    return equal, nearest


def _around(offset: int, reach: int) -> range:
    return range(offset - reach, offset + reach + 1)


def _samples(ids: Sequence[int], dumps: Mapping[int, Path], images: Images) -> list[int]:
    """Frames to compare, the first and the last included: what is lost in between shifts the last.

    Of a video only early ones, for all before the last one looked at have to be decoded.
    """
    present = [i for i in ids if i in dumps]
    if not images.random_access:
        present = present[:_N_EARLY]
    picks = np.linspace(0, len(present) - 1, min(_N_SAMPLES, len(present))).round().astype(int)
    return [present[i] for i in picks]


def _torn(
    matcher: _Matcher, samples: Sequence[int], offset: int, images: Images
) -> ConventionError:
    """No offset fits all samples: say where it changes, as it does where an image is missing."""
    off = [frame for frame in samples if not matcher.all_fit([frame], offset)]
    for frame in off:
        other = matcher.offset_of(frame, _around(offset, _TORN))
        if other is not None and other != offset:
            what = "missing" if other < offset else "too many"
            return ConventionError(
                images.origin,
                f"images in step with the frames (begin_frames {offset})",
                f"begin_frames {other} at frame {frame:05d}: "
                f"{counted(abs(other - offset), 'image')} {what}",
                "Restore the folder as it was tracked.",
            )
    frame = off[0] if off else samples[0]
    return ConventionError(
        images.origin,
        f"the image of frame {frame:05d}, number {frame + offset + 1} of {images.count}",
        "another picture there",
        "Is one of the images missing, or changed? Restore the folder as it was tracked.",
    )


class _Matcher:
    """Compares dumps with images, decoding each once."""

    def __init__(
        self, dumps: Mapping[int, Path], images: Images, read_dump: Callable[[Path], Image]
    ) -> None:
        self._dumps, self._images, self._read_dump = dumps, images, read_dump
        self._decoded: dict[int, Image] = {}
        self._dumped: dict[int, Image] = {}
        self._known: dict[tuple[int, int], float] = {}

    def offset_of(self, frame: int, candidates: Iterable[int]) -> int | None:
        """The first offset at which a frame equals its image, else the nearest within limits."""
        best: tuple[float, int] | None = None
        for offset in candidates:
            difference = self._difference(frame, frame + offset)
            if difference == 0:
                return offset
            if difference <= _SAME_GREY_LEVELS and (best is None or difference < best[0]):
                best = difference, offset
        return None if best is None else best[1]

    def all_fit(self, samples: Sequence[int], offset: int) -> bool:
        """Whether every frame is its image, and no neighbour of that image is nearer.

        Where some equal their images to the bit, the others have to be much nearer than the
        neighbours: else their images are missing, and what is there is another frame.
        """
        differences = []
        for frame in samples:  # the first that differs will do: decoding is what takes the time
            differences.append(self._difference(frame, frame + offset))
            if differences[-1] > _SAME_GREY_LEVELS:
                return False
        nearer = _MUCH_NEARER if min(differences) == 0 else 1 / _NEARER
        for frame, here in zip(samples, differences, strict=True):
            beside = (self._difference(frame, frame + offset + step) for step in (-1, 1))
            if here > 0 and here > nearer * min(beside):
                return False
        return True

    def best_of(self, samples: Sequence[int], offsets: Iterable[int]) -> tuple[list[int], float]:
        """Offsets that fit all frames and fit about equally well, the best first; its score."""
        candidates = list(dict.fromkeys(offsets))
        exact = [o for o in candidates if all(self._difference(f, f + o) == 0 for f in samples)]
        if exact:  # nothing else fits as well, and no neighbour has to be looked at
            return exact, 0.0
        fitting = [o for o in candidates if self.all_fit(samples, o)]
        if not fitting:
            return [], 0.0
        fitting.sort(key=lambda o: self._score(samples, o))
        level = self._score(samples, fitting[0])
        return [o for o in fitting if self._score(samples, o) * _NEARER <= level], level

    def _score(self, samples: Sequence[int], offset: int) -> float:
        """Sum of the differences, grey levels."""
        return sum(self._difference(frame, frame + offset) for frame in samples)

    def _difference(self, frame: int, position: int) -> float:
        if not 0 <= position < self._images.count:
            return float("inf")
        key = frame, position
        if key not in self._known:
            self._known[key] = self._compare(frame, position)
        return self._known[key]

    def _compare(self, frame: int, position: int) -> float:
        if frame not in self._dumped:
            self._dumped[frame] = self._read_dump(self._dumps[frame])
        if position not in self._decoded:
            if len(self._decoded) >= _MAX_DECODED:
                self._decoded.pop(next(iter(self._decoded)))
            self._decoded[position] = self._images.read(position)
        a, b = self._dumped[frame], self._decoded[position]
        if a.shape != b.shape:
            return float("inf")
        return float(np.mean(np.abs(a.astype(np.int16) - b)))
