"""The sound track of a video as the WAV file that speech-feature extractors read.

GaussianTalker's process.py runs ``ffmpeg -i video -f wav -ar 16000 aud.wav``. `extract_wav` writes
the same samples with three differences, each on purpose:

- one channel: the DeepSpeech and wav2vec readers take one, and mix or drop the others differently;
- a sound track that begins later than the picture is preceded by silence, one that begins earlier
  is cut, and a gap is filled, so that sample ``n`` belongs to video time ``n / rate`` (ffmpeg
  writes what it decodes, one after the other, and loses such offsets);
- a plain 44-byte header, so that the same sound gives the same bytes.
"""

from __future__ import annotations

import wave
from collections.abc import Generator
from contextlib import closing
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from converter.errors import FormatError, UnsafeFileError
from converter.media.limits import DEFAULT_LIMITS, Limits
from converter.media.video import open_video, reason_of, zero_time

if TYPE_CHECKING:
    from av import AudioFrame
    from av.audio.stream import AudioStream
    from av.container import InputContainer
    from av.filter import Graph

_SAMPLE_BYTES = 2
_FRAMES_HZ = 25
"""`Limits.frames` bounds the length of the sound as it bounds that of the video, at this rate."""


def extract_wav(
    video_path: Path | str,
    out_path: Path | str,
    *,
    rate: int = 16000,
    start_s: float = 0.0,
    end_s: float | None = None,
    limits: Limits = DEFAULT_LIMITS,
) -> float:
    """Write the sound of a video as mono 16-bit PCM, aligned with the video's time zero.

    Parameters
    ----------
    video_path
        The video. Of several sound tracks, the default one with most channels, as in ffmpeg.
    out_path
        The WAV file; not created when there is no sound.
    rate
        Samples per second.
    start_s, end_s
        Part to write, seconds of video time, cut at whole samples; to the end of the sound if None.
    limits
        Bound on the length, by `Limits.frames`.

    Returns
    -------
    Seconds of sound written; 0 if the video has no sound there.

    Raises
    ------
    MissingInputError, UnsafeFileError, FormatError
        As `converter.media.video.probe`.

    """
    with open_video(video_path) as (container, kind):
        stream = _sound_stream(container)
        if stream is None:
            return 0.0
        resampler = _Resampler(zero_time(container), rate, video_path, limits)
        skip = round(start_s * rate)
        stop = None if end_s is None else max(skip, round(end_s * rate))
        n_samples = 0
        with closing(_samples(container, stream, kind, resampler)) as blocks:
            parts = _cut(blocks, skip, stop)
            first = next(parts, b"")
            if not first:
                return 0.0
            # Opened by wave itself, a file that cannot be would leave it complaining on stderr.
            with open(out_path, "wb") as file, wave.open(file, "wb") as wav:
                wav.setnchannels(1)
                wav.setsampwidth(_SAMPLE_BYTES)
                wav.setframerate(rate)
                wav.writeframesraw(first)
                n_samples = len(first) // _SAMPLE_BYTES
                for part in parts:
                    wav.writeframesraw(part)
                    n_samples += len(part) // _SAMPLE_BYTES
    return n_samples / rate


def _sound_stream(container: InputContainer) -> AudioStream | None:
    def preference(stream: AudioStream) -> tuple[bool, int]:
        return bool(stream.disposition & Disposition.default), stream.channels

    from av.stream import Disposition

    return max(container.streams.audio, key=preference, default=None)


def _cut(
    blocks: Generator[bytes, None, None], skip: int, stop: int | None
) -> Generator[bytes, None, None]:
    """Keep samples [skip, stop) of consecutive blocks; blocks after ``stop`` are not asked for."""
    at = 0
    for block in blocks:
        n_samples = len(block) // _SAMPLE_BYTES
        first = max(skip - at, 0)
        last = n_samples if stop is None else min(stop - at, n_samples)
        if first < last:
            yield block[first * _SAMPLE_BYTES : last * _SAMPLE_BYTES]
        at += n_samples
        if stop is not None and at >= stop:
            return


def _samples(
    container: InputContainer, stream: AudioStream, kind: str, resampler: _Resampler
) -> Generator[bytes, None, None]:
    """Decode and resample; sample 0 of the first block is at the video's time zero."""
    import av

    n_frames = 0
    try:
        for packet in container.demux(stream):
            for frame in stream.codec_context.decode(packet if packet.size else None):
                yield from resampler.push(_without_padding(frame) if kind == "mov" else frame)
                n_frames += 1
        yield from resampler.flush()
    except av.FFmpegError as error:
        raise FormatError(
            f"{resampler.path}: sound, block {n_frames}",
            "a whole one",
            f"a damaged one ({reason_of(error)})",
        ) from None


def _without_padding(frame: AudioFrame) -> AudioFrame:
    """Cut what an encoder added to fill its last block: mp4 gives the true duration."""
    from av import AudioFrame

    n_samples = round((frame.duration or 0) * (frame.time_base or 0) * frame.sample_rate)
    if not 0 < n_samples < frame.samples:
        return frame
    width = n_samples if frame.format.is_planar else n_samples * frame.layout.nb_channels
    array: Any = np.ascontiguousarray(frame.to_ndarray()[:, :width])
    cut = AudioFrame.from_ndarray(array, frame.format.name, frame.layout.name)
    cut.sample_rate, cut.time_base, cut.pts = frame.sample_rate, frame.time_base, frame.pts
    return cut


class _Resampler:
    """libavfilter's resampler, fed with time stamps that count from the video's time zero."""

    def __init__(self, zero_s: Fraction, rate: int, path: Path | str, limits: Limits) -> None:
        self._zero_s = zero_s
        self._rate = rate
        self.path = path
        self._max_s = Fraction(limits.frames, _FRAMES_HZ)
        self._graph: Graph | None = None
        self._format: object = None
        self._next_s = Fraction(0)
        self._n_samples = 0

    def push(self, frame: AudioFrame) -> Generator[bytes, None, None]:
        """Take one decoded block of sound; yield what is ready."""
        layout = frame.layout.name
        if (frame.format.name, layout, frame.sample_rate) != self._format:
            yield from self.flush()
            self._format = frame.format.name, layout, frame.sample_rate
            self._graph = self._new_graph(frame.format.name, layout, frame.sample_rate)
        time_s = self._next_s
        if frame.pts is not None and frame.time_base is not None:
            time_s = frame.pts * frame.time_base - self._zero_s
        if abs(time_s) > self._max_s:
            raise UnsafeFileError(
                f"{self.path}: sound",
                f"at most {float(self._max_s):g} seconds",
                f"a time stamp of {float(time_s):g}",
            )
        self._next_s = time_s + Fraction(frame.samples, frame.sample_rate)
        frame.time_base = Fraction(1, frame.sample_rate)
        frame.pts = round(time_s * frame.sample_rate)
        if self._graph is not None:
            self._graph.push(frame)
            yield from self._ready()

    def flush(self) -> Generator[bytes, None, None]:
        """Yield what the filter still holds."""
        if self._graph is not None:
            self._graph.push(None)
            yield from self._ready()
            self._graph = None

    def _ready(self) -> Generator[bytes, None, None]:
        import av

        while self._graph is not None:
            try:
                block = cast("AudioFrame", self._graph.pull())
            except (av.BlockingIOError, av.EOFError):
                return
            self._n_samples += block.samples
            yield block.to_ndarray().astype("<i2").tobytes()

    def _new_graph(self, sample_format: str, layout: str, sample_rate: int) -> Graph:
        from av.filter import Graph

        graph = Graph()
        # async=1 fills gaps and cuts overlaps of more than 0.1 s and never stretches; first_pts
        # fills or cuts the beginning.
        graph.link_nodes(
            graph.add_abuffer(
                sample_rate=sample_rate,
                format=sample_format,
                layout=layout,
                time_base=Fraction(1, sample_rate),
            ),
            graph.add("aresample", f"{self._rate}:async=1:first_pts={self._n_samples}"),
            graph.add(
                "aformat",
                f"sample_fmts=s16:channel_layouts=mono:sample_rates={self._rate}",
            ),
            graph.add("abuffersink"),
        ).configure()
        return graph
