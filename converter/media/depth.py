"""Depth maps: PNG of one channel and 16 bits, millimetres."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from converter.errors import FormatError
from converter.geometry.pixels import Size
from converter.media.images import encode_image, read_depth
from converter.media.limits import DEFAULT_LIMITS, Limits


@dataclass(frozen=True, slots=True)
class DepthFiles:
    """`converter.track.DepthMaps` over PNG files of one size."""

    paths: tuple[Path, ...]
    size: Size
    limits: Limits = DEFAULT_LIMITS

    def __len__(self) -> int:
        return len(self.paths)

    def read(self, index: int) -> NDArray[np.uint16]:
        """Map (H, W) of one frame; raises FormatError if the file is no such map."""
        depth = read_depth(self.paths[index], self.limits)
        if depth.dtype != np.uint16 or depth.shape != self.size.shape:
            raise FormatError(
                self.paths[index], f"a depth map of {self.size}, 16 bits, one channel",
                f"{depth.dtype} of shape {depth.shape}", "Track again, or move depth/ away.",
            )  # fmt: skip
        return depth


def depth_bytes(depth: NDArray[np.uint16]) -> bytes:
    """A depth map as PNG."""
    image: Any = depth
    return encode_image(image, ".png")
