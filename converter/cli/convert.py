"""``convert TRACK --to TARGET -o OUT``."""

from __future__ import annotations

import dataclasses
import difflib
import json
import sys
from pathlib import Path
from typing import Annotated, Any

import tyro

from converter import registry
from converter.cli.arguments import TrackArguments
from converter.cli.exits import EXIT_USAGE
from converter.cli.report import Reporter
from converter.errors import printable
from converter.media.atomic import require_free
from converter.media.manifest import MANIFEST
from converter.registry import Written


@dataclasses.dataclass(frozen=True)
class ConvertArguments(TrackArguments):
    """Arguments that every target shares."""

    track: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="TRACK")]
    """The tracker's output, checkpoint or actor folder, a parent of both, or a bundle (.h5)."""
    to: Annotated[str, tyro.conf.arg(metavar="TARGET")]
    """What to write, one of the targets above."""
    out: Annotated[Path, tyro.conf.arg(aliases=["-o"], metavar="OUT")]
    """Folder or file to write. It must not exist, or be an earlier output (with --overwrite)."""
    overwrite: bool = False
    """Replace an earlier output."""
    dry_run: bool = False
    """Read and check everything, OUT included, and write nothing."""
    quiet: bool = False
    """Print warnings and errors only."""
    json: bool = False
    """Print one JSON object to standard output instead of text."""


def run(arguments: list[str]) -> int:
    """Parse, read, write, report; raises UncropError."""
    command, options = _parse(arguments)
    target = registry.target(command.to)
    with Reporter(quiet=command.quiet, json=command.json) as reporter:
        source = registry.detect_source(command.track)
        track = source.read(
            command.track,
            command.read_options(progress=reporter.progress),
        )
        reporter.steps(track.provenance.steps)
        reporter.findings(track.findings)
        if command.dry_run:
            require_free(command.out, command.overwrite, MANIFEST)
            target.require(track, options)
            written = Written(command.out, ("dry run: everything needed is there",))
        else:
            written = target.write(
                track, command.out, options, overwrite=command.overwrite,
                progress=reporter.progress,
            )  # fmt: skip
        reporter.written(written, wrote=not command.dry_run)
    if command.json:
        findings = [dataclasses.asdict(f) for f in (*track.findings, *written.findings)]
        print(json.dumps(_as_json(written, findings, list(track.provenance.steps)), indent=1))
    return 0


def _as_json(written: Written, findings: list[Any], steps: list[str]) -> dict[str, Any]:
    return {
        "ok": True,
        "out": str(written.path),
        "summary": list(written.summary),
        "steps": steps,
        "findings": findings,
        "missing": [dataclasses.asdict(m) for m in written.missing],
        "next_command": written.next_command,
        **written.facts,
    }


def _parse(arguments: list[str]) -> tuple[ConvertArguments, Any]:
    """Parse the shared arguments together with those of the target named by --to."""
    names = registry.names("targets")
    chosen = _target_name(arguments)
    if chosen and chosen.replace("-", "_") not in names:
        near = difflib.get_close_matches(chosen, names, n=1)
        hint = f" Did you mean {near[0]}?" if near else ""
        print(
            f"convert: --to: expected one of {', '.join(names)}, found {printable(chosen)}.{hint}",
            file=sys.stderr,
        )
        raise SystemExit(EXIT_USAGE)
    target = registry.target(chosen) if chosen else None
    parts: list[tuple[str, type[Any]]] = [("general", ConvertArguments)]
    if target is not None:
        parts.append((target.name, target.options))
    command: Any = tyro.cli(
        tyro.conf.configure(
            tyro.conf.OmitArgPrefixes, tyro.conf.FlagCreatePairsOff, tyro.conf.DisallowNone
        )(dataclasses.make_dataclass("convert", parts)),
        prog="convert",
        description=_description(names, target),
        args=arguments,
    )
    return command.general, getattr(command, target.name) if target is not None else None


def _description(names: list[str], target: registry.Target | None) -> str:
    if target is not None:
        return f"Write a track as {target.name}: {target.summary}."
    listed = "\n".join(f"  {name}: {registry.target(name).summary}" for name in names)
    return (
        "Write a tracked head as a bundle or as a trainer's dataset, and prove its cameras.\n\n"
        f"Targets:\n{listed}\n\nOptions of a target: convert --to NAME --help"
    )


def _target_name(arguments: list[str]) -> str:
    for position, argument in enumerate(arguments):
        if argument == "--to" and position + 1 < len(arguments):
            return arguments[position + 1]
        if argument.startswith("--to="):
            return argument[len("--to=") :]
    return ""
