"""Video frames through PyAV, exactly those that an ffmpeg extraction would have written.

Trackers see the video as ``ffmpeg -i video.mp4 -vf fps=25 -q:v 1 source/%05d.png``. Frame ``k``
here, counted from 0, has the pixels that ``cv2.imread`` gives for the ``k + 1``-th of those files.
Three rules of ffmpeg make that so, and each lives in one place below:

- *time*: the first time stamp of the container becomes zero (`_zero_pts`), a decoded frame is shown
  at its best-effort time stamp, and the video ends when its last frame does (`_Timestamps`);
- *choice*: the ``fps`` filter shows, at each tick, the last frame whose time rounds to that tick or
  earlier, and the constant-rate output repeats the first frame back to tick 0 (`FrameClock`);
- *pixels*: the display matrix is applied first, then libswscale's default conversion to the RGB
  format that the png encoder would take (`_Converter`).

Containers are recognised by content, from a short list, and opened through a descriptor of our own,
so that a playlist or script under a video's name cannot make libav read another file or a URL.
"""

from __future__ import annotations

import math
import os
import threading
from collections.abc import Generator, Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, cast

import numpy as np
from numpy.typing import NDArray

from converter.errors import (
    ConventionError,
    FormatError,
    MissingInputError,
    UncropError,
    UnsafeFileError,
)
from converter.findings import counted
from converter.geometry.pixels import Size
from converter.media.files import open_regular
from converter.media.limits import DEFAULT_LIMITS, Limits
from converter.track import Image

if TYPE_CHECKING:
    from av import Packet, VideoFrame
    from av.container import InputContainer
    from av.filter import Graph
    from av.video.codeccontext import VideoCodecContext
    from av.video.stream import VideoStream

VIDEO_SUFFIXES = (".mp4", ".mov", ".mkv", ".avi", ".webm", ".m4v")
"""What a video of an actor folder may be called; its content decides how it is read."""

_IO_BYTES = 1 << 20
_SNIFF_BYTES = 4096
_TS_PACKET = 188
_MICROSECOND = Fraction(1, 1_000_000)
_AVFMT_TS_DISCONT = 0x0200
"""libavformat's flag of containers whose clock may jump; ffmpeg zeroes it by the used streams."""

_COPIED_COLOURS = frozenset({"yuv420p", "yuvj420p"})
"""Pixel formats whose colours libswscale copies to all pixels that share them, so that those of a
part do not depend on what is around it. It interpolates the others."""

_ONE_FRAME_PER_PACKET = frozenset(
    {"h264", "hevc", "av1", "mpeg4", "mjpeg", "prores", "png", "ffv1"}
)
"""Codecs of which, inside mp4 and Matroska, each packet shows exactly one frame."""


@dataclass(frozen=True, slots=True)
class VideoInfo:
    """What a video says of itself.

    Attributes
    ----------
    size
        Size of a frame as a player shows it (after the display rotation), px.
    codec, container
        libav's short names, e.g. "h264" and "mov".
    rate_hz
        Average frames per second of the file itself, 0 where it does not say.
    duration_s
        Length by the header, seconds, 0 where it does not say.
    has_audio
        Whether there is a sound track.

    """

    size: Size
    codec: str
    container: str
    rate_hz: float
    duration_s: float
    has_audio: bool


def probe(path: Path | str, limits: Limits = DEFAULT_LIMITS) -> VideoInfo:
    """Read a video's header, and its first frame for the display rotation.

    Raises
    ------
    MissingInputError
        If there is no such file.
    UnsafeFileError
        If it is no regular file, no container of the list, or has too many pixels.
    FormatError
        If it is damaged, or holds no video.

    """
    with open_video(path) as (container, kind):
        stream = _video_stream(container, path, limits)
        # One thread shows the first frame after one packet; many wait for many.
        stream.thread_type = "NONE"
        with closing(_decoded(container, stream, kind, path)) as frames:
            first = next(frames, None)
        if first is None:
            raise FormatError(path, "at least one frame", "none that can be decoded")
        return VideoInfo(
            size=_shown_size(first),
            codec=stream.codec_context.name,
            container=kind,
            rate_hz=float(stream.average_rate or 0),
            duration_s=float((container.duration or 0) * _MICROSECOND),
            has_audio=bool(container.streams.audio),
        )


class FrameClock:
    """Which ticks of a constant-rate sequence show each decoded frame: ffmpeg's ``-vf fps=F``.

    Time stamps go in one by one; what comes back is the half-open range of output numbers of the
    frame *before*, since a frame is shown until the next one is due.

    Parameters
    ----------
    rate
        Frames per second of the output.
    time_base
        Seconds per unit of the time stamps.
    repeat_first
        Whether a video that begins late shows its first frame from time zero; ffmpeg does so if
        the file holds anything beside the video, and else numbers from the first frame on.

    Attributes
    ----------
    n_frames
        Number of output frames so far.

    """

    def __init__(self, rate: Fraction, time_base: Fraction, *, repeat_first: bool) -> None:
        self.n_frames = 0
        self._repeat_first = repeat_first
        self._ticks_per_unit = time_base * rate
        self._next: int | None = None  # the tick that is due, as the fps filter counts
        self._base: int | None = None  # the tick that is output number 0

    def push(self, pts: int) -> range:
        """Take the time stamp of the next frame; return the numbers of the frame before it."""
        if self._next is None:
            self._next = self._tick(pts)
            return range(0)
        return self._until(self._next, self._tick(pts))

    def finish(self, end_pts: int) -> range:
        """Return the numbers of the last frame, which is shown until ``end_pts``."""
        return range(0) if self._next is None else self._until(self._next, self._tick(end_pts))

    def _tick(self, pts: int) -> int:
        return _round_half_away(pts * self._ticks_per_unit)

    def _until(self, first: int, tick: int) -> range:
        if tick <= first:
            return range(0)
        self._next = tick
        if self._base is None:
            # The fps filter counts from the first frame's own time. The constant-rate output that
            # follows takes up to two early frames as they are, and drops what is earlier still.
            kept = max(first, -2)
            if tick <= kept:
                return range(0)
            self._base = first = min(kept, 0) if self._repeat_first else kept
        self.n_frames = tick - self._base
        return range(first - self._base, self.n_frames)


@dataclass(frozen=True, slots=True)
class Part:
    """A rectangle of every image of a video, in whole `STEP` px: colours may be stored that coarse.

    Attributes
    ----------
    x, y
        Its first column and row.
    size
        Its size, px.

    """

    STEP: ClassVar[int] = 4

    x: int
    y: int
    size: Size

    def __post_init__(self) -> None:
        if any(value % self.STEP for value in (self.x, self.y, *self.size.shape)):
            raise ConventionError("part of a video", f"multiples of {self.STEP} px", f"{self}")

    def of(self, image: Image) -> Image:
        """Cut it out of a whole image."""
        return image[self.y : self.y + self.size.height, self.x : self.x + self.size.width]

    @property
    def filter(self) -> tuple[str, str]:
        """The libavfilter that cuts it out, and its arguments."""
        return "crop", f"{self.size.width}:{self.size.height}:{self.x}:{self.y}"


class VideoFrames:
    """The frames of a track out of a video, as if extracted by ffmpeg first; see `Frames`.

    Parameters
    ----------
    path
        The video.
    fps
        Rate of the extraction (metrical-tracker's ``fps`` setting), frames per second.
    indices
        For each track frame, which extracted frame it is, counted from 0, ascending. All if None.
    limits
        Bounds on the frame size and on the number of frames.

    Raises
    ------
    MissingInputError
        If there is no such file, or the video is too short for ``indices``.
    UnsafeFileError, FormatError
        As `probe`.
    ConventionError
        If ``indices`` are not ascending from 0 or more.

    Notes
    -----
    Decoding always runs from the start: pixels after a seek are not the same for every encoder.
    `read` keeps its decoder open, so that reading in ascending order is one pass.

    """

    def __init__(
        self,
        path: Path | str,
        fps: float = 25.0,
        indices: Sequence[int] | None = None,
        limits: Limits = DEFAULT_LIMITS,
    ) -> None:
        self.path = Path(path)
        self._rate = Fraction(fps).limit_denominator(1_000_000)
        self._limits = limits
        self._info = probe(path, limits)
        self._convert = _Converter(self.path, self.size)
        self._runs: Iterator[_Run] | None = None
        self._run = _NOTHING
        self._lock = threading.Lock()
        if indices is None:
            self._indices: Sequence[int] = range(self._count(limits.frames))
        else:
            self._indices = [int(i) for i in indices]
            _require_ascending(self._indices, self.path)
            last = max(self._indices, default=-1)
            n_frames = self._count(last + 1)
            if last >= n_frames:
                raise self._too_short(last, n_frames)

    @property
    def size(self) -> Size:
        """Size of every frame, px."""
        return self._info.size

    @property
    def info(self) -> VideoInfo:
        """What the video's header says."""
        return self._info

    @property
    def origin(self) -> str:
        """Path of the video."""
        return str(self.path)

    def __len__(self) -> int:
        return len(self._indices)

    def name(self, index: int) -> str:
        """``frame K``, where K counts extracted frames from 0."""
        return f"frame {self._indices[index]}"

    def __reduce__(self) -> tuple[object, ...]:
        # An open decoder cannot travel to another process; it is opened again there.
        return VideoFrames, (self.path, float(self._rate), self._indices, self._limits)

    def read(self, index: int) -> Image:
        """Decode the image of track frame ``index``: (H, W, 3) uint8, BGR; raises as `stream`."""
        number = self._indices[index]
        with self._lock:
            if self._runs is None or number < self._run.numbers.start:
                self._runs, self._run = self._decode(), _NOTHING
            try:
                self._run = self._seek(self._runs, self._run, number)
            except UncropError:
                self._runs = None
                raise
            return self._convert(self._run.frame, number)

    def stream(self, indices: Sequence[int], part: Part | None = None) -> Iterator[Image]:
        """Decode the images of track frames ``indices``, ascending, in one pass.

        Decoding runs on all cores and stops after the last image asked for. Of ``part`` alone are
        the colours converted; its pixels are those that the whole image has there.

        Yields
        ------
        (H, W, 3) uint8 arrays, BGR; each is the caller's own.

        Raises
        ------
        ConventionError
            If ``indices`` are not ascending.
        MissingInputError
            If the video ends before.
        FormatError
            If it cannot be decoded, naming the frame.

        """
        numbers = [self._indices[i] for i in indices]
        _require_ascending(numbers, self.path)
        return self._extract(numbers, part)

    def _extract(self, numbers: list[int], part: Part | None) -> Iterator[Image]:
        convert = _Converter(self.path, self.size, part)
        run = _NOTHING
        with closing(self._decode()) as runs:
            for number in numbers:
                run = self._seek(runs, run, number)
                yield convert(run.frame, number)

    def _seek(self, runs: Iterator[_Run], run: _Run, number: int) -> _Run:
        n_frames = run.numbers.stop
        while number >= n_frames:
            following = next(runs, None)
            if following is None:
                raise self._too_short(number, n_frames)
            run, n_frames = following, following.numbers.stop
        return run

    def _too_short(self, number: int, n_frames: int) -> MissingInputError:
        return MissingInputError(
            self.path,
            f"frame {number} (counted from 0, at {float(self._rate):g} frames per second)",
            counted(n_frames, "frame"),
            "Is it the video that was tracked, and is it whole?",
        )

    def _decode(self) -> Generator[_Run, None, None]:
        """Decode the video from its start, each frame with the numbers under which it is shown."""
        with open_video(self.path) as (container, kind):
            stream = _video_stream(container, self.path, self._limits)
            times = _Timestamps(container, stream)
            clock = self._clock(container, stream)
            held = cast("VideoFrame", None)
            with closing(_decoded(container, stream, kind, self.path)) as frames:
                for frame in frames:
                    numbers = clock.push(times.of(frame.pts, frame.dts, frame.duration))
                    self._require_bounded(numbers)
                    if numbers:
                        yield _Run(numbers, held)
                    held = frame
            numbers = clock.finish(times.end)
            self._require_bounded(numbers)
            if numbers:
                yield _Run(numbers, held)

    def _clock(self, container: InputContainer, stream: VideoStream) -> FrameClock:
        alone = len(container.streams) == 1
        return FrameClock(self._rate, _time_base(stream), repeat_first=not alone)

    def _count(self, enough: int) -> int:
        """Count the extracted frames, or at least ``enough`` of them.

        Where packets tell as much as decoding them would, they are only demultiplexed.
        """
        n_frames = self._count_packets()
        if n_frames is not None:
            return n_frames
        n_frames = 0
        with closing(self._decode()) as runs:
            for run in runs:
                n_frames = run.numbers.stop
                if n_frames >= enough:
                    break
        return n_frames

    def _count_packets(self) -> int | None:
        with open_video(self.path) as (container, kind):
            stream = _video_stream(container, self.path, self._limits)
            if not _one_frame_per_packet(stream, kind):
                return None
            shown = _shown_packets(_packets(container, stream, kind, self.path))
            if shown is None:
                return None
            times = _Timestamps(container, stream)
            clock = self._clock(container, stream)
        for pts, duration in shown:
            clock.push(times.of(pts, None, duration))
        self._require_bounded(clock.finish(times.end))
        return clock.n_frames

    def _require_bounded(self, numbers: range) -> range:
        if numbers.stop > self._limits.frames:
            raise UnsafeFileError(
                self.path,
                f"at most {self._limits.frames} frames",
                f"a time stamp that asks for {numbers.stop}",
            )
        return numbers


def _require_ascending(numbers: Sequence[int], path: Path) -> None:
    previous = 0
    for number in numbers:
        if number < previous:
            raise ConventionError(path, "frames in ascending order from 0", f"{number}")
        previous = number


@dataclass(frozen=True, slots=True)
class _Run:
    """A decoded frame and the output numbers under which it is shown."""

    numbers: range
    frame: VideoFrame


_NOTHING: Any = _Run(range(0), cast("VideoFrame", None))


@contextmanager
def open_video(path: Path | str) -> Iterator[tuple[InputContainer, str]]:
    """Open a video or sound file of the known containers, and name the container.

    Nothing but this one file is read, whatever it refers to. Errors of libav that leave the block
    come out as `FormatError`.

    Raises
    ------
    MissingInputError, UnsafeFileError, FormatError
        As `probe`.

    """
    import av
    import av.logging
    from av.container import Flags

    av.logging.set_level(None)  # libav would write its own messages to the terminal
    with os.fdopen(open_regular(path), "rb") as file:
        kind = _container_kind(file.read(_SNIFF_BYTES))
        if kind is None:
            raise UnsafeFileError(
                path,
                "an mp4, mov, Matroska, WebM, AVI, MPEG or FLV video",
                "none of these by its first bytes",
                "Give the video file itself, or a folder of its frames.",
            )
        file.seek(0)
        try:
            with av.open(
                file,
                "r",
                format=kind,
                metadata_errors="replace",
                buffer_size=_IO_BYTES,
                io_open=_refuse_other_files,
            ) as container:
                # Made-up time stamps, which PyAV asks for by default, are not those of ffmpeg.
                container.flags &= ~Flags.gen_pts.value
                yield container, kind
        except (av.FFmpegError, ValueError) as error:
            raise FormatError(
                path, "a whole video", f"one that libav cannot read ({reason_of(error)})"
            ) from None


def _refuse_other_files(url: str, *_: object) -> object:
    raise FileNotFoundError(url)


def reason_of(error: Exception) -> str:
    """Why libav failed, in its own words."""
    return getattr(error, "strerror", None) or str(error)


def _container_kind(head: bytes) -> str | None:
    """Name libav's demuxer for a file that begins with ``head``, if it is one of ours."""
    if head[4:8] in (b"ftyp", b"moov", b"mdat", b"wide", b"free", b"skip"):
        return "mov"
    if head[:4] == b"\x1a\x45\xdf\xa3":
        return "matroska"
    if head[:4] == b"RIFF" and head[8:12] == b"AVI ":
        return "avi"
    if head[:3] == b"FLV":
        return "flv"
    if head[:4] == b"\x00\x00\x01\xba":
        return "mpeg"
    if len(head) > 4 * _TS_PACKET and head[: 4 * _TS_PACKET : _TS_PACKET] == b"GGGG":
        return "mpegts"
    return None


def _video_stream(container: InputContainer, path: Path | str, limits: Limits) -> VideoStream:
    stream = cast("VideoStream | None", container.streams.best("video"))
    if stream is None:
        raise FormatError(path, "a video", "a file without a video track")
    codec = cast("VideoCodecContext | None", stream.codec_context)
    if codec is None or codec.width <= 0 or codec.height <= 0:
        raise FormatError(path, "a video that libav can decode", "an unknown codec or no size")
    if codec.width * codec.height > limits.image_pixels:
        raise UnsafeFileError(
            path, f"at most {limits.image_pixels} pixels", f"{codec.width}x{codec.height}"
        )
    # The size inside the codec's own data may differ; decoders count their padding too.
    codec.options = {**codec.options, "max_pixels": str(2 * limits.image_pixels + (1 << 20))}
    stream.thread_type = "AUTO"
    return stream


def _time_base(stream: VideoStream) -> Fraction:
    return stream.time_base or Fraction(1)


def _zero_pts(container: InputContainer, stream: VideoStream) -> int:
    """Return the time stamp, in units of the stream, that ffmpeg makes zero."""
    if container.format.flags & _AVFMT_TS_DISCONT:
        return stream.start_time or 0
    start_s = (container.start_time or 0) * _MICROSECOND
    return _round_half_away(start_s / _time_base(stream))


def zero_time(container: InputContainer) -> Fraction:
    """Time stamp, seconds, of what ffmpeg makes time zero of the video's frames."""
    stream = cast("VideoStream | None", container.streams.best("video"))
    if stream is None:
        return (container.start_time or 0) * _MICROSECOND
    return _zero_pts(container, stream) * _time_base(stream)


def _round_half_away(exact: Fraction) -> int:
    # libavutil's AV_ROUND_NEAR_INF: halves go away from zero.
    magnitude = (2 * abs(exact.numerator) + exact.denominator) // (2 * exact.denominator)
    return magnitude if exact >= 0 else -magnitude


class _Timestamps:
    """Presentation times of decoded frames, with zero where ffmpeg puts it.

    Units are those of the stream. Containers without usable time stamps get them from the decoding
    order; one that is absent follows from the frame before.
    """

    def __init__(self, container: InputContainer, stream: VideoStream) -> None:
        self._zero = _zero_pts(container, stream)
        rate = stream.guessed_rate or stream.average_rate
        self._nominal = _round_half_away(1 / rate / _time_base(stream)) if rate else 1
        self._last: int | None = None
        self._last_duration = 0
        self._last_pts: int | None = None
        self._last_dts: int | None = None
        self._faulty_pts = 0
        self._faulty_dts = 0

    @property
    def end(self) -> int:
        """When the last frame ends."""
        return (self._last or 0) + self._last_duration

    def of(self, pts: int | None, dts: int | None, duration: int) -> int:
        """Presentation time of the next decoded frame, from the stamps that it carries."""
        best = self._best_effort(pts, dts)
        if best is not None:
            time = best - self._zero
        else:
            time = 0 if self._last is None else self._last + self._last_duration
        step = -1 if self._last is None else time - self._last
        # A duration of one unit is what libav writes where the container gives none.
        reliable = duration > 0 and not (duration == 1 and step > 2)
        if not reliable:
            duration = step if step > 0 else duration or self._nominal or 1
        self._last, self._last_duration = time, duration
        return time

    def _best_effort(self, pts: int | None, dts: int | None) -> int | None:
        """Choose between the two stamps by which of them has gone backwards less often."""
        if dts is not None:
            self._faulty_dts += self._last_dts is not None and dts <= self._last_dts
            self._last_dts = dts
        elif pts is not None:
            self._last_dts = pts
        if pts is not None:
            self._faulty_pts += self._last_pts is not None and pts <= self._last_pts
            self._last_pts = pts
        elif dts is not None:
            self._last_pts = dts
        if pts is not None and (dts is None or self._faulty_pts <= self._faulty_dts):
            return pts
        return dts


def _packets(
    container: InputContainer, stream: VideoStream, kind: str, path: Path | str
) -> Generator[Packet[VideoStream], None, None]:
    """Yield the packets of the video track, and know a file that ends before its index does."""
    n_packets = 0
    for packet in container.demux(stream):
        if packet.size:
            n_packets += 1
        elif kind == "mov" and n_packets < stream.frames:
            raise FormatError(
                path, counted(stream.frames, "frame"), f"{n_packets}", "The file is cut short."
            )
        yield packet


def _one_frame_per_packet(stream: VideoStream, kind: str) -> bool:
    return kind in ("mov", "matroska") and stream.codec_context.name in _ONE_FRAME_PER_PACKET


def _shown_packets(packets: Iterable[Packet[VideoStream]]) -> list[tuple[int, int]] | None:
    """List (pts, duration) of the frames in the order shown; None if packets do not tell."""
    shown: list[tuple[int, int]] = []
    for packet in packets:
        if not packet.size:
            continue
        if packet.pts is None or packet.is_discard or packet.is_corrupt:
            return None
        # Frames that lead the first key frame may not be decodable.
        if not shown and not packet.is_keyframe or shown and packet.pts <= shown[0][0]:
            return None
        shown.append((packet.pts, packet.duration or 0))
    return sorted(shown)


def _decoded(
    container: InputContainer, stream: VideoStream, kind: str, path: Path | str
) -> Generator[VideoFrame, None, None]:
    """Yield the decoded frames, and know one that was lost on the way.

    libav reports a damaged frame, drops it and goes on; ffmpeg then shows its neighbour for it.
    What a decoder conceals inside a frame it does not report; ffmpeg extracts the same pixels.
    """
    import av

    track_losses = _one_frame_per_packet(stream, kind)
    pending: set[int] = set()
    first_pts: int | None = None
    n_frames = 0
    try:
        for packet in _packets(container, stream, kind, path):
            if track_losses and packet.size and packet.pts is not None and not packet.is_discard:
                pending.add(packet.pts)
            for frame in stream.codec_context.decode(packet if packet.size else None):
                if frame.pts is not None:
                    pending.discard(frame.pts)
                    first_pts = frame.pts if first_pts is None else first_pts
                if frame.is_corrupt:
                    raise FormatError(f"{path}: decoded frame {n_frames}", *_DAMAGED)
                yield frame
                n_frames += 1
    except av.FFmpegError as error:
        raise FormatError(
            f"{path}: decoded frame {n_frames}",
            "a whole frame",
            f"a damaged one ({reason_of(error)})",
        ) from None
    # Frames that lead the first key frame need pictures from before it; ffmpeg has none either.
    lost = [pts for pts in pending if first_pts is not None and pts > first_pts]
    if lost:
        lost_s = float(min(lost) * _time_base(stream))
        raise FormatError(f"{path}: the frame at {lost_s:.3f} s", *_DAMAGED)


_DAMAGED = ("a whole frame", "a damaged one that libav leaves out")


def _display_matrix(frame: VideoFrame) -> tuple[int, ...] | None:
    """Nine numbers, 3 x 3 by rows, as libavutil/display.h defines them; None for none."""
    from av.sidedata.sidedata import SideDataContainer

    # frame.side_data would stay with the frame and refer back to it: hundreds of megabytes of
    # frames would then wait for the cyclic garbage collector.
    container: Any = SideDataContainer
    data = container(frame).get("DISPLAYMATRIX")
    return None if data is None else tuple(np.frombuffer(bytes(data), np.int32)[:9].tolist())


def _rotation_filters(matrix: tuple[int, ...] | None) -> list[tuple[str, str]]:
    """Return the filters that ffmpeg puts before all others to show a frame upright."""
    if matrix is None:
        return []
    lengths = math.hypot(matrix[0], matrix[3]), math.hypot(matrix[1], matrix[4])
    if not all(lengths):
        return []
    turn = math.atan2(matrix[1] / lengths[1], matrix[0] / lengths[0])
    turn_deg = round(math.degrees(turn)) % 360
    if turn_deg == 90:
        return [("transpose", "cclock_flip" if matrix[3] > 0 else "clock")]
    if turn_deg == 180:
        return [("hflip", "")] * (matrix[0] < 0) + [("vflip", "")] * (matrix[4] < 0)
    if turn_deg == 270:
        return [("transpose", "clock_flip" if matrix[3] < 0 else "cclock")]
    if turn_deg > 1:
        return [("rotate", f"{turn_deg}*PI/180")]
    return [("vflip", "")] * (matrix[4] < 0)


def _shown_size(frame: VideoFrame) -> Size:
    swapped = any(name == "transpose" for name, _ in _rotation_filters(_display_matrix(frame)))
    width, height = (frame.height, frame.width) if swapped else (frame.width, frame.height)
    return Size(width, height)


class _Converter:
    """Decoded frames to BGR, through the filters that ffmpeg would run on them."""

    def __init__(self, path: Path, size: Size, part: Part | None = None) -> None:
        self._path = path
        self._size = size
        self._part = part
        self._key: object = None
        self._graph: Graph | None = None

    def __call__(self, frame: VideoFrame, number: int) -> Image:
        import av

        where = f"{self._path}: frame {number}"
        matrix = _display_matrix(frame)
        key = (
            frame.width,
            frame.height,
            frame.format.name,
            int(frame.colorspace),
            int(frame.color_range),
            matrix,
        )
        part = self._part
        cut_first = part is not None and frame.format.name in _COPIED_COLOURS
        try:
            if self._graph is None or key != self._key:
                cut = [part.filter] if part is not None and cut_first else []
                self._graph = _conversion_graph(frame, [*_rotation_filters(matrix), *cut])
                self._key = key
            self._graph.vpush(frame)
            pixels = self._graph.vpull().to_ndarray()
        except av.FFmpegError as error:
            raise FormatError(where, "a picture that libav can show", reason_of(error)) from None
        image = _bgr(pixels)
        found = _shown_size(frame) if cut_first else Size(image.shape[1], image.shape[0])
        if found != self._size:
            raise FormatError(where, f"{self._size}", f"{found}", "The size may not change.")
        return image if part is None or cut_first else part.of(image)


def _conversion_graph(frame: VideoFrame, filters: Sequence[tuple[str, str]]) -> Graph:
    from av.filter import Graph

    graph = Graph()
    nodes = [
        graph.add(
            "buffer",
            f"video_size={frame.width}x{frame.height}:pix_fmt={frame.format.name}:time_base=1/25:"
            f"pixel_aspect=1/1:colorspace={int(frame.colorspace)}:range={int(frame.color_range)}",
        )
    ]
    nodes += [graph.add(name, args) for name, args in filters]
    nodes += [graph.add("scale", "flags=bicubic"), graph.add("format", _rgb_format(frame))]
    graph.link_nodes(*nodes, graph.add("buffersink")).configure()
    return graph


def _rgb_format(frame: VideoFrame) -> str:
    """Pixel format to convert to: that of the png that ffmpeg would write, in BGR where it can."""
    components = frame.format.components
    deep = max(c.bits for c in components) > 8
    if len(components) == 1 and not frame.format.has_palette:
        return "gray16be" if deep else "gray"
    if any(c.is_alpha for c in components):
        return "rgba64be" if deep else "rgba"
    return "rgb48be" if deep else "bgr24"


def _bgr(pixels: NDArray[Any]) -> Image:
    """Reduce a converted picture to (H, W, 3) uint8, BGR, as ``cv2.imread`` reads a png."""
    if pixels.dtype != np.uint8:
        # Files of 16 bits are read by their high byte.
        pixels = (pixels >> 8).astype(np.uint8)
        bgr = False
    else:
        bgr = pixels.ndim == 3 and pixels.shape[2] == 3
    if pixels.ndim == 2:
        return np.repeat(pixels[:, :, None], 3, axis=2)
    return pixels if bgr else np.ascontiguousarray(pixels[:, :, 2::-1])
