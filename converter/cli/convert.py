"""``convert TRACK --to TARGET -o OUT``."""

from __future__ import annotations

import dataclasses
import json
import re
import sys
from pathlib import Path
from typing import Annotated, Any

import tyro

from converter import registry
from converter.batch import NAME
from converter.cli.arguments import TrackArguments, parse
from converter.cli.exits import EXIT_USAGE
from converter.cli.report import Reporter, finish_many, say_refused
from converter.errors import FormatError, TargetError, printable
from converter.media.atomic import require_free
from converter.media.manifest import MANIFEST
from converter.registry import Written


@dataclasses.dataclass(frozen=True)
class ConvertArguments(TrackArguments):
    """Arguments that every target shares."""

    tracks: Annotated[
        tuple[Path, ...], tyro.conf.Positional, tyro.conf.arg(metavar="TRACK [TRACK ...]")
    ]
    """The tracker's output, checkpoint or actor folder, a parent of both, or a bundle (.h5). With
    {name} in OUT: several of them, or folders to search for tracks."""
    to: Annotated[str, tyro.conf.arg(metavar="TARGET")]
    """What to write: one of the targets that convert --help lists."""
    out: Annotated[Path, tyro.conf.arg(aliases=["-o"], metavar="OUT")]
    """Folder or file to write. It must not exist, or be an earlier output (with --overwrite).
    {name} in it stands for the name of each track."""
    overwrite: bool = False
    """Replace an earlier output."""
    jobs: Annotated[int | None, tyro.conf.arg(aliases=["-j"], metavar="N")] = None
    """Processes to work with on several tracks. Default: one for every core."""
    dry_run: bool = False
    """Read and check everything, OUT included, and write nothing."""
    quiet: bool = False
    """Print warnings and errors only."""
    json: bool = False
    """Print one JSON object to standard output instead of text."""


def run(arguments: list[str]) -> int:
    """Parse, read, write, report; raises UncropError."""
    command, options = _parse(arguments)
    if (wrong := _usage_error(command) or _option_error(options)) is not None:
        print(f"convert: {wrong}", file=sys.stderr)
        return EXIT_USAGE
    if NAME in str(command.out):
        return _run_many(command, options)
    (path,) = command.tracks
    target = registry.target(command.to)
    with Reporter(quiet=command.quiet, json=command.json) as reporter:
        source = registry.detect_source(path)
        require_free(command.out, command.overwrite, MANIFEST)
        track = source.read(path, command.read_options(progress=reporter.progress))
        reporter.steps(track.provenance.steps)
        reporter.findings(track.findings)
        if command.dry_run:
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


def _usage_error(command: ConvertArguments) -> str | None:
    if not command.tracks:
        return "expected a TRACK."
    if command.jobs is not None and command.jobs < 1:
        return "--jobs: expected 1 or more."
    if len(command.tracks) > 1 and NAME not in str(command.out):
        n = len(command.tracks)
        return f"{n} tracks need an output each: put {NAME} into -o, as in -o sets/{NAME}."
    unknown = re.search(r"\{\w*\}", str(command.out).replace(NAME, ""))
    if unknown is not None:
        return f"-o: expected {NAME} for the name of each track, found {unknown[0]}."
    return None


def _option_error(options: Any) -> str | None:
    """What no track could make right, before one is read."""
    require = getattr(options, "require", None)
    try:
        if require is not None:
            require()
    except TargetError as error:
        return str(error)
    return None


def _run_many(command: ConvertArguments, options: Any) -> int:
    """Convert every track below what was named; one that is refused is a line, and exit code 1."""
    from converter.batch.converting import (
        ConvertJob,
        convert_many,
        named_places,
        without_datasets,
    )
    from converter.batch.discover import discover
    from converter.batch.executors import Failure, LocalProcesses
    from converter.media.parallel import n_cores

    below = dict.fromkeys(found for path in command.tracks for found in discover(path).found)
    tracks = without_datasets(list(below)) or list(below)
    alone = [n for n in ("actor", "source", "bbox", "begin_frames")
             if getattr(command, n) is not None]  # fmt: skip
    if alone and len(tracks) > 1:
        print(f"convert: --{alone[0].replace('_', '-')} belongs to one track, and {len(tracks)} "
              "are given.", file=sys.stderr)  # fmt: skip
        return EXIT_USAGE
    places = named_places(tracks, command.out)
    job = ConvertJob(command.to, options, command.read_options(), command.overwrite,
                     command.dry_run)  # fmt: skip
    executor = LocalProcesses(min(command.jobs or n_cores(), len(tracks)))
    with Reporter(quiet=command.quiet, json=command.json) as reporter:
        if len(tracks) < len(below):
            n = len(below) - len(tracks)
            reporter.steps(
                [f"left out {n} that uncrop wrote for {'a trainer' if n == 1 else 'trainers'}"]
            )
        done = convert_many(tracks, places, job, executor, reporter.progress)
    entries: list[dict[str, Any]] = []
    with Reporter(quiet=command.quiet, json=command.json) as reporter:
        for position, outcome in done.items():
            path = str(tracks[position].path)
            if isinstance(outcome, Failure):
                say_refused(tracks[position].path, outcome.message)
                entries.append({"ok": False, "track": path, "error": outcome.message})
                continue
            reporter.steps([f"{printable(path)}:"])
            reporter.findings(outcome.findings)
            reporter.written(dataclasses.replace(outcome.written, missing=(), next_command=""),
                             wrote=not command.dry_run)  # fmt: skip
            found = [dataclasses.asdict(f) for f in (*outcome.findings, *outcome.written.findings)]
            entry = _as_json(outcome.written, found, list(outcome.steps))
            entries.append({"track": path, **entry})
    return finish_many(entries, len(tracks), json=command.json)


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
    try:
        target = registry.target(chosen) if chosen else None
    except FormatError as error:
        print(f"convert: --to: {error.statement} {error.remedy}".rstrip(), file=sys.stderr)
        raise SystemExit(EXIT_USAGE) from None
    if target is not None and (wrong := _foreign_option(arguments, target, names)) is not None:
        print(f"convert: {wrong}", file=sys.stderr)
        raise SystemExit(EXIT_USAGE)
    parts: list[tuple[str, type[Any]]] = [("general", ConvertArguments)]
    if target is not None:
        parts.append((target.name, target.options))
    together = dataclasses.make_dataclass("convert", parts)
    prog = "convert" if target is None else f"convert --to {target.name}"
    command: Any = parse(arguments, prog, together, description=_description(names, target))
    return command.general, getattr(command, target.name) if target is not None else None


def _foreign_option(arguments: list[str], target: registry.Target, names: list[str]) -> str | None:
    """Say of an option that only other targets have who has it, and what this one has instead."""

    def options_of(options: type[Any]) -> set[str]:
        return {field.name for field in dataclasses.fields(options)}

    own = options_of(target.options) | options_of(ConvertArguments)
    for argument in arguments:
        name = argument.partition("=")[0].removeprefix("--").replace("-", "_")
        if not argument.startswith("--") or name in own:
            continue
        theirs = [n for n in names if name in options_of(registry.target(n).options)]
        if not theirs:
            continue
        option = "--" + name.replace("_", "-")
        twin = {"canvas": "space", "space": "canvas"}.get(name, "")
        why = f"is an option of {', '.join(theirs)}, not of {target.name}"
        if twin in own and name == "canvas":
            why = f"{target.name} takes any principal point; use --space instead"
        elif twin in own:
            why = f"{target.name} forces the principal point to the centre; use --canvas instead"
        return f"{option}: {why}. See convert --to {target.name} --help"
    return None


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
