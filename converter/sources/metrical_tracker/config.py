"""The tracker's yaml: the few settings that say how its files fit together.

It is read as plain text values (``yaml.BaseLoader``): no tags, no merge keys, no guesses about
types, so that a hostile file can neither make objects nor grow. Names and defaults of the settings:
https://github.com/Zielon/metrical-tracker, configs/config.py.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from converter.errors import ConventionError, FormatError, UncropError
from converter.findings import Finding
from converter.media.files import read_bytes
from converter.media.limits import Limits

_MAX_BYTES = 64 * 1024
_MAX_BEGIN_FRAMES = 10**7
_TRUTH = {"true": True, "yes": True, "on": True, "false": False, "no": False, "off": False}
_MIN_FPS, _MAX_FPS = 0.1, 1000.0

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class TrackerConfig:
    """What the yaml says; None is what it does not say.

    Attributes
    ----------
    path
        The yaml; None if there is none.
    actor
        Actor folder, relative to where the tracker was run.
    begin_frames
        Images before frame 0.
    fps
        Rate at which the video was extracted.
    crop_image
        Whether the tracker cut the images by bbox.pt, or resized whole frames.
    findings
        Settings that could not be understood.

    """

    path: Path | None = None
    actor: str | None = None
    begin_frames: int | None = None
    fps: float | None = None
    crop_image: bool | None = None
    findings: tuple[Finding, ...] = ()


def require_fps(fps: float | None) -> None:
    """Raise ConventionError if the user names a rate that no video was extracted at."""
    if fps is not None and not _MIN_FPS <= fps <= _MAX_FPS:
        raise ConventionError(
            "--fps", f"frames per second, {_MIN_FPS:g} to {_MAX_FPS:g}", f"{fps:g}",
            "It is the rate at which the tracker extracted the video, usually 25.",
        )  # fmt: skip


def read_config(path: Path, limits: Limits) -> TrackerConfig:
    """Read a tracker's yaml; one that cannot be read is ignored, with a finding."""
    try:
        settings = _settings(path, limits)
    except UncropError as error:
        finding = Finding("yaml-unreadable", "warning", error.where, error.statement,
                          fix="It is ignored.")  # fmt: skip
        return TrackerConfig(findings=(finding,))
    findings: list[Finding] = []

    def setting(name: str, parse: Callable[[str], T | None], expected: str) -> T | None:
        value = settings.get(name)
        if value is None:
            return None
        parsed = parse(value) if isinstance(value, str) else None
        if parsed is None:
            found = f"{value!r:.60}" if isinstance(value, str) else f"a {type(value).__name__}"
            findings.append(
                Finding("yaml-setting", "warning", f"{path}: {name}",
                        f"expected {expected}, found {found}.", fix="The setting is ignored.")
            )  # fmt: skip
        return parsed

    return TrackerConfig(
        path,
        actor=setting("actor", _folder_name, "a folder"),
        begin_frames=setting("begin_frames", _count, "a whole number"),
        fps=setting("fps", _rate, "frames per second"),
        crop_image=setting("crop_image", lambda text: _TRUTH.get(text.lower()), "true or false"),
        findings=tuple(findings),
    )


def _settings(path: Path, limits: Limits) -> dict[Any, Any]:
    import yaml

    data = read_bytes(path, limits)
    if len(data) > _MAX_BYTES:
        raise FormatError(path, f"a yaml of at most {_MAX_BYTES} bytes", f"{len(data)} bytes")
    try:
        # BaseLoader makes text, lists and dicts of text, whatever tags a file carries.
        loaded = yaml.BaseLoader(data).get_single_data()
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        found = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise FormatError(path, "the tracker's yaml", found[:100]) from None
    if loaded is None or loaded == "":
        return {}
    if not isinstance(loaded, dict):
        raise FormatError(path, "the tracker's yaml", f"a {type(loaded).__name__}")
    return loaded


def _folder_name(text: str) -> str | None:
    return text if text and "\0" not in text else None


def _count(text: str) -> int | None:
    if not re.fullmatch(r"\d{1,12}", text, re.ASCII):
        return None
    return int(text) if int(text) <= _MAX_BEGIN_FRAMES else None


def _rate(text: str) -> float | None:
    if not re.fullmatch(r"\d{1,6}(\.\d{0,12})?", text, re.ASCII):
        return None
    return float(text) if _MIN_FPS <= float(text) <= _MAX_FPS else None
