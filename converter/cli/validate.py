"""``uncrop validate TRACK ... | DIR``: which cameras are wrong, why, and how to mend them."""

from __future__ import annotations

import contextlib
import dataclasses
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import tyro

from converter.batch.discover import Found, discover
from converter.batch.executors import DaskCluster, Executor, Failure, InProcess, LocalProcesses
from converter.batch.journal import Journal, journal_path
from converter.batch.run import BatchResult, validate_many
from converter.cli.arguments import TrackArguments, parse
from converter.cli.exits import EXIT_FINDINGS, EXIT_FINE, EXIT_USAGE
from converter.cli.report import Reporter, say_interrupted
from converter.errors import FormatError, printable
from converter.findings import Finding
from converter.media.atomic import replace_file, require_free
from converter.media.parallel import n_cores
from converter.validation.catalogue import ALL, contents, explain, page
from converter.validation.render_json import render_json
from converter.validation.report import Report
from converter.validation.validate import ValidateOptions

if TYPE_CHECKING:
    from converter.batch.fixing import Fixed

_STDOUT = Path("-")
_OF_ONE_TRACK = ("actor", "source", "bbox", "begin_frames")


@dataclasses.dataclass(frozen=True)
class ValidateArguments(TrackArguments):
    """Say which cameras are wrong, why, and how to mend them: one track, or all below a folder.

    Exit code 0: nothing at or above --fail-on; 1: something; 2: usage; 3: nothing there to read.
    """

    tracks: Annotated[
        tuple[Path, ...], tyro.conf.Positional, tyro.conf.arg(metavar="TRACK|DIR ...")
    ] = ()
    """Tracks (any of their folders), bundles, written datasets, or folders to search for them."""
    json: Annotated[Path | None, tyro.conf.arg(metavar="FILE")] = None
    """Write the reports there as JSON (docs/validate.schema.json); - is standard output. Beside it
    FILE.journal stays, from which --resume goes on; delete it when you like."""
    html: Annotated[Path | None, tyro.conf.arg(metavar="FILE")] = None
    """Write one page with tables, plots and pictures there; it needs no network."""
    fix: Annotated[Path | None, tyro.conf.arg(metavar="OUT")] = None
    """Write a corrected copy of what has one right answer; of several tracks, one copy each below
    OUT. What has not is named and left, and decides the exit code."""
    overwrite: bool = False
    """Replace reports, and corrected copies, that exist."""
    resume: bool = False
    """Take over what an earlier run with the same --json established of unchanged files."""
    jobs: Annotated[int | None, tyro.conf.arg(aliases=["-j"], metavar="N")] = None
    """Processes to work with. Default: one for every core."""
    scheduler: Annotated[str | None, tyro.conf.arg(metavar="ADDRESS")] = None
    """Work on the dask.distributed cluster with this scheduler, e.g. tcp://node1:8786, which sees
    the same files under the same paths. Needs pip install 'uncrop[cluster]'."""
    fail_on: Literal["warning", "error"] = "error"
    """Exit with code 1 from this severity on."""
    thorough: bool = False
    """Look at the pixels and meshes of every frame instead of a sample."""
    explain: Annotated[str | None, tyro.conf.arg(metavar="ID")] = None
    """Say what a check establishes, and within which limit; validates nothing. ID "all" lists
    the checks."""
    quiet: bool = False
    """Print nothing but errors of the command itself; the exit code and the files tell."""


def run(arguments: list[str]) -> int:
    """Validate, report, and return the exit code; raises UncropError."""
    command = parse(arguments, "uncrop validate", ValidateArguments)
    if command.explain is not None:
        known = command.explain != ALL
        print(page(explain(command.explain)) if known else contents(), end="")
        return EXIT_FINE
    if (wrong := _usage_error(command)) is not None:
        print(f"uncrop validate: {wrong}", file=sys.stderr)
        return EXIT_USAGE
    outputs = [p for p in (_json_file(command), command.html) if p is not None]
    for out in outputs:
        require_free(out, command.overwrite or command.resume)
    tracks = _find(command)
    with Reporter(quiet=command.quiet, json=False) as reporter:
        result = _validate(command, tracks, reporter)
        fixed = _fix(command, tracks, result, reporter)
    _write(command, result, fixed)
    if not command.quiet and command.json != _STDOUT:
        _show(result, fixed)
        if result.n_resumed:
            print(f"{result.n_resumed} of {len(result.reports)} taken over from an earlier run")
        for out in outputs:
            print(f"wrote {printable(out)}{_journal_of(command, out)}")
        if command.fix is not None and not fixed and not result.interrupted:
            print(f"nothing to mend: {printable(command.fix)} was not written")
    else:
        for outcome in fixed.values():  # an output that was asked for and is not there
            if isinstance(outcome, Failure):
                print(f"uncrop: {outcome.message}", file=sys.stderr)
    return _exit_code(command, result, fixed)


def _journal_of(command: ValidateArguments, out: Path) -> str:
    """What else lies there now."""
    if out != command.json:
        return ""
    return f", and {printable(journal_path(out).name)} beside it, from which --resume goes on"


def _validate(command: ValidateArguments, tracks: list[Found], reporter: Reporter) -> BatchResult:
    executor = _executor(command, len(tracks))
    with contextlib.ExitStack() as stack:
        journal = None
        if (json_file := _json_file(command)) is not None:
            journal = stack.enter_context(
                Journal.open(
                    journal_path(json_file), resume=command.resume,
                    illustrated=command.html is not None,
                )
            )  # fmt: skip
        return validate_many(tracks, _options(command), executor, reporter.progress, journal)


def _fix(
    command: ValidateArguments, tracks: list[Found], result: BatchResult, reporter: Reporter
) -> dict[int, Fixed]:
    """Corrected copies by position of their track; of a run that was interrupted, none."""
    if command.fix is None or result.interrupted:
        return {}
    from converter.batch.fixing import fix_many

    return fix_many(
        tracks, result.reports, command.fix, _options(command).read,
        _executor(command, len(tracks)), overwrite=command.overwrite or command.resume,
        progress=reporter.progress,
    )  # fmt: skip


def _json_file(command: ValidateArguments) -> Path | None:
    return None if command.json == _STDOUT else command.json


def _write(command: ValidateArguments, result: BatchResult, fixed: dict[int, Fixed]) -> None:
    complete = not result.interrupted
    overwrite = command.overwrite or command.resume
    if command.json is not None:
        text = render_json(result.reports, complete=complete, fixed=fixed)
        if command.json == _STDOUT:
            print(text, end="")
        else:
            with replace_file(command.json, overwrite) as path:
                path.write_text(text, encoding="utf-8")
    if command.html is not None:
        from converter.validation.render_html import render_html

        with replace_file(command.html, overwrite) as path:
            page = render_html(result.reports, complete=complete)
            path.write_text(page, encoding="utf-8")


def _usage_error(command: ValidateArguments) -> str | None:
    if not command.tracks:
        return "expected a TRACK, or a DIR to search for tracks."
    if command.jobs is not None and command.jobs < 1:
        return "--jobs: expected 1 or more."
    if command.resume and _json_file(command) is None:
        return "--resume goes on from the journal beside --json FILE: give that as well."
    alone = [name for name in _OF_ONE_TRACK if getattr(command, name) is not None]
    if alone and len(command.tracks) > 1:
        return f"--{_option(alone)} belongs to one track, and {len(command.tracks)} are given."
    return None


def _option(names: list[str]) -> str:
    return names[0].replace("_", "-")


def _find(command: ValidateArguments) -> list[Found]:
    """All that is to be validated, each once, in the order of the command line."""
    found: dict[Found, None] = {}
    for given in command.tracks:
        # The workers of a cluster have working folders of their own.
        path = given if command.scheduler is None else given.absolute()
        below = discover(path)
        for what in below.unsearched:
            print(f"uncrop: not searched: {printable(what)}", file=sys.stderr)
        found.update(dict.fromkeys(below.found))
    alone = [name for name in _OF_ONE_TRACK if getattr(command, name) is not None]
    if alone and len(found) > 1:
        raise FormatError(command.tracks[0], f"one track, since --{_option(alone)} belongs to one",
                          f"{len(found)}", "Name the track.")  # fmt: skip
    return list(found)


def _options(command: ValidateArguments) -> ValidateOptions:
    read = command.read_options(hash_inputs=False)
    if command.scheduler is not None:
        paths = {name: getattr(read, name) for name in ("actor", "source", "bbox")}
        given = {name: path.absolute() for name, path in paths.items() if path is not None}
        read = dataclasses.replace(read, **given)
    return ValidateOptions(read, command.thorough, illustrate=command.html is not None)


def _executor(command: ValidateArguments, n_items: int) -> Executor:
    if command.scheduler is not None:
        return DaskCluster(command.scheduler)
    if n_items == 1:
        return InProcess()
    return LocalProcesses(min(command.jobs or n_cores(), n_items))


def _show(result: BatchResult, fixed: dict[int, Fixed]) -> None:
    from rich.console import Console

    from converter.validation.render_rich import render_fixes, render_rich

    console = Console(highlight=False)
    if not console.is_terminal:
        console.width = max(console.width, 120)
    for part in [*render_rich(result.reports), *render_fixes(result.reports, fixed)]:
        console.print(part)


def _exit_code(command: ValidateArguments, result: BatchResult, fixed: dict[int, Fixed]) -> int:
    if result.interrupted:
        return say_interrupted(len(result.reports), result.n_asked)
    failing = ("error", "warning") if command.fail_on == "warning" else ("error",)
    if any(isinstance(outcome, Failure) for outcome in fixed.values()):
        return EXIT_FINDINGS
    for position, report in enumerate(result.reports):
        left = _left(report, fixed.get(position))
        if any(finding.severity in failing for finding in left):
            return EXIT_FINDINGS
    return EXIT_FINE


def _left(report: Report, copy: Fixed | None) -> tuple[Finding, ...]:
    """What is wrong with a track, or with its corrected copy if there is one."""
    if copy is None or isinstance(copy, Failure) or copy.path is None:
        return report.findings
    return copy.left
