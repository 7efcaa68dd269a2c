"""The source and the target ``bundle``: what options mean, what is said when something lacks."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from converter import registry
from converter.bundle.write import write_bundle
from converter.errors import ConventionError, FormatError, MissingInputError
from converter.geometry.pixels import Size
from converter.registry import ReadOptions, no_progress
from converter.track import Track
from tests.bundle.tools import assert_same, full_track

SOURCE = registry.source("bundle")
TARGET = registry.target("bundle")
SIZE = Size(640, 360)


def pictures(folder: Path, n: int, size: Size = SIZE) -> Path:
    folder.mkdir()
    for index in range(n):
        cv2.imwrite(str(folder / f"{index:05d}.png"), np.full((*size.shape, 3), index, np.uint8))
    return folder


def written(track: Track, path: Path) -> Path:
    write_bundle(track, path)
    return path


def test_without_options_it_is_the_track(bundle: Path) -> None:
    assert_same(SOURCE.read(bundle, ReadOptions()), full_track())


@pytest.mark.parametrize(
    "options",
    [{"actor": Path("x")}, {"bbox": Path("x")}, {"begin_frames": 1}],
    ids=["--actor", "--bbox", "--begin-frames"],
)
def test_options_that_a_bundle_answers_itself(options: dict[str, Any], bundle: Path) -> None:
    with pytest.raises(FormatError, match="A bundle holds these facts"):
        SOURCE.read(bundle, ReadOptions(**options))


def test_source_frames_by_position(bundle: Path, tmp_path: Path) -> None:
    track = SOURCE.read(bundle, ReadOptions(source=pictures(tmp_path / "source", 11)))
    assert track.source_frames is not None
    assert [int(track.source_frames.read(i).max()) for i in range(3)] == [4, 5, 10]
    assert track.provenance.steps[-1] == "source frames taken from source"


def test_too_few_source_frames(bundle: Path, tmp_path: Path) -> None:
    with pytest.raises(MissingInputError, match="11 images, found 10"):
        SOURCE.read(bundle, ReadOptions(source=pictures(tmp_path / "source", 10)))
    with pytest.raises(MissingInputError, match="--source"):
        SOURCE.read(bundle, ReadOptions(source=tmp_path / "none"))


def test_source_frames_of_another_video(bundle: Path, tmp_path: Path) -> None:
    folder = pictures(tmp_path / "source", 11, Size(641, 360))
    with pytest.raises(ConventionError, match="640x360 frames, found 641x360"):
        SOURCE.read(bundle, ReadOptions(source=folder))


def test_a_bundle_without_positions_says_so(tmp_path: Path) -> None:
    path = written(replace(full_track(), source_indices=None), tmp_path / "t.h5")
    with pytest.raises(MissingInputError, match="position of each frame"):
        SOURCE.read(path, ReadOptions(source=pictures(tmp_path / "source", 11)))


def test_source_frames_bring_their_size(tmp_path: Path) -> None:
    """A track that was converted without its source frames gets K of the source frame with them."""
    whole = full_track()
    assert whole.crop is not None
    path = written(replace(whole, crop=replace(whole.crop, source=None)), tmp_path / "t.h5")
    track = SOURCE.read(path, ReadOptions(source=pictures(tmp_path / "source", 11)))
    assert track.crop == whole.crop
    found, expected = track.in_source().intrinsics, whole.in_source().intrinsics
    assert np.array_equal(found.matrix, expected.matrix)
    # A bbox that reaches beyond them was cut, but where, only the tracker's reader knows.
    folder = pictures(tmp_path / "narrow", 11, Size(341, 300))
    with pytest.raises(ConventionError, match="frames that hold the bbox"):
        SOURCE.read(path, ReadOptions(source=folder))


def test_a_video_brings_frames_and_sound(sample_track: Track, tmp_path: Path) -> None:
    assert sample_track.source_frames is not None
    assert sample_track.video is not None
    video = sample_track.video.locate()
    track = SOURCE.read(written(sample_track, tmp_path / "t.h5"), ReadOptions(source=video))
    assert track.video is not None
    assert track.video.locate() == video
    assert track.source_frames is not None
    assert np.array_equal(track.source_frames.read(2), sample_track.source_frames.read(2))


def test_a_stated_rate_counts(bundle: Path) -> None:
    track = SOURCE.read(bundle, ReadOptions(fps=50.0))
    assert track.times is not None
    assert track.times.tolist() == [0.08, 0.1, 0.2]


def test_sniffing_opens_nothing_else(bundle: Path, tmp_path: Path) -> None:
    unnamed = tmp_path / "unnamed"
    unnamed.write_bytes(bundle.read_bytes())
    (tmp_path / "text.txt").write_text("hello")
    (tmp_path / "broken.h5").write_text("hello")
    (tmp_path / "folder.h5").mkdir()
    assert SOURCE.sniff(unnamed)
    assert SOURCE.sniff(tmp_path / "broken.h5")  # so that its reader says what is wrong
    assert not SOURCE.sniff(tmp_path / "text.txt")
    assert not SOURCE.sniff(tmp_path / "folder.h5")
    assert not SOURCE.sniff(tmp_path / "none")


def test_the_target_says_what_comes_next(sample_track: Track, bundle: Path, tmp_path: Path) -> None:
    def write(track: Track, name: str, **options: Any) -> Any:
        chosen = TARGET.options(**options)
        return TARGET.write(track, tmp_path / name, chosen, overwrite=False, progress=no_progress)

    plain = write(sample_track, "my track.h5")
    assert f"'{tmp_path}/my track.h5' --to gaussiantalker" in plain.next_command
    assert "--source" in plain.next_command
    assert "--source" not in write(sample_track, "b.h5", with_images=True).next_command
    bare = write(full_track(), "c.h5", with_images=True)
    assert [f.check for f in bare.findings] == ["images-missing"]
    assert "--source" in bare.next_command
    assert plain.findings == ()
