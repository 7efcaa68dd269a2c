"""Bundles and written datasets: their own checks, and what reading them says."""

from __future__ import annotations

from dataclasses import replace

from converter.errors import UncropError
from converter.findings import Finding
from converter.validation.checking import check
from converter.validation.evidence import Evidence, Outcome


@check("reading")
def reading(evidence: Evidence) -> Outcome:
    """What the reader said about the track, or the writer of the bundle before it."""
    found = tuple(_lesser(f) for f in evidence.track.findings if f.severity != "info")
    return Outcome(found, len(evidence.ids))


def _lesser(found: Finding) -> Finding:
    """The finding with the id that it had in its message, for another check reports it."""
    return replace(found, message=f"{found.message} ({found.check})")


def check_written(target: object, path: object) -> Outcome:
    """Run a target's own check over what it wrote.

    Parameters
    ----------
    target
        A `converter.registry.Target`.
    path
        What it wrote.

    Returns
    -------
    Its findings; damage that it refuses to read is one of severity error.

    """
    try:
        found = target.check(path)  # type: ignore[attr-defined]
    except UncropError as error:
        return Outcome((Finding.of_error("", error),), 1)
    return Outcome(tuple(found), 1)
