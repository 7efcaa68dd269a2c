"""Reports made up for the tests of the renderers; what they say follows from a number."""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from converter.findings import Finding
from converter.validation.report import CheckResult, Picture, Report, Series

HOSTILE = (
    "<script>document.title='owned'</script>\"'><img src=x onerror=\"document.title='owned'\">"
    "<b>b</b><a href='https://example.com'>a</a>&lt;"
)
"""A name that runs, if anything puts it onto the page as it is."""


@lru_cache(maxsize=128)
def picture(number: int, width: int = 640, height: int = 360) -> bytes:
    """A JPEG with a head-like ellipse and a box: forty are different."""
    import cv2

    rng = np.random.default_rng(number)
    image = np.full((height, width, 3), rng.integers(60, 190, 3), np.uint8)
    image += rng.integers(0, 24, image.shape, np.uint8)
    centre = (int(width * rng.uniform(0.35, 0.6)), height // 2)
    cv2.ellipse(image, centre, (height // 5, height // 4), 0, 0, 360, (150, 180, 220), -1)
    low = (centre[0] - height // 3, height // 8)
    high = (centre[0] + height // 3, height * 7 // 8)
    cv2.rectangle(image, low, high, (60, 220, 240), 2)
    return cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, 85])[1].tobytes()


def series_of(
    number: int, n_frames: int, marked: tuple[tuple[int, str], ...]
) -> tuple[Series, ...]:
    rng = np.random.default_rng(number)
    ids = np.arange(n_frames, dtype=np.int64)
    if n_frames > 60:
        ids = np.delete(ids, np.s_[40:52])  # a gap
    n = len(ids)
    phase = 2 * np.pi * ids / 90
    error = 1.2 + 0.3 * rng.normal(size=n) ** 2
    for frame, _ in marked:
        error[ids == frame] += 6
    return (
        Series("focal length", "px", ids, np.full(n, 2339.0 + number), (), marked[:1]),
        Series("principal point", "px", ids, np.stack([255 + 0.01 * ids, 250 + 0 * ids], 1),
               ("x", "y")),
        Series("rotation", "deg", ids, np.stack([18 * np.sin(phase), 6 * np.cos(phase),
               2 * np.sin(2 * phase)], 1) + rng.normal(0, 0.1, (n, 3)), ("yaw", "pitch", "roll")),
        Series("translation", "mm", ids, np.stack([12 * np.sin(phase), 5 * np.cos(phase),
               1750 + 8 * np.sin(phase / 2)], 1), ("x", "y", "z")),
        Series("reprojection error", "px", ids, error, (), marked),
    )  # fmt: skip


def made(number: int, n_frames: int = 200, *, illustrated: bool = True) -> Report:
    """Report ``number``: every 7th has errors, every 3rd warnings, every 40th is unreadable."""
    name, path = f"actor_{number:03d}", f"data/session_{number // 25:02d}/output/actor_{number:03d}"
    if number % 40 == 39:
        broken = Finding("unreadable", "error", f"{path}/checkpoint/00003.frame",
                         "expected a torch.save file, found another format.",
                         fix="Copy or download it again: it is cut short or damaged.")  # fmt: skip
        return Report(path, name, "unreadable", results=(
            CheckResult("unreadable", "found", (broken,)),))  # fmt: skip
    results = [CheckResult(f"check-{k}", "passed", n_examined=n_frames) for k in range(18)]
    results.append(CheckResult("pixels-match-bbox", "skipped", reason="there are no source frames"))
    marked: tuple[tuple[int, str], ...] = ()
    if number % 7 == 0:
        results.append(CheckResult("K-naive", "found", (
            Finding("K-naive", "error", f"{path}/checkpoint", "the principal point was moved by "
                    "the corner of bbox.pt: K was rewritten to source resolution, but not scaled.",
                    412.5, 0.5, "px", "Run with --fix: the camera block says what K was."),
        )))  # fmt: skip
    if number % 3 == 0:
        marked = ((12, "jitter"), (70, "jitter"), (71, "jitter"), (72, "jitter"))
        results.append(CheckResult("jitter", "found", (
            Finding("jitter", "warning", "cameras", "a head that stands still has a camera that "
                    "moves from frame to frame.", 3.25, 1.0, "mm",
                    "uncrop fit smooths it."),)))  # fmt: skip
    results.append(
        CheckResult(
            "optimised",
            "found",
            (
                Finding(
                    "optimised", "info", "FLAME", "only the mouth was tracked: eyelids are zero."
                ),
            ),
        )
    )
    facts = {"size": "512x512 crop of 1920x1080", "fov": "12.5 deg", "frames": f"{n_frames}, 12 "
             "missing", "optimised": "expression, jaw, shape"}  # fmt: skip
    pictures = (
        Picture("crop on source frame 00012", picture(number % 40)),
        Picture("mesh and landmarks over crop 00012", picture(1000 + number % 40, 512, 512)),
    )
    return Report(
        path, name, "track", "metrical_tracker", n_frames, facts, tuple(results),
        series_of(number, n_frames, marked) if illustrated else (),
        pictures if illustrated else (), 0.8, 0.5,
    )  # fmt: skip
