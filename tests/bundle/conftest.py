from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from converter import registry
from converter.bundle.write import write_bundle
from converter.registry import ReadOptions
from converter.track import Track
from tests.bundle.tools import full_track


@pytest.fixture(scope="session")
def sample_track(fixtures_dir: Path) -> Track:
    """The track that ships with the repository: crops as files, source frames as a video."""
    return registry.source("metrical_tracker").read(fixtures_dir / "sample", ReadOptions())


@pytest.fixture(scope="session")
def whole(sample_track: Track, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle of it with images; not to be changed."""
    path = tmp_path_factory.mktemp("bundle") / "whole.h5"
    write_bundle(sample_track, path, with_images=True)
    return path


@pytest.fixture(scope="session")
def _plain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("bundle") / "track.h5"
    write_bundle(full_track(), path)
    return path


@pytest.fixture
def bundle(_plain: Path, tmp_path: Path) -> Path:
    """A small bundle with everything but images, free to be damaged."""
    return Path(shutil.copyfile(_plain, tmp_path / "track.h5"))


@pytest.fixture
def copy_of(tmp_path: Path) -> Callable[[Path], Path]:
    return lambda path: Path(shutil.copyfile(path, tmp_path / f"copy-{path.name}"))
