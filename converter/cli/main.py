"""``uncrop VERB ...`` and its short form ``convert ...``."""

from __future__ import annotations

import importlib
import json
import os
import sys
from collections.abc import Sequence

from converter import __version__
from converter.cli.exits import EXIT_ERROR, EXIT_INTERRUPTED, EXIT_USAGE
from converter.errors import UncropError, printable
from converter.media.chatter import kept_apart
from converter.media.interrupts import interrupts_raised_again

VERBS = {
    "convert": "write a track as a bundle or as a trainer's dataset",
    "recover-bbox": "find a lost bbox.pt again, exactly, from crops and source frames",
    "fit": "fit the cameras again: repaired K, one focal length, no jitter; with a report",
    "landmarks": "detect the 68 landmarks that a track lacks (extra: uncrop[landmarks])",
    "validate": "say which cameras are wrong, why, and how to mend them, over one track or many",
    "inspect": "say what a track, a .frame, a bbox.pt, a bundle or a written dataset holds",
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run one verb and return the exit code: 0, 1 findings, 2 usage, 3 bad input."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    verb = arguments[0] if arguments else "--help"
    if verb in ("-h", "--help"):
        print(_overview())
        return 0 if arguments else EXIT_USAGE
    if verb in ("-V", "--version"):
        print(f"uncrop {__version__}")
        return 0
    if verb not in VERBS:
        print(f"uncrop: {_no_verb(verb)}\n\n{_overview()}", file=sys.stderr)
        return EXIT_USAGE
    return _guarded(verb, arguments[1:])


def _no_verb(verb: str) -> str:
    import difflib  # for this alone: starting up is felt

    near = difflib.get_close_matches(verb.replace("_", "-"), VERBS, n=1)
    meant = f" Did you mean {near[0]}?" if near else ""
    return f"there is no verb {printable(verb)}.{meant}"


def convert_main() -> int:
    """Run ``convert ...``, which is ``uncrop convert ...``."""
    return _guarded("convert", sys.argv[1:])


def _overview() -> str:
    verbs = "\n".join(f"  {verb:<14}{summary}" for verb, summary in VERBS.items())
    return (
        "uncrop: head-tracking output into avatar-trainer datasets, with cameras that are right.\n"
        f"\nusage: uncrop VERB ...\n\n{verbs}\n\n"
        "uncrop VERB --help says more; convert alone is uncrop convert."
    )


def _wants_json(verb: str, arguments: list[str]) -> bool:
    """Whether standard output is for a program; validate's --json names a file, or -."""
    return "--json" in arguments and (verb != "validate" or "-" in arguments)


def _guarded(verb: str, arguments: list[str]) -> int:
    """Run a verb; bad input becomes one line and exit code 3, an interrupt leaves quietly."""
    os.environ.setdefault("OPENCV_LOG_LEVEL", "SILENT")  # what it says of bad images, we say
    try:
        with kept_apart(), interrupts_raised_again():
            return _answered(verb, arguments)
    except KeyboardInterrupt:  # in the moment before or after
        return EXIT_INTERRUPTED


def _answered(verb: str, arguments: list[str]) -> int:
    """Run a verb; what goes wrong is one line on standard error."""
    try:
        module = importlib.import_module(f"converter.cli.{verb.replace('-', '_')}")
        code = int(module.run(arguments))
        sys.stdout.flush()
        return code
    except UncropError as error:
        if _wants_json(verb, arguments):
            names = ("where", "expected", "found", "remedy", *(["cause"] if error.cause else []))
            fields = {name: getattr(error, name) for name in names}
            print(json.dumps({"ok": False, "error": type(error).__name__, **fields}))
        print(f"uncrop: {error}", file=sys.stderr)
        return EXIT_ERROR
    except KeyboardInterrupt:
        print(
            "uncrop: interrupted; an earlier output is untouched, nothing else was left behind.",
            file=sys.stderr,
        )
        return EXIT_INTERRUPTED
    except BrokenPipeError:
        # The reader (head, less) went away; keep the interpreter from complaining on exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return EXIT_ERROR
    except OSError as error:
        # Of a file that is asked for before anything opens it: closed folders, links in circles.
        if error.filename is None:
            raise
        where, why = printable(error.filename), error.strerror
        print(f"uncrop: {where}: {why}. Check its permissions, links and disk.", file=sys.stderr)
        return EXIT_ERROR


if __name__ == "__main__":
    sys.exit(main())
