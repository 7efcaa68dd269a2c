"""flame-head-tracker's results (https://github.com/PeizhiYan/flame-head-tracker) -> Track.

Tree: ``<save_path>/<video name>/<fid>.npz`` (v3.4 and later) or ``<fid>.npy`` (v1.1 to v3.3, which
are pickles under the name of arrays); fid counts processed frames from 0, not zero-padded, with
gaps where no face was found. Keys, shapes and versions: see `results`.

Axes: cam holds Euler angles and the camera's centre, OpenGL axes, camera to world, metres; the
world is FLAME's. Pixels edge origin; K central, of the aligned square (or of the whole frame
squeezed to a square, with ``realign=False``).
"""

from __future__ import annotations

from pathlib import Path

from converter.errors import FormatError, UncropError
from converter.registry import ReadOptions
from converter.sources.flame_head_tracker.results import looks_like_results
from converter.track import Track


class FlameHeadTracker:
    """Source ``flame_head_tracker``."""

    name = "flame_head_tracker"
    summary = "flame-head-tracker: the folder of <fid>.npz or <fid>.npy, with --source VIDEO"

    def sniff(self, path: Path) -> bool:
        """Whether results can be found from ``path``, by names and first bytes."""
        return looks_like_results(path)

    def read(self, path: Path, options: ReadOptions) -> Track:
        """Read a track; see `converter.sources.flame_head_tracker.reader.read_track`."""
        from converter.sources.flame_head_tracker.reader import read_track

        try:
            return read_track(path, options)
        except UncropError:
            raise
        except OSError as error:
            where = error.filename or path
            raise FormatError(where, "a readable file or folder", f"{error.strerror}") from None


SOURCE = FlameHeadTracker()
