"""Fixtures shared by all tests, and the Hypothesis profiles."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, settings

if TYPE_CHECKING:
    from fixtures.synthetic import Truth

MakeTrack = Callable[..., "tuple[Path, Truth]"]
"""What the fixture `make_track` gives."""

REPOSITORY = Path(__file__).resolve().parent.parent

_common = {"deadline": None, "suppress_health_check": [HealthCheck.too_slow]}
settings.register_profile("dev", max_examples=50, **_common)
settings.register_profile("ci", max_examples=100, derandomize=True, **_common)
settings.register_profile("nightly", max_examples=1000, **_common)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "ci" if "CI" in os.environ else "dev"))


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The sample data beside the repository; tests that need it are skipped where it is not."""
    path = REPOSITORY.parent / "shared" / "data"
    if not path.is_dir():
        pytest.skip("../shared/data is not here")
    return path


@pytest.fixture(scope="session")
def fixtures_dir() -> Path:
    """The synthetic sample files that ship with the repository."""
    return REPOSITORY / "fixtures"


@pytest.fixture(scope="session")
def make_track(tmp_path_factory: pytest.TempPathFactory) -> MakeTrack:
    """Make a synthetic metrical-tracker track: ``make_track(n_frames=4, ...)`` -> (folder, truth).

    Arguments are those of `fixtures.synthetic.TrackSpec`. Tests with equal arguments share one
    folder, which must not be modified; take `own_track` for that.
    """
    from fixtures.synthetic import TrackSpec, write_track

    made: dict[TrackSpec, tuple[Path, Truth]] = {}

    def make(**overrides: Any) -> tuple[Path, Truth]:
        spec = TrackSpec(**overrides)
        if spec not in made:
            folder = tmp_path_factory.mktemp("track")
            made[spec] = folder, write_track(folder, spec)
        return made[spec]

    return make


@pytest.fixture
def own_track(make_track: MakeTrack, tmp_path: Path) -> MakeTrack:
    """Like `make_track`, but a fresh copy in the test's own folder, free to be damaged."""
    import shutil
    from dataclasses import replace

    def make(**overrides: Any) -> tuple[Path, Truth]:
        shared, truth = make_track(**overrides)
        folder = tmp_path / f"track{len(list(tmp_path.glob('track*')))}"
        shutil.copytree(shared, folder)

        def moved(path: Path) -> Path:
            return folder / path.relative_to(shared)

        return folder, replace(
            truth,
            folder=folder,
            actor=moved(truth.actor),
            output=moved(truth.output),
            yaml=moved(truth.yaml),
            video=None if truth.video is None else moved(truth.video),
        )

    return make
