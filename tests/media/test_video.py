"""Which frames, and which pixels: equal to what ffmpeg extracts, bit for bit."""

from __future__ import annotations

import os
import pickle
import random
from fractions import Fraction
from pathlib import Path

import av
import av.filter
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from converter.errors import ConventionError, FormatError, MissingInputError, UnsafeFileError
from converter.geometry.pixels import Size
from converter.media.limits import Limits
from converter.media.video import FrameClock, Part, VideoFrames, probe
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
    "mirrored-270": (
        (*source("25", 0.4), *H264, "{out}.mp4"),
        ("-display_rotation", "-90", "-display_hflip", "-i", "{in}", "-c", "copy", "{out}.mp4"),
    ),
    "mkv-cut-open-gop": (
        (*source("30", 2), *H264, "-x264-params", "open-gop=1:keyint=12:bframes=3", "{out}.mkv"),
        ("-ss", "0.9", "-i", "{in}", "-c", "copy", "{out}.mkv"),
    ),
    "avi-gap": (
        (*source("30", 1), "-vf", "select='lt(n,9)+eq(n,20)'", "-fps_mode", "vfr")
        + ("-c:v", "mjpeg", "-pix_fmt", "yuvj420p", "{out}.avi"),
    ),
    "flv-wrong-pts": (
        (*source("30", 1), *H264, "{out}.flv"),
        ("-i", "{in}", "-c", "copy", "-bsf:v", "setts=pts=DTS", "{out}.flv"),
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
    # A part has the pixels that the whole image has there, however colours are stored.
    width, height = (side // 8 * 4 for side in frames.size.shape[::-1])
    part = Part(4, 8, Size(width, height - 4))
    for ours, theirs in zip(frames.stream(range(len(frames)), part), expected, strict=False):
        np.testing.assert_array_equal(ours, theirs[8 : 4 + height, 4 : 4 + width])


# --- which frames -----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_clip("mp4-29.97", tmp_path_factory.mktemp("clip"))


@pytest.fixture(scope="module")
def frames(clip: Path) -> list[np.ndarray]:
    video = VideoFrames(clip)
    return list(video.stream(range(len(video))))


def test_a_track_reads_its_own_frames_in_any_order(clip: Path, frames: list[np.ndarray]) -> None:
    indices = [2, 3, 3, 17, 30, 49]
    video = VideoFrames(clip, indices=indices)
    assert len(video) == 6
    for position in (3, 4, 0, 5, 2, 1, 1):
        assert (video.read(position) == frames[indices[position]]).all()
    for image, index in zip(video.stream([1, 2, 4]), (3, 3, 30), strict=True):
        assert (image == frames[index]).all()
    assert video.name(3) == "frame 17"
    assert video.origin == str(clip)


def test_an_image_is_the_callers_own(clip: Path, frames: list[np.ndarray]) -> None:
    video = VideoFrames(clip, indices=[5, 5])
    first, second = video.stream([0, 1])
    first[:] = 0
    assert (second == frames[5]).all()
    video.read(0)[:] = 0
    assert (video.read(0) == frames[5]).all()


def test_streams_may_run_side_by_side_and_be_left(clip: Path, frames: list[np.ndarray]) -> None:
    video = VideoFrames(clip)
    one, two = video.stream([0, 10]), video.stream([10])
    assert (next(one) == frames[0]).all()
    assert (next(two) == frames[10]).all()
    assert (video.read(4) == frames[4]).all()
    assert (next(one) == frames[10]).all()
    next(video.stream([3, 4]))


def test_frames_travel_to_another_process(clip: Path, frames: list[np.ndarray]) -> None:
    video = VideoFrames(clip, indices=[7])
    video.read(0)
    assert (pickle.loads(pickle.dumps(video)).read(0) == frames[7]).all()


def test_an_index_beyond_the_end_names_the_count(clip: Path) -> None:
    with pytest.raises(MissingInputError, match=r"frame 50 .*found 50 frames"):
        VideoFrames(clip, indices=[3, 50])
    VideoFrames(clip, indices=[49])


@pytest.mark.parametrize("name", ["avi-mpeg4", "mpegts", "webm-vp8"])
def test_the_end_is_known_without_an_index_too(name: str, tmp_path: Path) -> None:
    clip = make_clip(name, tmp_path)
    n_frames = len(VideoFrames(clip))
    with pytest.raises(MissingInputError, match=f"{n_frames} frames"):
        VideoFrames(clip, indices=[n_frames])


@pytest.mark.parametrize("indices", [[4, 3], [-1]])
def test_indices_must_ascend(clip: Path, indices: list[int]) -> None:
    with pytest.raises(ConventionError, match="ascending"):
        VideoFrames(clip, indices=indices)
    with pytest.raises(ConventionError, match="ascending"):
        VideoFrames(clip).stream([4, 3])


def test_the_header_is_told(clip: Path, tmp_path: Path) -> None:
    info = probe(clip)
    assert info.size == Size(96, 64)
    assert (info.codec, info.container, info.has_audio) == ("h264", "mov", False)
    assert info.rate_hz == pytest.approx(30000 / 1001)
    assert info.duration_s == pytest.approx(2.002, abs=0.01)
    assert probe(make_clip("rotated-90", tmp_path)).size == Size(64, 96)


@pytest.mark.parametrize("fps", [10.0, 29.97, 60.0])
def test_other_rates(clip: Path, tmp_path: Path, fps: float) -> None:
    expected = extracted_frames(clip, tmp_path / "png", str(fps))
    video = VideoFrames(clip, fps)
    assert len(video) == len(expected)
    for ours, theirs in zip(video.stream(range(len(video))), expected, strict=True):
        assert (ours == theirs).all()


def test_a_video_that_begins_early_loses_what_is_before_time_zero() -> None:
    # The constant-rate output of ffmpeg takes two ticks before zero as they are.
    for first, dropped in ((-5, 3), (-2, 0), (-1, 0)):
        clock = FrameClock(Fraction(25), Fraction(1, 25), repeat_first=True)
        shown = [clock.push(tick) for tick in range(first, 4)] + [clock.finish(4)]
        numbers = [number for run in shown for number in run]
        assert numbers == list(range(4 - first - dropped))
        assert [len(run) for run in shown[1 : 1 + dropped]] == [0] * dropped


@given(
    steps=st.lists(st.integers(0, 90), min_size=1, max_size=40),
    start=st.integers(0, 200),
    rate=st.sampled_from([Fraction(25), Fraction(24000, 1001), Fraction(10), Fraction(60)]),
)
def test_frames_are_chosen_as_by_the_fps_filter(
    steps: list[int], start: int, rate: Fraction
) -> None:
    time_base = Fraction(1, 1000)
    times = list(np.cumsum([start, *steps]))
    graph = av.filter.Graph()
    graph.link_nodes(
        graph.add("buffer", f"video_size=2x2:pix_fmt=gray:time_base={time_base}:pixel_aspect=1/1"),
        graph.add("fps", f"{rate}"),
        graph.add("buffersink"),
    ).configure()
    clock = FrameClock(rate, time_base, repeat_first=False)
    found: list[int] = []
    for number, time in enumerate(times):
        frame = av.VideoFrame.from_ndarray(np.full((2, 2), number, np.uint8), "gray")
        frame.pts, frame.time_base, frame.duration = int(time), time_base, 30
        graph.vpush(frame)
        found += [number - 1] * len(clock.push(int(time)))
    found += [len(times) - 1] * len(clock.finish(int(times[-1]) + 30))
    graph.vpush(None)
    expected = []
    while True:
        try:
            expected.append(int(graph.vpull().to_ndarray()[0, 0]))
        except (av.BlockingIOError, av.EOFError):
            break
    assert found == expected
    assert clock.n_frames == len(expected) or not expected


# --- hostile and odd input --------------------------------------------------------------------


def _playlist(path: Path) -> None:
    path.write_text("#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\n/etc/hostname\n#EXT-X-ENDLIST\n")


def _concat(path: Path) -> None:
    path.write_text("ffconcat version 1.0\nfile /etc/hostname\n")


def _sdp(path: Path) -> None:
    path.write_text("v=0\no=- 0 0 IN IP4 127.0.0.1\nc=IN IP4 127.0.0.1\nm=video 5004 RTP/AVP 96\n")


def _empty(path: Path) -> None:
    path.touch()


def _picture(path: Path) -> None:
    ffmpeg("-f", "lavfi", "-i", f"testsrc2={SIZE}", "-frames:v", "1", "-f", "image2", path)


def _no_video(path: Path) -> None:
    ffmpeg(*TONE, "-c:a", "aac", path)


def _no_index(path: Path) -> None:
    make_clip("mp4-25", path.parent).rename(path)
    path.write_bytes(path.read_bytes()[:2000])


def _only_a_signature(path: Path) -> None:
    path.write_bytes(b"\x00\x00\x00\x20ftypisom" + bytes(200))


def _matroska_signature(path: Path) -> None:
    path.write_bytes(b"\x1a\x45\xdf\xa3" + random.Random(0).randbytes(5000))


def _transport_signature(path: Path) -> None:
    path.write_bytes((b"G" + bytes(187)) * 50)


def _huge_picture(path: Path) -> None:
    ffmpeg("-f", "lavfi", "-i", "color=r=1:d=1:s=9000x8000", "-c:v", "mjpeg", "-f", "mov", path)


HOSTILE = {
    "playlist": (_playlist, UnsafeFileError),
    "concat": (_concat, UnsafeFileError),
    "sdp": (_sdp, UnsafeFileError),
    "empty": (_empty, UnsafeFileError),
    "picture": (_picture, UnsafeFileError),
    "fifo": (os.mkfifo, UnsafeFileError),
    "folder": (Path.mkdir, UnsafeFileError),
    "huge picture": (_huge_picture, UnsafeFileError),
    "no video": (_no_video, FormatError),
    "no index": (_no_index, FormatError),
    "only a signature": (_only_a_signature, FormatError),
    "matroska signature": (_matroska_signature, FormatError),
    "transport signature": (_transport_signature, FormatError),
    "missing": (lambda _: None, MissingInputError),
}


@pytest.mark.parametrize("name", sorted(HOSTILE))
def test_a_hostile_file_gives_one_error(
    name: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    make, error = HOSTILE[name]
    path = tmp_path / "video.mp4"
    make(path)
    with pytest.raises(error) as caught:
        VideoFrames(path)
    assert type(caught.value) is error
    assert str(path) in str(caught.value)
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("name", ["-i.mp4", "file:a.mp4", "concat:b|c.mp4", "%d é.mp4", "a\nb.mp4"])
def test_a_name_is_only_a_name(
    name: str, clip: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / name).write_bytes(clip.read_bytes())
    monkeypatch.chdir(tmp_path)
    assert len(VideoFrames(name)) == 50


def test_a_cut_mp4_says_so(clip: Path, tmp_path: Path) -> None:
    ffmpeg("-i", clip, "-c", "copy", "-movflags", "faststart", tmp_path / "a.mp4")
    content = (tmp_path / "a.mp4").read_bytes()
    for kept in (0.5, 0.7, 0.9):
        (tmp_path / "a.mp4").write_bytes(content[: int(len(content) * kept)])
        with pytest.raises(FormatError, match="60 frames, found .* cut short"):
            VideoFrames(tmp_path / "a.mp4", indices=[40])


@pytest.mark.parametrize(("damaged", "words"), [(13, r"decoded frame 1\d"), (24, "at 0.960 s")])
def test_a_frame_that_libav_leaves_out_is_missed(damaged: int, words: str, tmp_path: Path) -> None:
    ffmpeg(*source("25", 1), "-c:v", "mpeg4", tmp_path / "a.mp4")
    content = bytearray((tmp_path / "a.mp4").read_bytes())
    with av.open(tmp_path / "a.mp4") as container:
        packet = [packet for packet in container.demux(video=0) if packet.size][damaged]
    assert packet.pos is not None
    start = packet.pos if damaged == 24 else packet.pos + packet.size // 2
    content[start : packet.pos + packet.size] = b"\xff" * (packet.pos + packet.size - start)
    (tmp_path / "a.mp4").write_bytes(content)
    video = VideoFrames(tmp_path / "a.mp4")
    with pytest.raises(FormatError, match=f"{words}.* leaves out"):
        list(video.stream(range(25)))


@pytest.mark.parametrize("name", ["mp4-25", "mkv-29.97", "avi-mjpeg", "mpegts", "flv"])
def test_a_file_cut_short_never_gives_other_frames(name: str, tmp_path: Path) -> None:
    clip = make_clip(name, tmp_path)
    whole = VideoFrames(clip)
    frames = list(whole.stream(range(len(whole))))
    content = clip.read_bytes()
    if name == "mp4-25":  # the index lies at the end; put it in front
        ffmpeg("-i", clip, "-c", "copy", "-movflags", "faststart", tmp_path / "front.mp4")
        content = (tmp_path / "front.mp4").read_bytes()
    clip.write_bytes(content[: int(len(content) * 0.6)])
    shown = []
    with pytest.raises((FormatError, MissingInputError)):  # noqa: PT012
        video = VideoFrames(clip, indices=range(len(frames)))
        shown.extend(video.stream(range(len(frames))))
    # The decoder may conceal what is missing of the last frame, as it does for ffmpeg.
    for ours, theirs in zip(shown[:-1], frames, strict=False):
        assert (ours == theirs).all()


def test_a_damaged_frame_is_named(clip: Path, tmp_path: Path) -> None:
    ffmpeg("-i", clip, "-c:v", "png", tmp_path / "a.mov")
    content = bytearray((tmp_path / "a.mov").read_bytes())
    start = content.index(b"IHDR", len(content) // 2)
    content[start : start + 40] = bytes(40)
    (tmp_path / "a.mov").write_bytes(content)
    video = VideoFrames(tmp_path / "a.mov")
    with pytest.raises(FormatError, match=r"decoded frame \d+"):
        list(video.stream(range(len(video))))
    with pytest.raises(FormatError, match=r"decoded frame \d+"):
        video.read(len(video) - 1)
    assert video.read(0).shape == (64, 96, 3)


def test_limits(clip: Path) -> None:
    VideoFrames(clip, limits=Limits(image_pixels=96 * 64, frames=50))
    with pytest.raises(UnsafeFileError, match="pixels"):
        VideoFrames(clip, limits=Limits(image_pixels=96 * 64 - 1))
    with pytest.raises(UnsafeFileError, match="49 frames"):
        VideoFrames(clip, limits=Limits(frames=49))


def test_a_time_stamp_far_away_is_refused(tmp_path: Path) -> None:
    ffmpeg(*source("25", 0.4), *TONE, "-vf", "setpts='PTS+gt(N,5)*3e9'", *H264, tmp_path / "a.mkv")
    with pytest.raises(UnsafeFileError, match="time stamp"):
        VideoFrames(tmp_path / "a.mkv")
