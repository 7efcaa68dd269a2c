"""The sound track as WAV: against ffmpeg's own, and on the video's clock."""

from __future__ import annotations

import wave
from pathlib import Path

import numpy as np
import pytest

from converter.media.audio import extract_wav
from tests.media.ffmpeg import ffmpeg

PICTURE = ("-f", "lavfi", "-i", "color=red:r=25:d=1.5:s=64x64")
H264 = ("-c:v", "libx264", "-pix_fmt", "yuv420p")


def sound(seconds: float = 1.5, rate: int = 44100, layout: str = "stereo") -> tuple[str, ...]:
    expression = "|".join(f"0.4*sin({f}*2*PI*t)" for f in (440, 660, 880, 990, 1100, 1200))
    channels = {"mono": 1, "stereo": 2, "5.1": 6}[layout]
    chosen = "|".join(expression.split("|")[:channels])
    return ("-f", "lavfi", "-i", f"aevalsrc={chosen}:s={rate}:d={seconds}:c={layout}")


def samples_of(path: Path) -> np.ndarray:
    with wave.open(str(path), "rb") as wav:
        assert (wav.getnchannels(), wav.getsampwidth(), wav.getframerate()) == (1, 2, 16000)
        return np.frombuffer(wav.readframes(wav.getnframes()), "<i2").astype(int)


CLIPS = {
    "mp4-aac": (*sound(), *PICTURE, *H264, "-c:a", "aac", "{}.mp4"),
    "mp4-aac-48k": (*sound(rate=48000), *PICTURE, *H264, "-c:a", "aac", "{}.mp4"),
    "mp4-mono-22k": (*sound(rate=22050, layout="mono"), *PICTURE, *H264, "{}.mp4"),
    "mp4-5.1": (*sound(layout="5.1"), *PICTURE, *H264, "-c:a", "aac", "{}.mp4"),
    "mkv-opus": (*sound(rate=48000), *PICTURE, *H264, "-c:a", "libopus", "{}.mkv"),
    "mkv-vorbis": (*sound(), *PICTURE, *H264, "-c:a", "libvorbis", "{}.mkv"),
    "avi-mp3": (*sound(), *PICTURE, "-c:v", "mpeg4", "-c:a", "libmp3lame", "{}.avi"),
    "mov-pcm16k": (*sound(rate=16000, layout="mono"), *PICTURE, *H264, "-c:a", "pcm_s16le")
    + ("{}.mov",),
    "flv-aac": (*sound(), *PICTURE, *H264, "-c:a", "aac", "{}.flv"),
}


@pytest.mark.parametrize("name", sorted(CLIPS))
def test_sound_is_that_of_ffmpeg(name: str, tmp_path: Path) -> None:
    arguments = [text.format(tmp_path / "clip") for text in CLIPS[name]]
    ffmpeg(*arguments)
    clip = Path(arguments[-1])
    ffmpeg("-i", clip, "-ac", "1", "-ar", "16000", "-f", "wav", tmp_path / "theirs.wav")
    seconds = extract_wav(clip, tmp_path / "ours.wav")
    ours, theirs = samples_of(tmp_path / "ours.wav"), samples_of(tmp_path / "theirs.wav")
    assert seconds == len(ours) / 16000
    assert abs(len(ours) - len(theirs)) <= 2
    n = min(len(ours), len(theirs)) - 64  # the ends are shaped by the resampler's last block
    assert np.abs(ours[:n] - theirs[:n]).max() <= 1
    assert np.abs(ours).max() > 3000
