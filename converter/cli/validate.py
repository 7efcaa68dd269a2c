"""``uncrop validate TRACK ... | DIR``: which cameras are wrong, why, and how to mend them."""

from __future__ import annotations

import dataclasses
import sys
from pathlib import Path
from typing import Annotated, Literal

import tyro

from converter.batch.discover import Found, discover
from converter.batch.executors import Executor, InProcess, LocalProcesses
from converter.batch.run import BatchResult, validate_many
from converter.cli.arguments import TrackArguments
from converter.cli.exits import EXIT_FINDINGS, EXIT_FINE, EXIT_INTERRUPTED, EXIT_USAGE
from converter.cli.report import Reporter
from converter.errors import printable
from converter.media.parallel import n_cores
from converter.validation.report import Report
from converter.validation.validate import ValidateOptions


@dataclasses.dataclass(frozen=True)
class ValidateArguments(TrackArguments):
    """Say which cameras are wrong, why, and how to mend them: one track, or all below a folder.

    Exit code 0: nothing at or above --fail-on; 1: something; 2: usage; 3: nothing there to read.
    """

    tracks: Annotated[
        tuple[Path, ...], tyro.conf.Positional, tyro.conf.arg(metavar="TRACK|DIR ...")
    ] = ()
    """Tracks (any of their folders), bundles, written datasets, or folders to search for them."""
    jobs: Annotated[int | None, tyro.conf.arg(aliases=["-j"], metavar="N")] = None
    """Processes to work with. Default: one for every core."""
    fail_on: Literal["warning", "error"] = "error"
    """Exit with code 1 from this severity on."""
    thorough: bool = False
    """Look at the pixels and meshes of every frame instead of a sample."""
    quiet: bool = False
    """Print nothing but errors of the command itself; the exit code and the files tell."""


def run(arguments: list[str]) -> int:
    """Validate, report, and return the exit code; raises UncropError."""
    command = tyro.cli(
        tyro.conf.configure(tyro.conf.FlagCreatePairsOff, tyro.conf.DisallowNone)(
            ValidateArguments
        ),
        prog="uncrop validate",
        args=arguments,
    )
    if (wrong := _usage_error(command)) is not None:
        print(f"uncrop validate: {wrong}", file=sys.stderr)
        return EXIT_USAGE
    tracks = _find(command)
    with Reporter(quiet=command.quiet, json=False) as reporter:
        result = validate_many(tracks, _options(command), _executor(command, len(tracks)),
                               reporter.progress)  # fmt: skip
    _show(command, result)
    return _exit_code(command, result)


def _usage_error(command: ValidateArguments) -> str | None:
    if not command.tracks:
        return "expected a TRACK, or a DIR to search for tracks."
    if command.jobs is not None and command.jobs < 1:
        return "--jobs: expected 1 or more."
    return None


def _find(command: ValidateArguments) -> list[Found]:
    """All that is to be validated, each once, in the order of the command line."""
    found: dict[Found, None] = {}
    for path in command.tracks:
        below = discover(path)
        for what in below.unsearched:
            print(f"uncrop: not searched: {printable(what)}", file=sys.stderr)
        found.update(dict.fromkeys(below.found))
    return list(found)


def _options(command: ValidateArguments) -> ValidateOptions:
    return ValidateOptions(command.read_options(hash_inputs=False), thorough=command.thorough)


def _executor(command: ValidateArguments, n_items: int) -> Executor:
    if n_items == 1:
        return InProcess()
    return LocalProcesses(min(command.jobs or n_cores(), n_items))


def _show(command: ValidateArguments, result: BatchResult) -> None:
    if command.quiet:
        return
    from rich.console import Console

    from converter.validation.render_rich import render_rich

    console = Console(highlight=False)
    if not console.is_terminal:
        console.width = max(console.width, 120)
    for part in render_rich(result.reports):
        console.print(part)


def _exit_code(command: ValidateArguments, result: BatchResult) -> int:
    if result.interrupted:
        print(f"uncrop: interrupted after {len(result.reports)} of {result.n_asked} tracks.",
              file=sys.stderr)  # fmt: skip
        return EXIT_INTERRUPTED
    return EXIT_FINDINGS if any(_fails(command, r) for r in result.reports) else EXIT_FINE


def _fails(command: ValidateArguments, report: Report) -> bool:
    return report.worst == "error" or (command.fail_on == "warning" and report.worst == "warning")
