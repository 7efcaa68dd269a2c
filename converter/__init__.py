"""uncrop: head-tracking output into avatar-trainer datasets, with cameras that are right.

import converter

track = converter.read_track("output/duda")
print(track.in_source().intrinsics)
converter.write_track(track, "gaussiantalker", "dataset/duda")
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

__version__ = "0.1.0"

_NAMES = {
    "Crop": "converter.geometry",
    "Finding": "converter.findings",
    "Intrinsics": "converter.geometry",
    "PixelAffine": "converter.geometry",
    "Pose": "converter.geometry",
    "ReadOptions": "converter.registry",
    "Size": "converter.geometry",
    "Track": "converter.track",
    "UncropError": "converter.errors",
    "Window": "converter.geometry",
    "check_dataset": "converter.registry",
    "read_track": "converter.registry",
    "write_track": "converter.registry",
}

__all__ = [*sorted(_NAMES), "__version__"]


def __getattr__(name: str) -> Any:
    """Import a public name when it is first asked for."""
    if name not in _NAMES:
        raise AttributeError(f"module 'converter' has no attribute {name!r}")
    return getattr(import_module(_NAMES[name]), name)


def __dir__() -> list[str]:
    return __all__
