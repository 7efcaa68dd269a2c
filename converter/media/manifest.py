"""uncrop.json: the marker of every written dataset, with what it was made from and file hashes."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from converter import __version__
from converter.errors import FormatError, MissingInputError, UnsafeFileError
from converter.media.files import read_bytes, sha256_of
from converter.media.limits import DEFAULT_LIMITS

MANIFEST = "uncrop.json"
RECORD = "track.h5"
"""The track, beside the files that were made from it."""
_FORMAT = "uncrop-dataset"


@dataclass
class DatasetFolder:
    """A dataset that is being written; remembers the hash of every file."""

    root: Path
    hashes: dict[str, str] = field(default_factory=dict)
    _made: set[Path] = field(default_factory=set)

    def write(self, name: str, data: bytes | str, *copies: str) -> None:
        """Write one file; ``name``, and those of ``copies`` of it, are relative to the dataset."""
        if isinstance(data, str):
            data = data.encode("utf-8")
        digest = hashlib.sha256(data).hexdigest()
        for each in (name, *copies):
            path = self.root / each
            if path.parent not in self._made:
                path.parent.mkdir(parents=True, exist_ok=True)
                self._made.add(path.parent)
            path.write_bytes(data)
            self.hashes[each] = digest

    def add(self, name: str) -> None:
        """Take in a file that something else has written."""
        self.hashes[name] = sha256_of(self.root / name)

    def finish(self, target: str, facts: dict[str, Any]) -> None:
        """Write the manifest."""
        manifest = {
            "format": _FORMAT,
            "format_version": 1,
            "creator": f"uncrop {__version__}",
            "target": target,
            **facts,
            "files": dict(sorted(self.hashes.items())),
        }
        (self.root / MANIFEST).write_text(to_json(manifest), encoding="utf-8")


def to_json(value: Any) -> str:
    """JSON with a final newline; refuses NaN, which JSON does not have."""
    return json.dumps(value, indent=1, allow_nan=False, ensure_ascii=False) + "\n"


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object; raises FormatError, MissingInputError or UnsafeFileError."""
    data = read_bytes(path)
    n_values = sum(data.count(mark) for mark in (b",", b"[", b"{"))
    if n_values > DEFAULT_LIMITS.json_values:
        raise UnsafeFileError(path, f"at most {DEFAULT_LIMITS.json_values} values", f"{n_values}",
                              "If it is genuine, raise the limit.")  # fmt: skip
    try:
        value = json.loads(data.decode("utf-8"))
    except (ValueError, RecursionError) as error:
        raise FormatError(path, "JSON", str(error).splitlines()[0]) from None
    if not isinstance(value, dict):
        raise FormatError(path, "a JSON object", type(value).__name__)
    return value


def read_manifest(folder: Path, target: str) -> dict[str, Any]:
    """Read the manifest of a dataset.

    Raises
    ------
    MissingInputError
        If the folder has none: uncrop did not write it.
    FormatError
        If it belongs to another target, or is damaged.

    """
    path = folder / MANIFEST
    if not path.is_file():
        raise MissingInputError(path, "a dataset written by uncrop", "no uncrop.json")
    manifest = read_json(path)
    if manifest.get("format") != _FORMAT or manifest.get("target") != target:
        raise FormatError(path, f"a {target} dataset", str(manifest.get("target")))
    return manifest
