"""The record of a bundle: provenance and findings of a track as JSON text."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

from converter.errors import FormatError, UnsafeFileError
from converter.findings import Finding
from converter.media.limits import DEFAULT_LIMITS, Limits
from converter.track import InputFile, Provenance, Track

_SEVERITIES = ("info", "warning", "error")


@dataclass(frozen=True, slots=True)
class Record:
    """What the record says; ``video`` names the video behind the track, if there is one."""

    provenance: Provenance
    findings: tuple[Finding, ...]
    video: str | None


def record_text(track: Track) -> bytes:
    """Return the record of a track, UTF-8.

    A number that is not finite becomes null, which JSON has instead. File names that are not UTF-8
    keep their odd bytes, as JSON escapes.
    """
    findings = [asdict(f) for f in track.findings]
    for finding in findings:
        for key in ("measured", "limit"):
            value = finding[key]
            finding[key] = None if value is None or not math.isfinite(value) else float(value)
    record = {
        **asdict(track.provenance),
        "video": track.video.name if track.video else None,
        "findings": findings,
    }
    text = json.dumps(record, indent=1, sort_keys=True, ensure_ascii=False, allow_nan=False)
    return text.encode("utf-8", "backslashreplace")


def parse_record(data: bytes, where: str, limits: Limits = DEFAULT_LIMITS) -> Record:
    """Read a record; keys that are not known are left alone.

    Raises
    ------
    FormatError
        If it is not JSON, or something is missing or of another type.
    UnsafeFileError
        If it holds more values than ``limits.elements``.

    """
    n_values = sum(data.count(mark) for mark in (b",", b"[", b"{"))
    if n_values > limits.elements:
        raise UnsafeFileError(where, f"at most {limits.elements} values", f"{n_values}",
                              "If it is genuine, raise the limit.")  # fmt: skip
    try:
        record = json.loads(data.decode("utf-8"))
    except (ValueError, RecursionError) as error:
        raise FormatError(where, "JSON", type(error).__name__) from None
    fields = _Fields(record, where)
    return Record(
        Provenance(
            tracker=fields.get("tracker", _text),
            inputs=tuple(_input(f) for f in fields.each("inputs")),
            steps=tuple(fields.get("steps", _texts)),
        ),
        findings=tuple(_finding(f) for f in fields.each("findings")),
        video=fields.get("video", _optional(_text)),
    )


class _Fields:
    """An object of the JSON text, whose fields are checked one by one."""

    def __init__(self, value: Any, where: str) -> None:
        if not isinstance(value, dict):
            raise FormatError(where, "a JSON object", type(value).__name__)
        self._value, self._where = value, where

    def get(self, key: str, accept: Callable[[Any], bool]) -> Any:
        """Return a field; raises FormatError unless it is there and accepted."""
        where = f"{self._where}: {key}"
        if key not in self._value:
            raise FormatError(where, "a value", "nothing")
        value = self._value[key]
        if not accept(value):
            raise FormatError(where, f"{accept.__doc__}", f"{value!r:.60}")
        return value

    def each(self, key: str) -> list[_Fields]:
        """Return the objects of a list."""
        values = self.get(key, _list)
        return [_Fields(v, f"{self._where}: {key}[{i}]") for i, v in enumerate(values)]


def _input(fields: _Fields) -> InputFile:
    return InputFile(
        fields.get("path", _text), fields.get("n_bytes", _count), fields.get("sha256", _text)
    )


def _finding(fields: _Fields) -> Finding:
    texts = {k: fields.get(k, _text) for k in ("check", "where", "message", "unit", "fix")}
    numbers = {k: fields.get(k, _optional(_number)) for k in ("measured", "limit")}
    return Finding(severity=fields.get("severity", _severity), **texts, **numbers)


def _text(value: Any) -> bool:
    """Text."""
    return isinstance(value, str)


def _list(value: Any) -> bool:
    """A list."""
    return isinstance(value, list)


def _texts(value: Any) -> bool:
    """A list of texts."""
    return isinstance(value, list) and all(isinstance(v, str) for v in value)


def _count(value: Any) -> bool:
    """A number of bytes."""
    return type(value) is int and value >= 0


def _number(value: Any) -> bool:
    """A number."""
    return type(value) is float and math.isfinite(value)


def _severity(value: Any) -> bool:
    """One of info, warning and error."""
    return isinstance(value, str) and value in _SEVERITIES


def _optional(accept: Callable[[Any], bool]) -> Callable[[Any], bool]:
    def accept_none(value: Any) -> bool:
        return value is None or accept(value)

    accept_none.__doc__ = f"{accept.__doc__} or null"
    return accept_none
