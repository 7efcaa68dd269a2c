"""A head-shaped shell for tracks of trackers that keep no mesh (their FLAME is not shipped).

It seeds a trainer and gives a check something to project. It is no measurement of anybody's head:
what deforms or measures meshes must not use it.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from converter.findings import Finding
from converter.track import Meshes, Track

_HAVE_MESHES = ("metrical-tracker",)
_N_ROWS, _N_COLUMNS = 36, 64
# An adult's head without the neck, in FLAME's axes (y up, z out of the face), metres.
_CENTRE_M, _RADII_M = np.array([0.0, 0.005, -0.01]), np.array([0.078, 0.122, 0.102])


@dataclass(frozen=True)
class StandInHead:
    """`converter.track.Meshes` of one ellipsoid for all frames."""

    n_frames: int

    def __len__(self) -> int:
        return self.n_frames

    @cached_property
    def faces(self) -> NDArray[np.int32]:
        """Triangles, counter-clockwise from outside."""
        row, column = np.mgrid[0 : _N_ROWS - 1, 0:_N_COLUMNS]
        a = row * _N_COLUMNS + column
        b = row * _N_COLUMNS + (column + 1) % _N_COLUMNS
        quads = np.stack([a, b, b + _N_COLUMNS, a + _N_COLUMNS], axis=-1).reshape(-1, 4)
        triangles = np.concatenate([quads[:, [0, 2, 1]], quads[:, [0, 3, 2]]])
        return np.asarray(triangles, np.int32)

    @cached_property
    def mean(self) -> NDArray[np.float32]:
        """Vertices (V, 3), metres."""
        polar = (np.arange(_N_ROWS) + 0.5) * np.pi / _N_ROWS
        around = np.arange(_N_COLUMNS) * 2 * np.pi / _N_COLUMNS
        p, a = np.meshgrid(polar, around, indexing="ij")
        unit = np.stack([np.sin(p) * np.cos(a), np.cos(p), np.sin(p) * np.sin(a)], axis=-1)
        return np.asarray(_CENTRE_M + _RADII_M * unit.reshape(-1, 3), np.float32)

    def vertices(self, index: int) -> NDArray[np.float32]:
        """Vertices of any frame: always the same."""
        range(self.n_frames)[index]
        return self.mean


def meshes_or_stand_in(track: Track) -> Meshes | None:
    """Return the track's meshes, or a stand-in where its tracker never keeps any, or None."""
    if track.meshes is not None or track.provenance.tracker in _HAVE_MESHES:
        return track.meshes
    return StandInHead(len(track))


def stand_in_findings(track: Track, meshes: Meshes) -> list[Finding]:
    """Say that a stand-in is used, if it is."""
    if not isinstance(meshes, StandInHead):
        return []
    return [
        Finding(
            "mesh-stand-in", "warning", track.name,
            f"{track.provenance.tracker} keeps no meshes; a head-sized ellipsoid stands in. It "
            "only seeds the trainer: the cameras do not depend on it.",
            fix="In proof.jpg hold the landmarks, not the mesh, against the picture.",
        )
    ]  # fmt: skip
