"""Parsing, background and torso go through the same map as the images."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from converter import registry
from converter.dataset import parsing
from converter.errors import ConventionError, MissingInputError
from converter.media.images import read_image
from converter.registry import ReadOptions, no_progress
from converter.targets.gaussiantalker.options import Options
from converter.track import Track
from fixtures.synthetic import write_background, write_parsing

TARGET = registry.target("gaussiantalker")


@pytest.fixture(scope="module")
def scene(make_track: Any) -> tuple[Track, Any]:
    folder, truth = make_track(n_frames=12, begin_frames=1, source_size=(640, 360), crop_size=256)
    return registry.source("metrical_tracker").read(folder, ReadOptions()), truth


def write(track: Track, out: Path, **options: Any) -> Path:
    TARGET.write(track, out, Options(**options), overwrite=False, progress=no_progress)
    return out


@pytest.mark.parametrize("style", ["gaussiantalker", "insta"])
@pytest.mark.parametrize("space", ["crop", "source"])
def test_layers_come_from_either_style_and_space(
    scene: tuple[Track, Any], tmp_path: Path, style: str, space: str
) -> None:
    track, truth = scene
    folder = tmp_path / "parsing"
    write_parsing(folder, truth, style=style, space=space)
    out = write(track, tmp_path / "out", parsing=folder, canvas="window")
    seen = read_image(out / "parsing" / "3.png")
    colours = {tuple(c) for c in np.unique(seen.reshape(-1, 3), axis=0).tolist()}
    assert colours <= {parsing.HEAD, parsing.NECK, parsing.TORSO, parsing.BACKGROUND}
    head = np.all(seen == np.array(parsing.HEAD), axis=2)
    landmarks = np.loadtxt(out / "ori_imgs" / "3.lms")
    inner = np.round(landmarks[27:]).astype(int)
    assert head[inner[:, 1], inner[:, 0]].mean() > 0.95
    torso = cv2.imread(str(out / "torso_imgs" / "3.png"), cv2.IMREAD_UNCHANGED)
    assert torso.shape[2] == 4
    assert set(np.unique(torso[..., 3])) == {0, 255}
    assert not torso[torso[..., 3] == 0].any()
    assert read_image(out / "bc.jpg").shape == read_image(out / "ori_imgs" / "3.jpg").shape
    assert (out / "gt_imgs" / "3.jpg").is_file()


def test_a_given_background_is_moved_with_the_images(
    scene: tuple[Track, Any], tmp_path: Path
) -> None:
    track, truth = scene
    clean = tmp_path / "clean.png"
    write_background(clean, truth, space="source")
    out = write(track, tmp_path / "out", background=clean, canvas="window", quality=100)
    written, image = read_image(out / "bc.jpg"), read_image(out / "ori_imgs" / "0.jpg")
    corner = np.s_[:40, :40]
    assert np.abs(written[corner].astype(int) - image[corner]).mean() < 3


def test_an_off_by_one_in_names_is_asked_for_not_guessed(
    scene: tuple[Track, Any], tmp_path: Path
) -> None:
    track, truth = scene
    folder = tmp_path / "parsing"
    write_parsing(folder, truth, style="insta", space="crop")
    last = sorted(folder.glob("*.png"))[-1]
    for extra in (12, 13, 14):
        (folder / f"{extra:05d}.png").write_bytes(last.read_bytes())
    with pytest.raises(ConventionError, match="--parsing-names"):
        TARGET.require(track, Options(parsing=folder))
    TARGET.require(track, Options(parsing=folder, parsing_names="frame"))


def test_wrong_parsing_is_refused(scene: tuple[Track, Any], tmp_path: Path) -> None:
    track, truth = scene
    folder = tmp_path / "parsing"
    write_parsing(folder, truth, style="gaussiantalker", space="crop")
    paths = sorted(folder.glob("*.png"))
    image = cv2.imread(str(paths[0]))
    cv2.imwrite(str(paths[0]), cv2.GaussianBlur(image, (9, 9), 3))
    with pytest.raises(ConventionError, match="colours"):
        TARGET.require(track, Options(parsing=folder))
    cv2.imwrite(str(paths[0]), image[:-2])
    with pytest.raises(ConventionError, match="source size"):
        TARGET.require(track, Options(parsing=folder))
    paths[5].unlink()
    with pytest.raises(MissingInputError, match="of 12 missing"):
        TARGET.require(track, Options(parsing=folder))
