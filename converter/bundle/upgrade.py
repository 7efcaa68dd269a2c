"""Bundles of other schema versions: read as they are, written anew, or refused with what to do.

Within a major version nothing is renamed or given another meaning, so an older minor version is
read without any step and a newer one leaves out only what did not exist yet. A new major version
would add its step here: a function from the old table of datasets to the new one.
"""

from __future__ import annotations

import re
from pathlib import Path

from converter.bundle.schema import VERSION
from converter.errors import BundleVersionError
from converter.media.limits import DEFAULT_LIMITS, Limits

_AGAIN = "Convert the track again; versions before 1.0 were never released."
_NEWER = "Update uncrop: it was written by a newer one."


def require_version(where: object, text: str) -> tuple[int, int]:
    """Return the schema version that a bundle states.

    Raises
    ------
    BundleVersionError
        If it is none that this version of uncrop reads; the message says what to do.

    """
    match = re.fullmatch(r"(\d{1,4})\.(\d{1,4})", text, re.ASCII)
    expected = f"format version {VERSION[0]}.x"
    if match is None:
        raise BundleVersionError(where, expected, text, "Was this written by uncrop?")
    major, minor = int(match[1]), int(match[2])
    if major != VERSION[0]:
        raise BundleVersionError(where, expected, text, _NEWER if major > VERSION[0] else _AGAIN)
    return major, minor


def upgrade_bundle(
    path: Path, out: Path, *, overwrite: bool = False, limits: Limits = DEFAULT_LIMITS
) -> None:
    """Write a bundle of an older version as one of this version, with everything that it holds.

    The old file is not touched; ``out`` may be its own path with ``overwrite``.

    Raises
    ------
    UncropError
        As `converter.bundle.read.read_bundle` and `converter.bundle.write.write_bundle`.

    """
    from converter.bundle.read import read_bundle
    from converter.bundle.write import write_bundle

    track = read_bundle(path, limits)
    holds_images = track.crop_frames is not None or track.source_frames is not None
    write_bundle(track, out, with_images=holds_images, overwrite=overwrite, limits=limits)
