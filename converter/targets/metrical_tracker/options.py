"""What a user can choose for metrical-tracker's layout."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from converter.dataset.options import require_side


@dataclass(frozen=True)
class Options:
    """Options of --to metrical_tracker."""

    size: int | None = None
    """Side of the crops, px. Default: as they are. Another size is cut from the source frames, and
    K is mapped exactly."""
    with_source: Literal["video", "all", "none"] = "video"
    """What of the source goes into input/NAME.
    video: the video, if the source is one.
    all: the video, or the source frames of the track as PNG.
    none: neither; give --source when reading."""

    def require(self) -> None:
        """Raise TargetError for what no track could make right."""
        if self.size is not None:
            require_side(self.size)
