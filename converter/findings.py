"""Finding: one fact that a check established, for people and for machines."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from converter.errors import UncropError, printable

Severity = Literal["info", "warning", "error"]


def counted(n: int, what: str) -> str:
    """``1 file``, ``2 files``."""
    return f"{n} {what}{'s' * (n != 1)}"


@dataclass(frozen=True, slots=True)
class Finding:
    """One fact found by one check.

    Attributes
    ----------
    check
        Stable id of the check, e.g. ``"landmarks-missing"``.
    severity
        ``"error"``: the result would be wrong; ``"warning"``: something was repaired, left out
        or is doubtful; ``"info"``: good to know.
    where
        File or quantity that it is about.
    message
        One sentence.
    measured, limit, unit
        The number behind the sentence and the bound it was held against, if there are any.
    fix
        What the user can do, or what was done.

    """

    check: str
    severity: Severity
    where: str
    message: str
    measured: float | None = None
    limit: float | None = None
    unit: str = ""
    fix: str = ""

    @classmethod
    def of_error(cls, check: str, error: UncropError) -> Finding:
        """Return what an error says as a finding of severity error, at the error's own place."""
        return cls(check, "error", error.where, error.statement, fix=error.remedy)

    def __str__(self) -> str:
        text = f"{self.where}: {self.message}"
        return printable(f"{text} {self.fix}".rstrip())
