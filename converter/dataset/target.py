"""FolderTarget: a target whose dataset is a folder, and whose modules load when they are used."""

from __future__ import annotations

import importlib
from dataclasses import dataclass, replace
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
        As `Target` has them. Options have a ``require()``, which raises UncropError for what no
        track could make right; the command line calls it before anything is read.
    package
        The target's package, ``__name__``. Its module ``dataset`` has ``write_files(plan, dataset,
        options, progress)``, which returns lines for the summary, ``facts(plan, options)`` for the
        manifest, and ``report(plan, out, options)``, the `Written` without these lines; its module
        ``check`` has ``check_dataset(out)``.
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
        """Write the dataset, whole or not at all: it gets its name when it passes its own check.

        Raises
        ------
        TargetError
            If the written dataset does not pass; nothing is left then.
        OutputError
            If ``out`` exists or cannot be written.

        """
        from converter.dataset.proof import require_clean
        from converter.media.atomic import replace_folder
        from converter.media.manifest import MANIFEST, DatasetFolder

        plan = self._plan(track, options)
        module = importlib.import_module(f"{self.package}.dataset")
        with replace_folder(out, overwrite=overwrite, marker=MANIFEST) as folder:
            dataset = DatasetFolder(folder)
            lines = module.write_files(plan, dataset, options, progress)
            dataset.finish(self.name, module.facts(plan, options))
            lines = (*lines, *require_clean(folder, out, self.check))
        written: Written = module.report(plan, out, options)
        return replace(written, summary=tuple(line for line in lines if line))

    def check(self, out: Path) -> list[Finding]:
        """Re-read the dataset as its consumer does, and reproject."""
        found: list[Finding] = importlib.import_module(f"{self.package}.check").check_dataset(out)
        return found

    def _plan(self, track: Track, options: Any) -> Any:
        options.require()
        module, function = (self.plan or f"{self.package}.dataset:make_plan").split(":")
        return getattr(importlib.import_module(module), function)(track, options)
