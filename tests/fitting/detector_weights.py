"""Stand-in weights for face_alignment's own networks: they see colours instead of faces.

The real files are the package authors' to give. These have the same names, shapes and places, so
that the package's own loading code and networks run: landmark k is where colour k is, and a face is
where the image is bright.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from converter.geometry.pixels import Floats
from converter.track import Image

SIDE = 512
_RADIUS = 13


def colours() -> Floats:
    """(68, 3) unit colours (red, green, blue), far apart from each other."""
    rng = np.random.default_rng(0)
    chosen = [np.array([1.0, 0.0, 0.0])]
    candidates = np.abs(rng.standard_normal((4000, 3)))
    candidates /= np.linalg.norm(candidates, axis=1, keepdims=True)
    while len(chosen) < 68:
        nearest = np.max(candidates @ np.array(chosen).T, axis=1)
        chosen.append(candidates[int(nearest.argmin())])
    return np.array(chosen)


def places(shift: float = 0.0) -> Floats:
    """(68, 2) where the discs are drawn, edge-origin px."""
    rows, columns = np.divmod(np.arange(68), 9)
    return np.stack([120.0 + 30 * columns + shift, 130.0 + 32 * rows], axis=1)


def picture(points: Floats | None) -> Image:
    """Discs in 68 colours on grey; black without a face."""
    import cv2

    image = np.zeros((SIDE, SIDE, 3), np.uint8)
    if points is None:
        return image
    image[:] = 0
    for (x, y), colour in zip(points - 0.5, colours(), strict=True):
        blue_first = tuple(int(round(255 * c)) for c in colour[::-1])
        cv2.circle(image, (round(x), round(y)), _RADIUS, blue_first, -1)
    return image


def write_weights(folder: Path) -> tuple[Path, Path]:
    """Write both files where torch looks for them below ``folder`` (TORCH_HOME)."""
    import torch
    from face_alignment.detection.sfd.net_s3fd import s3fd
    from face_alignment.models import FAN

    place = folder / "hub" / "checkpoints"
    place.mkdir(parents=True, exist_ok=True)
    with torch.no_grad():
        fan, faces = FAN(4), s3fd()
        _set_fan(fan)
        _set_faces(faces)
    paths = place / "2DFAN4-11f355bf06.pth.tar", place / "s3fd-619a316812.pth"
    torch.save(fan.state_dict(), paths[0])
    torch.save(faces.state_dict(), paths[1])
    return paths


def _identity(convolution: Any, gain: float = 1.0, n: int | None = None) -> None:
    """Pass channel i to channel i, the centre tap only."""
    weight = convolution.weight
    middle = weight.shape[2] // 2
    for i in range(min(n or weight.shape[0], weight.shape[0], weight.shape[1])):
        weight[i, i, middle, middle] = gain


def _set_fan(fan: Any) -> None:
    """Heat map k = colour k . pixel; blocks pass their input on, the coarse paths cancel."""
    import torch

    for name, parameter in fan.named_parameters():
        parameter.zero_()
        if ".bn" in name or name.startswith("bn") or "downsample.0" in name:
            parameter.fill_(1.0 if name.endswith("weight") else 0.0)
    _identity(fan.conv1)
    for block in (fan.conv2, fan.conv4):
        _identity(block.downsample[2], n=3)
    for k in range(4):
        # The way down and up again gives x - relu(x) = 0, which leaves the upper branch.
        _identity(fan._modules[f"m{k}"]._modules["b3_4"].conv1, -1.0, 3)
        _identity(fan._modules[f"conv_last{k}"], n=3)
        fan._modules[f"l{k}"].weight[:, :3, 0, 0] = torch.tensor(colours(), dtype=torch.float32)


def _set_faces(net: Any) -> None:
    """A face of 300 px wherever the coarsest cells hold something bright."""
    for parameter in net.parameters():
        parameter.zero_()
    net.conv1_1.weight[0, :, 1, 1] = 1 / 3
    net.conv1_1.bias[0] = (104.0 + 117 + 123) / 3  # the mean that the package takes off
    for name, convolution in net.named_children():
        if name.startswith("conv") and "norm" not in name and "mbox" not in name:
            if name != "conv1_1":
                _identity(convolution, n=1)
        elif name.startswith("fc") and "mbox" not in name:
            _identity(convolution, n=1)
        elif name.endswith("_conf"):
            convolution.bias[0] = 6.0  # background
            convolution.bias[-1] = -6.0
    net.conv7_2_mbox_conf.weight[1, 0, 1, 1] = 0.5
    net.conv7_2_mbox_loc.bias[2:] = float(np.log(300 / 512) / 0.2)
