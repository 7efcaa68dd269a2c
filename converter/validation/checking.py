"""Running checks: one function, one fact, one result; see `converter.validation.catalogue`."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np

from converter.errors import ConventionError, UncropError
from converter.validation.catalogue import CATALOGUE
from converter.validation.evidence import CheckSkipped, Evidence, Outcome
from converter.validation.report import SEVERITIES, CheckResult, Kind

CheckFunction = Callable[[Any], Outcome]
_CHECKS: dict[str, CheckFunction] = {}


def check(check_id: str) -> Callable[[CheckFunction], CheckFunction]:
    """Register a function as the check ``check_id``.

    It takes an `Evidence` (a `Tracked` if the catalogue says that it looks at tracks only) and
    returns an `Outcome`, or raises CheckSkipped where it has nothing to look at.
    """

    def register(function: CheckFunction) -> CheckFunction:
        if check_id in _CHECKS:
            raise ValueError(f"two checks are called {check_id}")
        _CHECKS[check_id] = function
        return function

    return register


def all_checks() -> dict[str, CheckFunction]:
    """Every check by its id."""
    package = importlib.import_module("converter.validation.checks")
    for module in pkgutil.iter_modules(package.__path__):
        importlib.import_module(f"{package.__name__}.{module.name}")
    return dict(_CHECKS)


def run_checks(evidence: Evidence, kind: Kind) -> tuple[CheckResult, ...]:
    """Run every check that applies to ``kind``, in the order of the catalogue."""
    functions = all_checks()
    infos = [info for info in CATALOGUE if kind in info.kinds and info.id in functions]
    return tuple(run_check(info.id, functions[info.id], evidence) for info in infos)


def run_check(check_id: str, function: CheckFunction, evidence: Evidence) -> CheckResult:
    """Run one check; what it cannot read makes it skipped, with the reason."""
    try:
        # Damaged numbers overflow; what matters is what comes out.
        with np.errstate(all="ignore"):
            outcome = function(evidence)
    except CheckSkipped as skipped:
        return CheckResult(check_id, "skipped", reason=str(skipped))
    except UncropError as error:
        if not isinstance(error, ConventionError):  # which speaks of numbers, not of a file
            evidence.damaged.setdefault(error.where, error)
        return CheckResult(check_id, "skipped", reason=str(error))
    found = [replace(f, check=check_id) for f in outcome.findings]
    found.sort(key=lambda f: SEVERITIES.index(f.severity))
    return CheckResult(
        check_id,
        "found" if found else "passed",
        tuple(found),
        n_examined=outcome.n_examined,
        frame_ids=outcome.frame_ids,
    )
