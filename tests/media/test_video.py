"""Which frames, and which pixels: equal to what ffmpeg extracts, bit for bit."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from converter.media.video import VideoFrames
from tests.media.ffmpeg import extracted_frames, ffmpeg

SIZE = "s=96x64"
H264 = ("-c:v", "libx264", "-pix_fmt", "yuv420p")


def source(rate: str, seconds: float = 1.0, kind: str = "testsrc2") -> tuple[str, ...]:
    return ("-f", "lavfi", "-i", f"{kind}=r={rate}:d={seconds}:{SIZE}")


TONE = ("-f", "lavfi", "-i", "sine=d=1.2")

CLIPS: dict[str, tuple[tuple[str, ...], ...]] = {
    # name -> arguments of one ffmpeg run each; the first writes a.X, the next reads the one before
    "mp4-25": ((*source("25"), *H264, "{out}.mp4"),),
    "mp4-24": ((*source("24", 1.3), *H264, "{out}.mp4"),),
    "mp4-23.976": ((*source("24000/1001", 1.3), *H264, "{out}.mp4"),),
    "mp4-29.97": ((*source("30000/1001", 2), *H264, "{out}.mp4"),),
    "mp4-30": ((*source("30", 1.1), *H264, "{out}.mp4"),),
    "mp4-50": ((*source("50", 0.9), *H264, "{out}.mp4"),),
    "mp4-60": ((*source("60", 0.9), *H264, "{out}.mp4"),),
    "mp4-12": ((*source("12", 1.5), *H264, "{out}.mp4"),),
    "mp4-120-short": ((*source("120", 0.05), *H264, "{out}.mp4"),),
    "mp4-one-frame": ((*source("25", 0.04), *H264, "{out}.mp4"),),
    "mp4-no-b-frames": ((*source("30", 1), *H264, "-bf", "0", "{out}.mp4"),),
    "mp4-many-b-frames": ((*source("30", 1.5), *H264, "-bf", "8", "-g", "20", "{out}.mp4"),),
    "mp4-open-gop": (
        (*source("30", 2), *H264, "-x264-params", "open-gop=1:keyint=12:bframes=3", "{out}.mp4"),
    ),
    "mp4-variable-rate": (
        (*source("60", 1.5), "-vf", "select='not(mod(n,7))+lt(mod(n,11),3)'", "-fps_mode", "vfr")
        + (*H264, "{out}.mp4"),
    ),
    "mp4-cut-edit-list": (
        (*source("30", 2), *H264, "-g", "60", "{out}.mp4"),
        ("-ss", "0.51", "-i", "{in}", "-c", "copy", "{out}.mp4"),
    ),
    "mp4-late-video": (
        (*source("30", 1), "-itsoffset", "0.3", *source("30", 1), *TONE)
        + ("-map", "1:v", "-map", "2:a", *H264, "-c:a", "aac", "{out}.mp4"),
    ),
    "mp4-late-alone": (
        ("-itsoffset", "0.3", *source("30", 1), *H264, "-movflags", "+faststart", "{out}.mp4"),
    ),
    "mkv-late-alone": (("-itsoffset", "0.3", *source("30", 1), *H264, "{out}.mkv"),),
    "mkv-late-slightly": (("-itsoffset", "0.02", *source("30", 1), *TONE, *H264, "{out}.mkv"),),
    "mp4-late-one-tick": (
        ("-itsoffset", "0.04", *source("25", 1), *TONE, *H264, "-c:a", "aac", "{out}.mp4"),
    ),
    "mp4-late-sound": (
        (*source("30", 1), "-itsoffset", "0.3", *TONE)
        + ("-map", "0:v", "-map", "1:a", *H264, "-c:a", "aac", "{out}.mp4"),
    ),
    "mkv-late-video": (
        ("-itsoffset", "0.333", *source("24", 1), *TONE) + (*H264, "-c:a", "aac", "{out}.mkv"),
    ),
    "mp4-fragmented": (
        (*source("30", 1), *H264, "-movflags", "frag_keyframe+empty_moov", "-g", "8", "{out}.mp4"),
    ),
    "mkv-29.97": ((*source("30000/1001", 1.2), *H264, "{out}.mkv"),),
    "mkv-hevc": (
        (*source("30", 1), "-c:v", "libx265", "-x265-params", "log-level=0", "{out}.mkv"),
    ),
    "webm-vp8": (
        (*source("30", 1.5), "-c:v", "libvpx", "-auto-alt-ref", "1", "-lag-in-frames", "12")
        + ("{out}.webm",),
    ),
    "webm-vp9": ((*source("30", 1.5), "-c:v", "libvpx-vp9", "-cpu-used", "8", "{out}.webm"),),
    "avi-mpeg4": ((*source("30", 1), "-c:v", "mpeg4", "-bf", "2", "{out}.avi"),),
    "avi-mjpeg": ((*source("15", 1), "-c:v", "mjpeg", "-pix_fmt", "yuvj420p", "{out}.avi"),),
    "avi-h264-b": ((*source("30", 1), *H264, "{out}.avi"),),
    "mpegts": ((*source("30", 1.1), *TONE, *H264, "-c:a", "aac", "{out}.ts"),),
    "mpegts-offset": (
        (*source("30", 1.1), *TONE, *H264, "-output_ts_offset", "12.345", "{out}.ts"),
    ),
    "mpegts-late-video": (
        ("-itsoffset", "0.4", *source("30", 1.1), *TONE, *H264, "-c:a", "aac", "{out}.ts"),
    ),
    "mpeg2-ps": ((*source("25", 1), "-c:v", "mpeg2video", "-f", "vob", "{out}.mpg"),),
    "flv": ((*source("30", 1), *TONE, *H264, "-c:a", "aac", "{out}.flv"),),
    "rotated-90": (
        (*source("25", 0.4), *H264, "{out}.mp4"),
        ("-display_rotation", "90", "-i", "{in}", "-c", "copy", "{out}.mp4"),
    ),
    "rotated-270": (
        (*source("25", 0.4), *H264, "{out}.mp4"),
        ("-display_rotation", "-90", "-i", "{in}", "-c", "copy", "{out}.mp4"),
    ),
    "rotated-180": (
        (*source("25", 0.4), *H264, "{out}.mp4"),
        ("-display_rotation", "180", "-i", "{in}", "-c", "copy", "{out}.mp4"),
    ),
    "rotated-30": (
        (*source("25", 0.4), *H264, "{out}.mp4"),
        ("-display_rotation", "30", "-i", "{in}", "-c", "copy", "{out}.mp4"),
    ),
    "mirrored": (
        (*source("25", 0.4), *H264, "{out}.mp4"),
        ("-display_hflip", "-i", "{in}", "-c", "copy", "{out}.mp4"),
    ),
    "mirrored-90": (
        (*source("25", 0.4), *H264, "{out}.mp4"),
        ("-display_rotation", "90", "-display_hflip", "-i", "{in}", "-c", "copy", "{out}.mp4"),
    ),
    "upside-down": (
        (*source("25", 0.4), *H264, "{out}.mp4"),
        ("-display_vflip", "-i", "{in}", "-c", "copy", "{out}.mp4"),
    ),
    "full-range": ((*source("25", 0.4), "-c:v", "libx264", "-pix_fmt", "yuvj420p", "{out}.mp4"),),
    "bt709": (
        (*source("25", 0.4), "-vf", "scale=out_color_matrix=bt709", *H264, "-colorspace", "bt709")
        + ("-color_primaries", "bt709", "-color_trc", "bt709", "{out}.mp4"),
    ),
    "bt2020-10bit": (
        (*source("25", 0.4), "-vf", "scale=out_color_matrix=bt2020", "-c:v", "libx265")
        + ("-x265-params", "log-level=0:colormatrix=bt2020nc", "-pix_fmt", "yuv420p10le")
        + ("{out}.mp4",),
    ),
    "yuv444p": ((*source("25", 0.4), "-c:v", "libx264", "-pix_fmt", "yuv444p", "{out}.mp4"),),
    "yuv422p": ((*source("25", 0.4), "-c:v", "libx264", "-pix_fmt", "yuv422p", "{out}.mp4"),),
    "yuv422p10": ((*source("25", 0.4), "-c:v", "libx264", "-pix_fmt", "yuv422p10", "{out}.mp4"),),
    "nv12-mjpeg422": ((*source("25", 0.4), "-c:v", "mjpeg", "-pix_fmt", "yuvj422p", "{out}.mkv"),),
    "gray": ((*source("25", 0.4), "-c:v", "libx264", "-pix_fmt", "gray", "{out}.mp4"),),
    "gray10": ((*source("25", 0.4), "-c:v", "libx264", "-pix_fmt", "gray10le", "{out}.mp4"),),
    "rgb-png": ((*source("25", 0.4), "-c:v", "png", "-pix_fmt", "rgba", "{out}.mkv"),),
    "rgb-h264": ((*source("25", 0.4), "-c:v", "libx264rgb", "{out}.mp4"),),
    "yuva444p": ((*source("25", 0.4), "-c:v", "ffv1", "-pix_fmt", "yuva444p", "{out}.mkv"),),
    "interlaced": (
        (*source("25", 1), *H264, "-flags", "+ildct+ilme", "-x264-params", "tff=1", "{out}.mp4"),
    ),
}


def make_clip(name: str, folder: Path) -> Path:
    made = Path()
    for step, run in enumerate(CLIPS[name]):
        arguments = [
            text.replace("{out}", str(folder / f"clip{step}")).replace("{in}", str(made))
            for text in run
        ]
        ffmpeg(*arguments)
        made = Path(arguments[-1])
    return made


@pytest.mark.parametrize("name", sorted(CLIPS))
def test_frames_are_those_that_ffmpeg_extracts(name: str, tmp_path: Path) -> None:
    clip = make_clip(name, tmp_path)
    expected = extracted_frames(clip, tmp_path / "png")
    frames = VideoFrames(clip)
    found = list(frames.stream(range(len(frames))))
    assert len(frames) == len(found) == len(expected)
    for k, (ours, theirs) in enumerate(zip(found, expected, strict=True)):
        assert ours.shape == theirs.shape
        assert ours.dtype == np.uint8
        difference = np.abs(ours.astype(int) - theirs)
        assert difference.max() == 0, f"frame {k}: {difference.max()} {(difference > 0).mean()}"
    assert (frames.size.height, frames.size.width) == expected[0].shape[:2]
