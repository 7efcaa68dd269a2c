"""The images inside the results, as the frames of a track."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from converter.errors import FormatError
from converter.geometry.pixels import Size
from converter.media.limits import DEFAULT_LIMITS, Limits
from converter.sources.flame_head_tracker.results import fitted_image
from converter.track import Image


@dataclass(frozen=True, slots=True)
class ResultImages:
    """`converter.track.Frames` over the images that the results keep."""

    paths: tuple[Path, ...]
    size: Size
    limits: Limits = DEFAULT_LIMITS

    @property
    def origin(self) -> str:
        """Folder of the results."""
        return str(self.paths[0].parent)

    def __len__(self) -> int:
        return len(self.paths)

    def name(self, index: int) -> str:
        """File name of the result."""
        return self.paths[index].name

    def read(self, index: int) -> Image:
        """Read one image; raises FormatError if its size differs from the others'."""
        image = fitted_image(self.paths[index], self.limits)
        if Size.of(image) != self.size:
            raise FormatError(self.paths[index], f"an image of {self.size}", f"{Size.of(image)}")
        return image

    def stream(self, indices: Sequence[int]) -> Iterator[Image]:
        """Read images one after the other."""
        return (self.read(index) for index in indices)
