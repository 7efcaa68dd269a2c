"""The sound track as WAV: against ffmpeg's own, and on the video's clock."""

from __future__ import annotations

import subprocess
import sys
import wave
from pathlib import Path

import av
import numpy as np
import pytest

from converter.errors import FormatError, UnsafeFileError
from converter.media.audio import extract_wav
from converter.media.limits import Limits
from converter.media.video import VideoFrames
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


def test_a_place_that_cannot_be_opened_is_one_error(tmp_path: Path) -> None:
    ffmpeg(*sound(), *PICTURE, *H264, "-c:a", "aac", tmp_path / "clip.mp4")
    script = (
        "import sys\n"
        "from pathlib import Path\n"
        "from converter.media.audio import extract_wav\n"
        "try:\n"
        "    extract_wav(Path(sys.argv[1]), Path(sys.argv[2]))\n"
        "except FileNotFoundError:\n"
        "    print('refused')\n"
    )
    places = [tmp_path / "clip.mp4", tmp_path / "nowhere" / "sound.wav"]
    done = subprocess.run([sys.executable, "-c", script, *places], capture_output=True, text=True)
    assert (done.stdout, done.stderr) == ("refused\n", "")


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


def click_times(samples: np.ndarray) -> list[float]:
    """When the sound is on, seconds: the first sample of each loud stretch."""
    loud = np.flatnonzero(np.abs(samples) > 2000)
    starts = loud[np.diff(loud, prepend=-(10**6)) > 1600]
    return [float(start) / 16000 for start in starts]


def clicks(*at_s: float) -> tuple[str, ...]:
    on = "+".join(f"between(t,{t},{t + 0.05})" for t in at_s)
    return ("-f", "lavfi", "-i", f"aevalsrc='0.5*sin(2000*2*PI*t)*({on})':s=48000:d=1.5")


@pytest.mark.parametrize("kind", ["mp4", "mkv", "ts", "flv"])
@pytest.mark.parametrize(("video_s", "sound_s"), [(0.0, 0.4), (0.4, 0.0), (0.0, 0.0)])
def test_sound_lies_on_the_clock_of_the_frames(
    tmp_path: Path, kind: str, video_s: float, sound_s: float
) -> None:
    """The picture turns white when the click is heard, wherever either begins."""
    clip = tmp_path / f"a.{kind}"
    flash = f"color=black:r=25:d=1.5:s=64x64,geq=lum='255*gte(T,{0.8 - video_s:g})':cb=128:cr=128"
    ffmpeg(
        *("-itsoffset", f"{video_s}", "-f", "lavfi", "-i", flash),
        *("-itsoffset", f"{sound_s}", *clicks(0.8 - sound_s)),
        *(*H264, "-bf", "0", "-c:a", "aac", clip),
    )
    video = VideoFrames(clip)
    white = [image.mean() > 128 for image in video.stream(range(len(video)))].index(True)
    extract_wav(clip, tmp_path / "a.wav")
    (click_s,) = click_times(samples_of(tmp_path / "a.wav"))
    assert abs(click_s - white / 25) < 0.025


def test_a_gap_in_the_sound_is_silence(tmp_path: Path) -> None:
    ffmpeg(
        *(*PICTURE, *clicks(0.1, 1.0), "-af", "aselect='not(between(t,0.3,0.8))'"),
        *(*H264, "-c:a", "pcm_s16le", tmp_path / "a.mkv"),
    )
    extract_wav(tmp_path / "a.mkv", tmp_path / "a.wav")
    assert click_times(samples_of(tmp_path / "a.wav")) == pytest.approx([0.1, 1.0], abs=0.005)


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("sound") / "a.mp4"
    ffmpeg(*sound(), *PICTURE, *H264, "-c:a", "aac", path)
    return path


@pytest.mark.parametrize(
    ("start_s", "end_s"), [(0, None), (0.5, None), (0.1, 0.9), (0.33333, 0.33339), (1.2, 9.0)]
)
def test_a_part_is_cut_at_whole_samples(
    clip: Path, tmp_path: Path, start_s: float, end_s: float | None
) -> None:
    extract_wav(clip, tmp_path / "all.wav")
    whole = samples_of(tmp_path / "all.wav")
    seconds = extract_wav(clip, tmp_path / "part.wav", start_s=start_s, end_s=end_s)
    stop = None if end_s is None else round(end_s * 16000)
    part = samples_of(tmp_path / "part.wav")
    assert (part == whole[round(start_s * 16000) : stop]).all()
    assert seconds == len(part) / 16000


def test_the_same_sound_gives_the_same_bytes(clip: Path, tmp_path: Path) -> None:
    for name in ("a.wav", "b.wav"):
        extract_wav(clip, tmp_path / name)
    assert (tmp_path / "a.wav").read_bytes() == (tmp_path / "b.wav").read_bytes()


def test_without_sound_nothing_is_written(clip: Path, tmp_path: Path) -> None:
    ffmpeg(*PICTURE, *H264, tmp_path / "silent.mp4")
    assert extract_wav(tmp_path / "silent.mp4", tmp_path / "a.wav") == 0
    assert extract_wav(clip, tmp_path / "a.wav", start_s=5) == 0
    assert not (tmp_path / "a.wav").exists()


def test_of_several_tracks_the_default_one_is_taken(tmp_path: Path) -> None:
    ffmpeg(
        *(*PICTURE, *clicks(0.2), *clicks(0.7), "-map", "0", "-map", "1", "-map", "2", *H264),
        *("-c:a", "pcm_s16le", "-disposition:a:0", "0", "-disposition:a:1", "default"),
        tmp_path / "a.mkv",
    )
    extract_wav(tmp_path / "a.mkv", tmp_path / "a.wav")
    assert click_times(samples_of(tmp_path / "a.wav")) == pytest.approx([0.7], abs=0.005)


def test_sound_beyond_the_limit_is_refused(clip: Path, tmp_path: Path) -> None:
    with pytest.raises(UnsafeFileError, match="at most 1 seconds"):
        extract_wav(clip, tmp_path / "a.wav", limits=Limits(frames=25))


def test_damaged_sound_gives_one_error(clip: Path, tmp_path: Path) -> None:
    content = bytearray(clip.read_bytes())
    with av.open(clip) as container:
        packets = [packet for packet in container.demux(audio=0) if packet.size]
    for packet in packets[10:20]:
        assert packet.pos is not None
        content[packet.pos : packet.pos + packet.size] = b"\xff" * packet.size
    (tmp_path / "a.mp4").write_bytes(content)
    with pytest.raises(FormatError, match="sound, block"):
        extract_wav(tmp_path / "a.mp4", tmp_path / "a.wav")
