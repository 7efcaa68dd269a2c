"""How every verb parses its words, and what those that read a track let a user say about it."""

from __future__ import annotations

import ast
import dataclasses
import inspect
from functools import cache, partial
from itertools import pairwise
from pathlib import Path
from textwrap import dedent
from typing import Annotated, Any, TypeVar, get_type_hints

import tyro
from tyro.constructors import (
    MISSING_NONPROP,
    ConstructorRegistry,
    StructConstructorSpec,
    StructFieldSpec,
    StructTypeInfo,
)

from converter.registry import Progress, ReadOptions, no_progress

T = TypeVar("T")


def parse(arguments: list[str], prog: str, command: type[T], **said: Any) -> T:
    """Parse a verb's words as a dataclass; exits, with 0 or 2, after help or a mistake.

    A group inside it shares its names; switches are off unless given, and None cannot be typed.
    """
    settings = tyro.conf.configure(
        tyro.conf.OmitArgPrefixes, tyro.conf.FlagCreatePairsOff, tyro.conf.DisallowNone
    )
    rules = ConstructorRegistry()
    rules.struct_rule(_dataclass_rule)
    parsed: T = tyro.cli(settings(command), prog=prog, args=arguments, registry=rules, **said)
    return parsed


def _dataclass_rule(info: StructTypeInfo) -> StructConstructorSpec | None:
    """Take a dataclass as tyro does, but for its help.

    What must be given comes first, lines end where sentences do, and nothing is said of a default
    that is nothing.
    """
    if not dataclasses.is_dataclass(info.type):
        return None
    types = get_type_hints(info.type, include_extras=True)
    hint = tyro.conf.arg(help_behavior_hint=_default)
    fields = tuple(
        StructFieldSpec(
            field.name,
            Annotated[types[field.name], hint],  # type: ignore[arg-type]
            field.default if _may_be_left_out(field) else MISSING_NONPROP,
            partial(_text, info.type, field.name),
        )
        for field in sorted(dataclasses.fields(info.type), key=_may_be_left_out)
    )
    return StructConstructorSpec(info.type, fields)


def _may_be_left_out(field: dataclasses.Field[Any]) -> bool:
    return field.default is not dataclasses.MISSING


def _default(shown: str) -> str:
    """Say a default, unless it is that nothing is given."""
    return "" if shown in ("None", "False", "") else f"(default: {shown})"


def _text(command: type[Any], field: str) -> str | None:
    found = (_texts(part).get(field) for part in command.__mro__[:-1])
    return next((text for text in found if text is not None), None)


@cache
def _texts(part: type[Any]) -> dict[str, str]:
    """The texts under a dataclass's own fields; a line ends where a sentence ends with it."""
    try:
        (tree,) = ast.parse(dedent(inspect.getsource(part))).body
    except OSError:  # made while running, of dataclasses that have texts
        return {}
    texts = {}
    for field, below in pairwise(tree.body if isinstance(tree, ast.ClassDef) else ()):
        if isinstance(field, ast.AnnAssign) and isinstance(below, ast.Expr):
            lines = [line.strip() for line in str(ast.literal_eval(below.value)).splitlines()]
            joined = "".join(line + ("\n" if line.endswith(".") else " ") for line in lines)
            texts[ast.unparse(field.target)] = joined.strip()
    return texts


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
