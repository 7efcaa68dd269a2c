"""FolderTarget: a target whose dataset is a folder, and whose modules load when they are used."""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from converter.findings import Finding
from converter.registry import Progress, Written

if TYPE_CHECKING:
    from converter.track import Track


@dataclass(frozen=True, slots=True)
class FolderTarget:
    """`converter.registry.Target` over the functions of a package.

    A plan is made first and decides everything: a track that lacks what the dataset needs is
    refused before anything is written.

    Attributes
    ----------
    name, summary, options
        As `Target` has them.
    package
        The target's package, ``__name__``. Its module ``dataset`` has ``write_dataset(plan, out,
        options, *, overwrite, progress)``, its module ``check`` has ``check_dataset(out)``.
    plan
        ``module:function`` of ``(track, options) -> plan``. Default: ``make_plan`` of ``dataset``.

    """

    name: str
    summary: str
    options: type[Any]
    package: str
    plan: str = ""

    def require(self, track: Track, options: Any) -> None:
        """Raise TargetError or MissingInputError if the track lacks what the dataset needs."""
        self._plan(track, options)

    def write(
        self, track: Track, out: Path, options: Any, *, overwrite: bool, progress: Progress
    ) -> Written:
        """Write the dataset whole or not at all."""
        plan = self._plan(track, options)
        write_dataset = importlib.import_module(f"{self.package}.dataset").write_dataset
        written: Written = write_dataset(plan, out, options, overwrite=overwrite, progress=progress)
        return written

    def check(self, out: Path) -> list[Finding]:
        """Re-read the dataset as its consumer does, and reproject."""
        found: list[Finding] = importlib.import_module(f"{self.package}.check").check_dataset(out)
        return found

    def _plan(self, track: Track, options: Any) -> Any:
        module, function = (self.plan or f"{self.package}.dataset:make_plan").split(":")
        return getattr(importlib.import_module(module), function)(track, options)
