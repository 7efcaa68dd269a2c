"""How much a file may ask for. One place for every bound; all can be raised.

In Python by passing `Limits`; on the command line, for all readers, by the environment:
``UNCROP_LIMITS=image_pixels=2e8,file_bytes=1e9 convert ...``.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, fields

from converter.errors import ConventionError

VARIABLE = "UNCROP_LIMITS"


@dataclass(frozen=True, slots=True)
class Limits:
    """Upper bounds for what a single input file may hold or make us allocate.

    The defaults are far above what trackers write, and far below what hurts a laptop.
    """

    file_bytes: int = 256 * 2**20
    """A whole .frame, .pt, .npy, .npz, .ply or image file."""
    member_bytes: int = 64 * 2**20
    """One uncompressed member of an archive."""
    member_ratio: int = 200
    """Uncompressed over compressed size of a member."""
    members: int = 4096
    """Number of members of an archive."""
    nesting: int = 32
    """Depth of containers inside containers."""
    opcodes: int = 1_000_000
    """Operations in one pickle stream."""
    elements: int = 1_000_000
    """Elements of one array in a .frame or bbox.pt."""
    image_pixels: int = 64_000_000
    """Pixels of one image, by its header."""
    mesh_vertices: int = 2_000_000
    """Vertices, and likewise faces, of one mesh."""
    mesh_text_bytes: int = 4 * 2**20
    """A mesh that is text (.obj, ASCII .ply): its reader takes 250 times as much memory."""
    json_values: int = 5_000_000
    """Values of a manifest: a few per file that it lists, of up to a hundred bytes of memory."""
    frames: int = 1_000_000
    """Frames of one track."""


def limits_from(text: str) -> Limits:
    """Limits as ``name=number,name=number`` says, the others as they are.

    Raises
    ------
    ConventionError
        If a name is unknown or a number is not from 1 to 1e15.

    """
    names = [field.name for field in fields(Limits)]
    chosen: dict[str, int] = {}
    for part in filter(None, text.replace(" ", "").split(",")):
        name, _, number = part.partition("=")
        try:
            value = float(number)
        except ValueError:
            value = 0.0
        if name not in names or not 1 <= value <= 1e15:
            known = ", ".join(names)
            raise ConventionError(VARIABLE, "name=number,... with a number of 1 or more", part,
                                  f"Names: {known}.")  # fmt: skip
        chosen[name] = int(value)
    return Limits(**chosen)


DEFAULT_LIMITS = limits_from(os.environ.get(VARIABLE, ""))
