"""How every verb parses its words, and what those that read a track let a user say about it."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Annotated, Any, TypeVar

import tyro

from converter.registry import Progress, ReadOptions, no_progress

T = TypeVar("T")


def parse(arguments: list[str], prog: str, command: type[T], **said: Any) -> T:
    """Parse a verb's words as a dataclass; exits, with 0 or 2, after help or a mistake.

    A group inside it shares its names; switches are off unless given, and None cannot be typed.
    """
    settings = tyro.conf.configure(
        tyro.conf.OmitArgPrefixes, tyro.conf.FlagCreatePairsOff, tyro.conf.DisallowNone
    )
    parsed: T = tyro.cli(settings(command), prog=prog, args=arguments, **said)
    return parsed


@dataclasses.dataclass(frozen=True, kw_only=True)
class PlaceArguments:
    """Arguments that say where the parts of a track are."""

    actor: Annotated[Path | None, tyro.conf.arg(metavar="DIR")] = None
    """Folder with bbox.pt, images/ and kpt/, if it is not found beside the track."""
    source: Annotated[Path | None, tyro.conf.arg(metavar="DIR_OR_VIDEO")] = None
    """Source frames or the video, if they are not found in the actor folder."""
    fps: Annotated[float | None, tyro.conf.arg(metavar="HZ")] = None
    """Frames per second at which the tracker extracted the video. Default: its yaml's, or 25."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrackArguments(PlaceArguments):
    """Arguments that say what a track's files do not."""

    bbox: Annotated[Path | None, tyro.conf.arg(metavar="FILE")] = None
    """The bbox.pt, if it is not found in the actor folder."""
    begin_frames: Annotated[int | None, tyro.conf.arg(metavar="N")] = None
    """Number of images before frame 0, if it can be found neither by content nor in a yaml."""
    skip_damaged: bool = False
    """Leave out frames whose .frame cannot be read, instead of stopping."""

    def read_options(
        self,
        *,
        hash_inputs: bool = True,
        hold_intrinsics: bool = True,
        progress: Progress = no_progress,
    ) -> ReadOptions:
        """Return them as a source takes them."""
        return ReadOptions(
            actor=self.actor,
            source=self.source,
            bbox=self.bbox,
            begin_frames=self.begin_frames,
            fps=self.fps,
            skip_damaged=self.skip_damaged,
            hold_intrinsics=hold_intrinsics,
            hash_inputs=hash_inputs,
            progress=progress,
        )
