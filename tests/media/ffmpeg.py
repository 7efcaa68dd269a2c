"""The ffmpeg program as an oracle: makes clips, and extracts frames and sound as trackers do."""

from __future__ import annotations

import subprocess
from pathlib import Path

import cv2
import imageio_ffmpeg
import numpy as np


def ffmpeg(*arguments: str | Path) -> None:
    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-v", "error", "-nostdin", "-y"]
    subprocess.run([*command, *map(str, arguments)], check=True, capture_output=True)


def extracted_frames(video: Path, folder: Path, fps: str = "25") -> list[np.ndarray]:
    """Frames as metrical-tracker sees them: extracted to png, then read with OpenCV."""
    folder.mkdir()
    ffmpeg("-i", video, "-vf", f"fps={fps}", "-q:v", "1", folder / "%05d.png")
    return [cv2.imread(str(path)) for path in sorted(folder.iterdir())]
