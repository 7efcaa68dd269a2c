"""What is fuzzed: a function per reader, and the good files from which inputs are made.

A target takes bytes and may raise `UncropError` only. Where a checksum would keep nearly every
mutation outside (zip, HDF5), the bytes are what lies behind it, put into a good container.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from converter.media.limits import DEFAULT_LIMITS
from fixtures.hostile import archives, streams
from fixtures.hostile.abuse import GOOD, SAMPLE, small_track

Read = Callable[[bytes], object]


@dataclass(frozen=True)
class Target:
    """One reader.

    Attributes
    ----------
    read
        Reads bytes; made when it is first needed, because some need a file or a dataset.
    corpus
        Good inputs, all of which it reads.
    modules
        Prefixes of the modules whose lines are counted as its coverage.

    """

    read: Callable[[], Read]
    corpus: Callable[[], list[bytes]]
    modules: tuple[str, ...]


_SCRATCH: list[Path] = []


def _scratch() -> Path:
    """A folder for readers that want a path, in memory where there is such a thing."""
    if not _SCRATCH:
        memory = Path(os.environ.get("UNCROP_FUZZ_SCRATCH", "/dev/shm"))
        place = memory if memory.is_dir() and os.access(memory, os.W_OK) else None
        _SCRATCH.append(Path(tempfile.mkdtemp(prefix="uncrop-fuzz-", dir=place)))
    return _SCRATCH[0]


def clean() -> None:
    """Remove what the targets needed."""
    while _SCRATCH:
        shutil.rmtree(_SCRATCH.pop(), ignore_errors=True)


def _by_path(name: str, read: Callable[[Path], object]) -> Callable[[], Read]:
    def make() -> Read:
        path = _scratch() / name

        def function(data: bytes) -> object:
            path.write_bytes(data)
            return read(path)

        return function

    return make


# --- torch files --------------------------------------------------------------------------------


def _frame() -> Read:
    from converter.media.torchfile import parse_torch
    from converter.sources.metrical_tracker.payload import frame_from

    path = Path("00000.frame")
    return lambda data: frame_from(parse_torch(data, path), path)


def _stream() -> Read:
    read = _frame()
    return lambda data: read(streams.in_zip(data))


def _legacy() -> Read:
    from converter.media.torchfile import parse_torch

    return lambda data: parse_torch(data, Path("x.pt"))


def _series() -> Read:
    """The second file of a series is read by the layout of the first."""
    from converter.media.torch_series import TorchSeries

    frames = [(SAMPLE / f"output/ada/checkpoint/{i:05d}.frame").read_bytes() for i in range(3)]

    def function(data: bytes) -> object:
        series = TorchSeries(DEFAULT_LIMITS)
        for index, good in enumerate(frames):
            series.parse(good, Path(f"{index:05d}.frame"))
        return series.parse(_zipped_like(frames[0], data), Path("00003.frame"))

    return function


def _zipped_like(frame: bytes, stream: bytes) -> bytes:
    from converter.media.archive import open_archive, zip_bytes

    archive = open_archive(frame, "x")
    members = [(name, archive.read(name)) for name in archive.members]
    return zip_bytes([(n, stream if n.endswith("data.pkl") else d) for n, d in members])


def _bbox() -> Callable[[], Read]:
    def read(path: Path) -> object:
        from converter.sources.metrical_tracker.reader import read_bbox

        return read_bbox(path, DEFAULT_LIMITS)

    return _by_path("bbox.pt", read)


@lru_cache
def _torch_files() -> dict[str, bytes]:
    folder = SAMPLE.parent / "torch_files"
    return {p.name: p.read_bytes() for p in folder.iterdir() if p.suffix in (".pt", ".frame")}


def _frames() -> list[bytes]:
    return [GOOD.frame, *(d for n, d in _torch_files().items() if n.endswith(".frame"))]


def _streams() -> list[bytes]:
    from converter.media.archive import open_archive

    found = []
    for data in [GOOD.frame, _torch_files()["00003.frame"]]:
        archive = open_archive(data, "x")
        name = next(n for n in archive.members if n.endswith("data.pkl"))
        found.append(archive.read(name))
    return found


def _boxes() -> list[bytes]:
    return [d for n, d in _torch_files().items() if n.startswith("bbox")]


def _legacies() -> list[bytes]:
    return [d for d in _torch_files().values() if not d.startswith(b"PK")]


# --- arrays, images, meshes, videos -------------------------------------------------------------


def _npy() -> Read:
    from converter.media.arrays import parse_npy

    return lambda data: parse_npy(data, "x.npy")


def _npys() -> list[bytes]:
    import io

    import numpy as np

    found = [GOOD.landmarks, (SAMPLE / "input/ada/identity.npy").read_bytes()]
    for array in (np.zeros((0, 3), ">f4"), np.ones((2, 3, 4), "<f8", order="F"), np.array(True)):
        buffer = io.BytesIO()
        np.save(buffer, array)
        found.append(buffer.getvalue())
    return found


def _read_npz(path: Path) -> object:
    from converter.media.arrays import read_npz

    return read_npz(path)


def _npzs() -> list[bytes]:
    import io

    import numpy as np

    found = []
    for save in (np.savez, np.savez_compressed):
        buffer = io.BytesIO()
        save(buffer, a=np.arange(6.0), b=np.ones((2, 2), np.int32))
        found.append(buffer.getvalue())
    return found


def _read_mesh(path: Path) -> object:
    from converter.media.meshes import read_mesh

    return read_mesh(path)


def _tetrahedron() -> tuple[list[str], list[str]]:
    points = ["0 0 0", "1 0 0", "0 1 0", "0 0 1"]
    return points, ["0 1 2", "0 1 3", "0 2 3", "1 2 3"]


def _plys() -> list[bytes]:
    import trimesh

    points, faces = _tetrahedron()
    mesh = trimesh.Trimesh(
        [list(map(float, p.split())) for p in points], [list(map(int, f.split())) for f in faces],
        process=False,
    )  # fmt: skip
    found = [mesh.export(file_type="ply", encoding=kind) for kind in ("binary", "ascii")]
    return [bytes(f) if isinstance(f, bytes) else f.encode() for f in found]


def _objs() -> list[bytes]:
    points, faces = _tetrahedron()
    lines = [f"v {p}" for p in points]
    lines += ["f " + " ".join(str(int(i) + 1) for i in f.split()) for f in faces]
    grouped = [
        "# text",
        "o a",
        *lines[:4],
        "vt 0 0",
        "vn 0 0 1",
        "g a",
        "f 1/1/1 2/1/1 3/1/1 4/1/1",
    ]
    return ["\n".join(lines).encode(), "\n".join(grouped).encode()]


def _image() -> Read:
    from converter.media.images import decode_image

    return lambda data: decode_image(data, "x.png")


def _images() -> list[bytes]:
    import cv2
    import numpy as np

    picture = np.random.default_rng(0).integers(0, 256, (12, 16, 3), np.uint8)
    kinds: list[tuple[str, list[int]]] = [
        (".png", []), (".jpg", []), (".jpg", [cv2.IMWRITE_JPEG_PROGRESSIVE, 1])
    ]  # fmt: skip
    made = [cv2.imencode(suffix, picture, options)[1].tobytes() for suffix, options in kinds]
    exif = b"\xff\xe1\0\x22Exif\0\0II*\0\x08\0\0\0\1\0\x12\1\3\0\1\0\0\0\6\0\0\0" + bytes(4)
    return [*made, made[1][:2] + exif + made[1][2:]]


def _read_rows(path: Path) -> object:
    from converter.media.image_tops import read_upper_rows

    return read_upper_rows(path, 5)


def _read_video(path: Path) -> object:
    from converter.media.video import VideoFrames, probe

    info = probe(path)
    frames = VideoFrames(path)
    return info, [frames.read(i) for i in range(min(2, len(frames)))]


@lru_cache
def _videos() -> list[bytes]:
    """Two tiny clips, made with PyAV."""
    import io

    import av
    import numpy as np

    found = []
    for kind, codec in (("mp4", "mpeg4"), ("matroska", "mjpeg")):
        buffer = io.BytesIO()
        with av.open(buffer, "w", format=kind) as container:
            stream: Any = container.add_stream(codec, rate=25)
            stream.width, stream.height = 32, 32
            stream.pix_fmt = "yuv420p" if codec == "mpeg4" else "yuvj420p"
            for k in range(3):
                frame = av.VideoFrame.from_ndarray(np.full((32, 32, 3), 40 * k, np.uint8), "bgr24")
                container.mux(stream.encode(frame))
            container.mux(stream.encode(None))
        found.append(buffer.getvalue())
    return found


# --- text ---------------------------------------------------------------------------------------


def _read_yaml(path: Path) -> object:
    from converter.sources.metrical_tracker.config import read_config

    return read_config(path, DEFAULT_LIMITS)


def _read_json(path: Path) -> object:
    from converter.media.manifest import read_json

    return read_json(path)


def _record() -> Read:
    from converter.bundle.record import parse_record

    return lambda data: parse_record(data, "x.h5:/provenance/record")


def _records() -> list[bytes]:
    from converter.bundle.record import record_text
    from tests.bundle.tools import full_track

    return [record_text(full_track())]


@lru_cache
def _dataset() -> Path:
    import converter

    place = _scratch() / "dataset"
    track = converter.read_track(small_track(_scratch() / "track"))
    converter.write_track(track, "gaussiantalker", place, canvas="crop", size="64")
    return place


def _transforms() -> Read:
    """A written dataset whose transforms_train.json was changed, read back as its check does."""
    import converter

    path = _dataset() / "transforms_train.json"

    def function(data: bytes) -> object:
        path.write_bytes(data)
        return converter.check_dataset("gaussiantalker", path.parent)

    return function


def _good_transforms() -> list[bytes]:
    import json

    import converter

    if not _TRANSFORMS:
        with tempfile.TemporaryDirectory() as folder:
            track = converter.read_track(small_track(Path(folder, "track")))
            out = Path(folder, "out")
            converter.write_track(track, "gaussiantalker", out, canvas="crop", size="64")
            text = (out / "transforms_train.json").read_text()
            _TRANSFORMS.extend([text.encode(), json.dumps(json.loads(text)).encode()])
    return _TRANSFORMS


_TRANSFORMS: list[bytes] = []


def _read_lms(path: Path) -> object:
    from converter.targets.gaussiantalker.landmarks import read_lms

    return read_lms(path)


def _colmap() -> Read:
    """The three text files of a COLMAP model, put behind each other."""
    from converter.targets.colmap.model import read_text

    folder = _scratch() / "colmap"
    folder.mkdir(exist_ok=True)

    def function(data: bytes) -> object:
        parts = [*data.split(b"---\n", 2), b"", b""]
        for name, part in zip(("cameras", "images", "points3D"), parts, strict=False):
            (folder / f"{name}.txt").write_bytes(part)
        return read_text(folder)

    return function


_COLMAP = (
    b"# cameras\n1 PINHOLE 640 480 500.5 500.5 320.0 240.0\n---\n# images\n"
    b"1 1.0 0.0 0.0 0.0 0.1 0.2 0.3 1 a.png\n\n2 0.9 0.1 0.0 0.0 0.1 0.2 0.3 1 b.png\n\n---\n"
    b"# points\n1 0.0 0.5 1.0 255 0 10 0\n2 0.0 0.5 1.5 255 0 10 0\n"
)


# --- bundles and models -------------------------------------------------------------------------


def _read_bundle(path: Path) -> object:
    from converter.bundle.read import check_bundle, read_bundle

    check_bundle(path)
    track = read_bundle(path)
    return track.meshes and track.meshes.vertices(0)


def _bundles() -> list[bytes]:
    return [GOOD.bundle]


def _read_model(path: Path) -> object:
    from converter.media.pickle_model import read_model_pickle

    return read_model_pickle(path)


def _models() -> list[bytes]:
    """Dicts of arrays as pickle.dump writes them; numpy's own names, no model is needed."""
    import pickle

    import numpy as np

    content = {
        "v_template": np.zeros((4, 3)), "f": np.array([[0, 1, 2]], np.uint32), "bs_type": "lrotmin",
        "weights": np.ones((4, 5), np.float32), "kintree_table": np.zeros((2, 5), np.int64),
    }  # fmt: skip
    return [pickle.dumps(content, protocol) for protocol in (0, 1, 2, 3, 4, 5)]


def _read_pickled(path: Path) -> object:
    from converter.media.pickled import read_pickled

    return read_pickled(path)


_TORCH = ("converter.media.torchfile", "converter.media.pickle_stream", "converter.media.archive",
          "converter.sources.metrical_tracker.payload")  # fmt: skip
TARGETS = {
    "frame": Target(_frame, _frames, _TORCH),
    "stream": Target(_stream, _streams, _TORCH),
    "legacy": Target(_legacy, _legacies, _TORCH[:2]),
    "series": Target(_series, _streams, ("converter.media.torch_series",
                                         "converter.media.pickle_layout")),
    "bbox": Target(_bbox(), _boxes, _TORCH[:3]),
    "npy": Target(_npy, _npys, ("converter.media.arrays",)),
    "npz": Target(_by_path("x.npz", _read_npz), _npzs, ("converter.media.arrays",
                                                        "converter.media.archive")),
    "ply": Target(_by_path("x.ply", _read_mesh), _plys, ("converter.media.meshes",)),
    "obj": Target(_by_path("x.obj", _read_mesh), _objs, ("converter.media.meshes",)),
    "image": Target(_image, _images, ("converter.media.images", "converter.media.image_headers")),
    "rows": Target(_by_path("x.png", _read_rows), _images, ("converter.media.image_tops",)),
    "video": Target(_by_path("x.mp4", _read_video), _videos, ("converter.media.video",)),
    "yaml": Target(_by_path("x.yml", _read_yaml), lambda: [(SAMPLE / "ada.yml").read_bytes()],
                   ("converter.sources.metrical_tracker.config",)),
    "json": Target(_by_path("x.json", _read_json), lambda: [b'{"files": {"a": "0"}, "n": [1, 2]}'],
                   ("converter.media.manifest",)),
    "transforms": Target(_transforms, _good_transforms,
                         ("converter.targets.gaussiantalker.check",)),
    "lms": Target(_by_path("x.lms", _read_lms), lambda: [b"1.5 2.25\n" * 68],
                  ("converter.targets.gaussiantalker.landmarks",)),
    "colmap": Target(_colmap, lambda: [_COLMAP], ("converter.targets.colmap.model",)),
    "record": Target(_record, _records, ("converter.bundle.record",)),
    "bundle": Target(_by_path("x.h5", _read_bundle), _bundles, ("converter.bundle.read",
                                                                "converter.bundle.hdf5")),
    "flame": Target(_by_path("flame.pkl", _read_model), _models, ("converter.media.pickle_model",
                                                                  "converter.media.pickle_stream")),
    "pickled": Target(_by_path("x.pt", _read_pickled), lambda: _models()[2:],
                      ("converter.media.pickled", "converter.media.pickle_stream")),
}  # fmt: skip
"""All targets by name. Every reader of a file from outside has one; a test looks."""


def hostile(name: str) -> Iterator[bytes]:
    """Known hostile inputs, from which mutations start as well."""
    if name in ("stream", "series"):
        yield from (streams.stream_of(code) for code in streams.STREAMS.values())
    elif name in ("flame", "pickled"):
        yield from (streams.stream_of(code) for code in streams.FORGED.values())
    elif name == "colmap":
        yield _COLMAP.replace(b" 1 a.png", b" " + b"9" * 5000 + b" a.png")
    elif name == "bbox":
        yield from (make() for make, _, _ in archives.BROKEN.values())
