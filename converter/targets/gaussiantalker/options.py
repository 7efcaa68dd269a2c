"""What a user can choose for a GaussianTalker dataset."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from converter.dataset.options import CanvasOptions, require_bounds
from converter.errors import MissingInputError


@dataclass(frozen=True)
class Options(CanvasOptions):
    """Options of --to gaussiantalker."""

    parsing: Path | None = None
    """Face-parsing PNGs in GaussianTalker's or INSTA's colours, at source or crop size."""
    parsing_names: Literal["auto", "frame", "image", "position"] = "auto"
    """What the parsing's file names count.
    frame: .frame numbers, 00000 first (INSTA).
    image: images as the tracker and ffmpeg name them, 00001 first.
    position: place in the video, 0 1 2 unpadded (GaussianTalker).
    auto: whichever fits, if only one does."""
    background: Path | None = None
    """Clean background picture, at source or crop size. Default: derived from the parsing."""
    audio_features: Path | None = None
    """DeepSpeech features, .npy of shape (N, 16, 29)."""
    missing_landmarks: Literal["interpolate", "drop"] = "interpolate"
    """Frames in which the detector found no face: fill gaps up to --max-gap, or drop all."""
    max_gap: int = 5
    """Longest gap of landmarks that is filled, frames; longer ones are dropped."""
    quality: int = 95
    """JPEG quality of the written images, 1 to 100."""
    units_per_metre: float = 10.0
    """World units per metre; 10 is the scale of GaussianTalker's own data."""
    blink_full: float = 2.0
    """AU45 of a closed eye. GaussianTalker saturates at 2; OpenFace's scale ends at 5."""

    def require(self) -> None:
        """Raise UncropError for what no track could make right."""
        CanvasOptions.require(self)
        require_bounds(
            ("--quality", self.quality, 1, 100),
            ("--max-gap", self.max_gap, 0, 1000),
            ("--units-per-metre", self.units_per_metre, 1e-3, 1e6),
            ("--blink-full", self.blink_full, 0.01, 5),
        )
        for name, path in (("--parsing", self.parsing), ("--background", self.background),
                           ("--audio-features", self.audio_features)):  # fmt: skip
            if path is not None and not path.exists():
                raise MissingInputError(
                    path, f"what {name} names", "nothing", "Check its spelling."
                )
