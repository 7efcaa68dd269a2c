"""Inputs of the benchmarks, made on the spot: frames, a video, a whole track."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Literal

import cv2
import numpy as np

from converter.geometry.crop import BBox, Crop
from converter.geometry.pixels import Size
from converter.media.images import encode_image, render_crop
from converter.media.video import VideoFrames
from converter.track import Image
from fixtures.synthetic import TrackSpec, Truth, default_bbox, scene, write_track
from fixtures.synthetic.track import torch_bytes

FPS = 25
_MARGIN = 32


def write_frames(folder: Path, n_frames: int) -> list[Path]:
    """Write .frame files of the usual size, as torch 1.13 and numpy 1.23 do."""
    folder.mkdir()
    rng = np.random.default_rng(0)

    def floats(*shape: int) -> np.ndarray:
        return rng.normal(size=(1, *shape)).astype(np.float32)

    def single(array: np.ndarray, order: Literal["C", "F"] = "C") -> np.ndarray:
        return array[None].astype(np.float32, order=order)

    shape, texture = floats(300), floats(140)
    fl, pp = np.full((1, 1), 9.125, np.float32), np.full((1, 2), 0.0078125, np.float32)
    K = np.array([[2336, 0, 254], [0, 2336, 254], [0, 0, 1]])
    flip = np.diag([-1, -1, 1])
    paths = []
    for index in range(n_frames):
        R = np.linalg.qr(rng.normal(size=(3, 3)))[0]
        R *= np.sign(np.linalg.det(R))
        t = np.array([*rng.normal(0, 0.01, 2), 1.7])
        content = {
            "flame": {
                "exp": floats(100), "shape": shape, "tex": texture, "sh": floats(9, 3),
                "eyes": floats(12), "eyelids": floats(2), "jaw": floats(6),
            },
            "camera": {
                "R": single((R.T @ flip)[:2].reshape(6)), "t": single(flip @ t), "fl": fl, "pp": pp,
            },
            "opencv": {"R": single(R, "F"), "t": single(t), "K": single(K, "F")},
            "img_size": np.array([512, 512]),
            "frame_id": f"{index:05d}",
            "global_step": 1872 + 314 * (index + 1),
        }  # fmt: skip
        path = folder / f"{index:05d}.frame"
        path.write_bytes(torch_bytes(content, path.stem))
        paths.append(path)
    return paths


def moving_pictures(still: Image, n_frames: int) -> Iterator[Image]:
    """A picture that sways within its margin, with film grain, as hand-held video has."""
    height, width = (side - 2 * _MARGIN for side in still.shape[:2])
    rng = np.random.default_rng(1)
    grain = rng.normal(0, 1.5, (height + 64, width + 64, 3)).astype(np.int16)
    for k in range(n_frames):
        angle = 2 * np.pi * k / 50
        x, y = _MARGIN + 20 * np.cos(angle), _MARGIN + 12 * np.sin(angle)
        centre = (x + (width - 1) / 2, y + (height - 1) / 2)
        seen = cv2.getRectSubPix(still, (width, height), centre)
        dx, dy = rng.integers(0, 64, 2)
        seen = seen + grain[dy : dy + height, dx : dx + width]
        yield np.clip(seen, 0, 255).astype(np.uint8)


def _still(truth: Truth) -> Image:
    """Render the first frame of a track, with a margin."""
    K = truth.K_source.copy()
    K[:2, 2] += _MARGIN
    rows, columns = (side + 2 * _MARGIN for side in truth.source_shape)
    return scene.render(truth.shots[0], K, scene.room(columns, rows), 1)


def write_video(path: Path, still: Image, n_frames: int, loop: int = 0) -> None:
    """Encode `moving_pictures`; with ``loop``, only so many, and their packets again and again."""
    import av

    with av.open(str(path), "w", options={"fflags": "+bitexact"}) as container:
        options = {"crf": "20", "preset": "veryfast", "bf": "2", "flags": "+cgop"}
        if loop:
            options["g"] = str(loop)
        stream = container.add_stream("libx264", rate=FPS, options=options)
        stream.height, stream.width = (side - 2 * _MARGIN for side in still.shape[:2])
        stream.pix_fmt = "yuv420p"
        packets = []
        for k, image in enumerate(moving_pictures(still, loop or n_frames)):
            frame = av.VideoFrame.from_ndarray(image, format="bgr24")
            frame.pts, frame.time_base = k, Fraction(1, FPS)
            packets += stream.encode(frame)
        packets += stream.encode()
        if not loop:
            container.mux(packets)
            return
        ticks = round(1 / FPS / packets[0].time_base)
        written = [(bytes(p), p.pts, p.dts, p.is_keyframe, p.time_base) for p in packets]
        for begin in range(0, n_frames, loop):
            for data, pts, dts, key, time_base in written:
                packet = av.Packet(data)
                packet.stream, packet.time_base = stream, time_base
                packet.pts, packet.dts = pts + begin * ticks, dts + begin * ticks
                packet.duration, packet.is_keyframe = ticks, key
                container.mux(packet)


def write_video_track(
    folder: Path, n_frames: int, source_size: tuple[int, int], crop_size: int, loop: int = 0
) -> Truth:
    """Write a track over a video, with crops cut from it; ``loop`` as in `write_video`."""
    spec = TrackSpec(
        name="bench",
        n_frames=n_frames,
        source_size=source_size,
        crop_size=crop_size,
        source="video",
        kpt_dense=False,
        pictures=False,
    )
    truth = write_track(folder, spec)
    video = truth.actor / "video.mp4"
    write_video(video, _still(truth), n_frames, loop)
    box = truth.bbox or default_bbox(source_size)
    crop = Crop.from_bbox(BBox(*box), Size(*source_size), Size(crop_size, crop_size))
    dumps, images = truth.output / "input", truth.actor / "images"
    dumps.mkdir()
    images.mkdir()
    n_distinct = loop or n_frames
    for k, frame in enumerate(VideoFrames(video, FPS).stream(range(n_distinct))):
        data = encode_image(render_crop(frame, crop), ".png")
        for position in range(k, n_frames, n_distinct):
            (images / f"{position + 1:05d}.png").write_bytes(data)
            (dumps / f"{position:05d}.png").write_bytes(data)
    return replace(truth, video=video)
