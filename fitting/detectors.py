"""68 landmarks by face_alignment (https://github.com/1adrianb/face-alignment), an optional extra.

The package loads its own weights, from where torch keeps downloads. Nothing is downloaded here: a
file that is missing is named with its address and its place. Both files are read as plain weights
(``weights_only``); the package's default for the face detector would run what the file asks for.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeAlias

import numpy as np

from converter.errors import FormatError, MissingInputError
from converter.geometry.pixels import Floats, Size, pixels_from_index
from converter.track import Image

Device: TypeAlias = Literal["auto", "cpu", "cuda", "mps"]

N_LANDMARKS = 68
_NETWORK = "2DFAN-4"
_FACES = "s3fd"
_SURE = 0.5
"""Least score of a face, the package's own."""


@dataclass(frozen=True, slots=True)
class Weights:
    """A file of weights: where it is published, and where it has to lie."""

    url: str
    path: Path


def weights() -> tuple[Weights, Weights]:
    """Return the files that the installed package needs: of landmarks, and of faces.

    Raises
    ------
    MissingInputError
        If the package is not installed.
    FormatError
        If it is too old.

    """
    try:
        import torch
        from face_alignment import api
        from face_alignment.detection.sfd import sfd_detector
    except ImportError as error:
        raise MissingInputError(
            "face_alignment", "the package that detects landmarks", f"none ({error.name})",
            "Install it: pip install face-alignment (the extra landmarks of uncrop).",
        ) from None  # fmt: skip
    folder = Path(torch.hub.get_dir()) / "checkpoints"
    urls = api.models_urls.get(_NETWORK), sfd_detector.models_urls.get(_FACES)
    if not all(isinstance(url, str) for url in urls):
        raise FormatError(
            "face_alignment", "version 1.5 or later", "an older one",
            "Update it: pip install -U face-alignment.",
        )  # fmt: skip
    network, faces = (Weights(url, folder / url.rpartition("/")[2]) for url in urls)
    return network, faces


def require_weights() -> tuple[Weights, Weights]:
    """Return `weights`.

    Raises
    ------
    MissingInputError
        As `weights`; also if a file is not there, with its address and its place.

    """
    found = weights()
    missing = [file for file in found if not file.path.is_file()]
    if missing:
        steps = " and ".join(f"{file.url} to {file.path}" for file in missing)
        raise MissingInputError(
            missing[0].path, "weights of face_alignment", "nothing",
            f"Download {steps}; torch finds them there (TORCH_HOME says where).",
        )  # fmt: skip
    return found


class LandmarkDetector:
    """FAN of four stages behind S3FD, loaded once.

    Parameters
    ----------
    device
        Where it runs; auto: the GPU if torch has one.
    mirrored
        Look at each face twice, once mirrored, and take the mean, as the package does by default:
        steadier, and twice the time.

    Raises
    ------
    MissingInputError, FormatError
        As `require_weights`; FormatError also if a file holds other weights.

    """

    def __init__(self, device: Device = "auto", mirrored: bool = True) -> None:
        network, faces = require_weights()
        import torch
        from face_alignment import FaceAlignment, LandmarksType

        if device == "auto":
            device = "cuda" if torch.cuda.is_available() else "cpu"
        try:
            self._fan: Any = FaceAlignment(
                LandmarksType.TWO_D,
                device=device,
                flip_input=mirrored,
                face_detector="sfd",
                face_detector_kwargs={"path_to_detector": str(faces.path)},
                compile=False,  # without a C++ compiler every later call would fail
            )
        except Exception as error:  # whatever torch says of a damaged or foreign file
            first = (str(error).splitlines() or [type(error).__name__])[0][:200]
            raise FormatError(
                network.path.parent,
                f"weights {network.path.name} and {faces.path.name} on {device}",
                first,
                f"Download {network.url} and {faces.url} again.",
            ) from None

    def detect(self, image: Image) -> Floats | None:
        """Landmarks (68, 2) of the largest face, edge-origin px; None if there is no face."""
        rgb = np.ascontiguousarray(image[..., ::-1])
        boxes = [
            [float(v) for v in box]
            for box in self._fan.face_detector.detect_from_image(rgb.copy())
            if float(box[4]) >= _SURE
        ]
        if not boxes:
            return None
        found = self._fan.get_landmarks_from_image(
            rgb, detected_faces=[_main_face(boxes, Size.of(image))]
        )
        if not found:
            return None
        # The package gives whole numbers, the index of a pixel.
        return pixels_from_index(np.asarray(found[0], dtype=np.float64)[:, :2])


def _main_face(boxes: list[list[float]], size: Size) -> list[float]:
    """The largest; of equals, the one nearest to the middle of the image."""

    def rank(box: list[float]) -> tuple[float, float]:
        x0, y0, x1, y1 = box[:4]
        off = np.hypot((x0 + x1 - size.width) / 2, (y0 + y1 - size.height) / 2)
        return -round((x1 - x0) * (y1 - y0), 3), float(off)

    return min(boxes, key=rank)
