"""Journal: the reports that a run has established so far, so that another can go on from there.

One JSON object a line, appended as tracks finish: ``{"inputs": ..., "illustrated": ...,
"report": ...}``. A line that was cut short by a crash is ignored. ``inputs`` covers what the report
depends on: name, size and time of change of every input file, the options, uncrop's version.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

from converter import __version__
from converter.batch.discover import Found
from converter.errors import FormatError, OutputError, UncropError
from converter.media.files import scan_folder
from converter.sources.metrical_tracker.folders import find_folders
from converter.validation.render_json import report_from_json, report_to_json
from converter.validation.report import Report
from converter.validation.validate import ValidateOptions

SUFFIX = ".journal"


def journal_path(json_file: Path) -> Path:
    """Where the journal of a run lies: beside its JSON."""
    return json_file.with_name(json_file.name + SUFFIX)


@dataclass
class Journal:
    """An open journal.

    Attributes
    ----------
    path
        The file.
    illustrated
        Whether reports are kept with their series and pictures.
    known
        Inputs -> report, of what was in it when it was opened.

    """

    path: Path
    illustrated: bool = False
    known: dict[str, Report] = field(default_factory=dict)
    _stream: IO[str] | None = None

    @classmethod
    @contextlib.contextmanager
    def open(cls, path: Path, *, resume: bool, illustrated: bool) -> Iterator[Journal]:
        """Open it for appending; without ``resume`` what it holds is dropped.

        ``illustrated``: reports without series and pictures are of no use.

        Raises
        ------
        OutputError
            If it cannot be written, or another run is writing it.

        """
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            stream = path.open("a+", encoding="utf-8")
        except OSError as error:
            raise OutputError(path, "a file to write to", error.strerror or str(error)) from None
        with stream:
            _lock(stream, path)
            journal = cls(path, illustrated, _stream=stream)
            if resume:
                journal.known = _read(stream, path, illustrated=illustrated)
            else:
                stream.truncate(0)
            yield journal

    def add(self, inputs: str, report: Report) -> None:
        """Append a report; one that may come out otherwise next time is not kept."""
        if not inputs or report.kind == "unreadable" or self._stream is None:
            return
        line = {
            "inputs": inputs,
            "illustrated": self.illustrated,
            "report": report_to_json(report, illustrated=self.illustrated),
        }
        self._stream.write(json.dumps(line, allow_nan=False, separators=(",", ":")) + "\n")
        self._stream.flush()


def _lock(stream: IO[str], path: Path) -> None:
    try:
        fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        raise OutputError(
            path, "a journal that no other run is writing", "one that is in use",
            "Wait for the other run, or write to another JSON file.",
        ) from None  # fmt: skip


def _read(stream: IO[str], path: Path, *, illustrated: bool) -> dict[str, Report]:
    known: dict[str, Report] = {}
    stream.seek(0)
    line = "\n"
    for number, line in enumerate(stream, start=1):
        with contextlib.suppress(ValueError, FormatError, RecursionError):
            content: Any = json.loads(line)
            if isinstance(content, dict) and (content.get("illustrated") or not illustrated):
                report = report_from_json(content.get("report"), f"{path}:{number}")
                known[str(content.get("inputs"))] = report
    stream.seek(0, os.SEEK_END)
    if not line.endswith("\n"):
        stream.write("\n")  # so that what follows a line that was cut short is a line of its own
    return known


def inputs_of(found: Found, options: ValidateOptions) -> str:
    """Digest of all that a report depends on; empty if that cannot be told."""
    read = options.read
    digest = hashlib.sha256()
    said = (__version__, str(found.path), str(found.actor), str(read.begin_frames), str(read.fps),
            str(read.skip_damaged), str(options.thorough), str(read.limits))  # fmt: skip
    digest.update("\0".join(said).encode("utf-8", "surrogateescape"))
    try:
        for top in _inputs(found, options):
            for line in _listing(top):
                digest.update(line.encode("utf-8", "surrogateescape"))
    except (UncropError, OSError):
        return ""
    return digest.hexdigest()


def _inputs(found: Found, options: ValidateOptions) -> list[Path]:
    """The folders and files of a track, no one inside another.

    A source that spreads its tracks over several folders is asked for them; of any other, what the
    path itself holds counts.
    """
    read = options.read
    given = [p for p in (found.actor, read.actor, read.source, read.bbox) if p is not None]
    tops = [found.path, *given]
    with contextlib.suppress(FormatError):  # a bundle or a dataset
        folders = find_folders(found.path, read)
        named = (folders.output, folders.actor, folders.bbox, folders.source, folders.config.path)
        tops += [p for p in named if p is not None]
        if folders.checkpoint.is_relative_to(found.path):
            tops.remove(found.path)  # a parent of both may hold other people's tracks as well
    real = sorted({Path(os.path.realpath(p)) for p in tops})
    return [p for p in real if not any(q in p.parents for q in real)]


def _listing(top: Path) -> Iterator[str]:
    """Name, size and time of change of every file at or below ``top``."""
    if not top.is_dir():
        status = top.stat()
        yield f"{top}\0{status.st_size}\0{status.st_mtime_ns}\n"
        return
    waiting = [top]
    while waiting:
        folder = waiting.pop()
        for entry in sorted(scan_folder(folder), key=lambda e: e.name):
            if entry.is_dir(follow_symlinks=False):
                waiting.append(folder / entry.name)
                continue
            try:
                status = entry.stat()
            except OSError:  # a link to nowhere
                yield f"{entry.path}\0gone\n"
                continue
            yield f"{entry.path}\0{status.st_size}\0{status.st_mtime_ns}\n"
