"""metrical-tracker's output (https://github.com/Zielon/metrical-tracker) -> Track.

Tree: see `converter.sources.metrical_tracker.folders`. Axes OpenCV, world-to-camera; K in
edge-origin pixels of the tracker's crop; landmarks in index coordinates of the crop (whole
numbers), shifted by half a pixel here; head space = FLAME, metres.
"""

from __future__ import annotations

from pathlib import Path

from converter.errors import FormatError, UncropError
from converter.registry import ReadOptions
from converter.sources.metrical_tracker.folders import looks_like_track
from converter.track import Track


class MetricalTracker:
    """Source ``metrical_tracker``."""

    name = "metrical_tracker"
    summary = "metrical-tracker: output/, checkpoint/ or actor folder, or a parent of both"

    def sniff(self, path: Path) -> bool:
        """Whether .frame files can be found from ``path``, by names only."""
        return looks_like_track(path)

    def read(self, path: Path, options: ReadOptions) -> Track:
        """Read a track; see `converter.sources.metrical_tracker.reader.read_track`."""
        from converter.sources.metrical_tracker.reader import read_track

        try:
            return read_track(path, options)
        except UncropError:
            raise
        except OSError as error:  # folders that vanish or may not be entered
            where = error.filename or path
            raise FormatError(where, "a readable file or folder", f"{error.strerror}") from None


SOURCE = MetricalTracker()
