"""Which image belongs to which frame. Found by content, never assumed.

Frame i is ``sorted(images)[begin_frames + i]`` (metrical-tracker, datasets/image_dataset.py:21-31),
and the tracker dumps every image it fitted under the frame's own number
(output/<name>/input/NNNNN.png). So the dumps say which offset is right.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from converter.errors import ConventionError, MissingInputError
from converter.media.images import read_image
from converter.track import Image

# Decoders of JPEG differ by fractions of a grey level; neighbouring frames by more.
_SAME_GREY_LEVELS = 3.0
_N_SAMPLES = 5
_MAX_DECODED = 64
_NEAR = range(-2, 13)


@dataclass(frozen=True, slots=True)
class Numbering:
    """``position in sorted(images) = frame id + offset``, and what shows it."""

    offset: int
    evidence: str
    by_content: bool


def find_numbering(
    ids: Sequence[int],
    dumps: dict[int, Path],
    n_images: int,
    image: Callable[[int], Image],
    stated: int | None,
    stated_by: str,
    *,
    whole_range: bool,
) -> Numbering:
    """Find the offset between frame ids and image positions.

    Parameters
    ----------
    ids
        Frame ids, ascending.
    dumps
        Frame id -> the image that the tracker dumped for it.
    n_images
        Number of images.
    image
        Decodes the image at a position.
    stated, stated_by
        begin_frames as said by the user or the yaml, and who said it; None if nobody did.
    whole_range
        Search every offset if none near the start fits; False where decoding is expensive.

    Raises
    ------
    MissingInputError
        If there are no dumps and nobody stated begin_frames.
    ConventionError
        If no offset fits, or several do and nobody stated which.

    """
    samples = _samples(ids, dumps, spread=whole_range)
    if not samples:
        if stated is None:
            raise MissingInputError(
                "frame numbering",
                "output/<name>/input/NNNNN.png, or begin_frames from the tracker's yaml",
                "neither",
                "Give --begin-frames N (the tracker's default is 0, its shipped configs say 1).",
            )
        return Numbering(stated, f"begin_frames {stated} from {stated_by}", by_content=False)
    matcher = _Matcher(dumps, n_images, image)
    near = [stated] if stated is not None else []
    near += [o for o in _NEAR if o != stated]
    found = matcher.offsets(samples, near)
    if not found and whole_range:
        found = matcher.offsets(samples, range(-ids[0], n_images - ids[0]))
    if not found:
        raise ConventionError(
            f"{dumps[samples[0]]}",
            "to equal one of the images",
            f"no image within the {n_images} that matches, at any offset tried",
            "Do the actor folder and the output folder belong to the same track? "
            "See --actor and --source.",
        )
    if len(found) > 1 and stated not in found:
        raise ConventionError(
            "frame numbering",
            "one offset between frames and images",
            f"{len(found)} that fit equally ({', '.join(map(str, found[:4]))}): a still picture",
            "Give --begin-frames N.",
        )
    offset = stated if stated is not None and stated in found else found[0]
    return Numbering(offset, f"output input/ images, {len(samples)} compared", by_content=True)


def _samples(ids: Sequence[int], dumps: dict[int, Path], *, spread: bool) -> list[int]:
    present = [i for i in ids if i in dumps]
    if not spread:
        present = present[:30]
    if len(present) <= _N_SAMPLES:
        return present
    picks = np.linspace(0, len(present) - 1, _N_SAMPLES).round().astype(int)
    return [present[i] for i in picks]


class _Matcher:
    """Compares dumps with images, decoding each once."""

    def __init__(
        self, dumps: dict[int, Path], n_images: int, image: Callable[[int], Image]
    ) -> None:
        self._dumps, self._n, self._image = dumps, n_images, image
        self._decoded: dict[int, Image] = {}
        self._dumped: dict[int, Image] = {}

    def offsets(self, samples: Sequence[int], candidates: Sequence[int]) -> list[int]:
        """Offsets at which every sample equals its image; the closest alone unless bit-equal."""
        scores: dict[int, float] = {}
        for offset in candidates:
            score = self._score(samples, offset)
            if score is not None:
                scores[offset] = score
            if score == 0 and len(samples) > 1 and not self._still(samples, offset):
                return [offset]
        exact = [o for o, s in scores.items() if s == 0]
        if exact:
            return exact
        return [min(scores, key=lambda o: scores[o])] if scores else []

    def _still(self, samples: Sequence[int], offset: int) -> bool:
        """Whether a neighbouring offset fits as well, as it does on a still picture."""
        return any(self._score(samples, offset + step) == 0 for step in (-1, 1))

    def _score(self, samples: Sequence[int], offset: int) -> float | None:
        worst = 0.0
        for frame in samples:
            position = frame + offset
            if not 0 <= position < self._n:
                return None
            difference = self._difference(frame, position)
            if difference > _SAME_GREY_LEVELS:
                return None
            worst = max(worst, difference)
        return worst

    def _difference(self, frame: int, position: int) -> float:
        if frame not in self._dumped:
            self._dumped[frame] = read_image(self._dumps[frame])
        if position not in self._decoded:
            if len(self._decoded) >= _MAX_DECODED:
                self._decoded.pop(next(iter(self._decoded)))
            self._decoded[position] = self._image(position)
        a, b = self._dumped[frame], self._decoded[position]
        if a.shape != b.shape:
            return float("inf")
        return float(np.mean(np.abs(a.astype(np.int16) - b)))
