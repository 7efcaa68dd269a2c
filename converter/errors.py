"""Every exception a user can meet. One root, one shape.

A message is one line: *where: expected X, found Y. What to do.* Text that comes out of files or
file names is escaped, so that a hostile name cannot write control codes to a terminal, nor markup
where a message is printed through rich.
"""

from __future__ import annotations

import re

_MARKUP_TAG = re.compile(r"(?<!\\)((?:\\\\)*)(?=\[[a-z#/@])")
"""Where rich sees a tag: a bracket before a letter, #, / or @, that no odd backslash escapes."""


def printable(text: object) -> str:
    """``text`` on one line: control characters, unpaired surrogates and rich markup escaped.

    Escaping twice is escaping once, so texts that quote another message stay readable.
    """
    line = "".join(
        c if c.isprintable() else c.encode("unicode_escape", "backslashreplace").decode("ascii")
        for c in str(text)
    )
    return _MARKUP_TAG.sub(r"\1\\", line)


class UncropError(Exception):
    """Root of all errors that are the input's or the environment's fault, not a bug.

    Parameters
    ----------
    where
        The file, and the place inside it, that the error is about.
    expected, found
        What the place should hold and what it does hold. Either may be empty.
    remedy
        What the user can do about it, as a full sentence.
    cause
        Stable id of the reason, e.g. "mirrored"; empty where there is none.

    """

    def __init__(
        self, where: object, expected: str = "", found: str = "", remedy: str = "", cause: str = ""
    ) -> None:
        self.where = printable(where)
        self.expected = printable(expected)
        self.found = printable(found)
        self.remedy = printable(remedy)
        self.cause = cause
        text = f"{self.where}: {self.statement}" if self.statement else f"{self.where}."
        super().__init__(f"{text} {self.remedy}".rstrip())

    @property
    def statement(self) -> str:
        """``expected X, found Y.``: the message without its place and remedy."""
        found = f"found {self.found}" if self.found and self.expected else self.found
        facts = [f"expected {self.expected}"] if self.expected else []
        facts += [found] if found else []
        return f"{', '.join(facts)}." if facts else ""

    def __str__(self) -> str:
        return str(self.args[0])

    def __reduce__(self) -> tuple[type[UncropError], tuple[str, str, str, str]]:
        # Exceptions are rebuilt from args otherwise, which hold the message and not the fields.
        return type(self), (self.where, self.expected, self.found, self.remedy)


class MissingInputError(UncropError, FileNotFoundError):
    """A file or folder that the work needs is not there."""


class UnsafeFileError(UncropError):
    """A file asks for something no data file needs: code, links, or more memory than it holds."""


class FormatError(UncropError):
    """A file is damaged or is not in the format its name promises."""


class ConventionError(UncropError):
    """The numbers are readable but cannot mean what they should: axes, units, image space, K."""


class RecoveryError(UncropError):
    """A lost value could not be recovered with certainty."""


class FitError(UncropError):
    """An estimate did not reach the quality asked for."""


class TargetError(UncropError):
    """The chosen target cannot hold this track. Nothing is dropped silently instead."""


class BundleVersionError(UncropError):
    """A bundle was written under a schema this version does not know."""


class OutputError(UncropError):
    """The output cannot be written: it exists, is not ours, or the disk refuses."""
