"""Bundles and written datasets are validated like tracks."""

from __future__ import annotations

import random
import shutil
from pathlib import Path

import pytest

import converter
from converter import registry
from converter.errors import FormatError
from converter.media.images import read_size
from converter.registry import ReadOptions
from converter.validation.report import Report
from converter.validation.validate import ValidateOptions, validate
from tests.conftest import MakeTrack

SMALL = {"source_size": (240, 180), "crop_size": 128, "oversample": 1, "n_frames": 6}


@pytest.fixture(scope="module")
def bundle(make_track: MakeTrack, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder, _ = make_track(**SMALL)
    out = tmp_path_factory.mktemp("bundle") / "track.h5"
    track = converter.read_track(folder, ReadOptions(hash_inputs=False))
    converter.write_track(track, "bundle", out, with_images=True)
    return out


@pytest.fixture(scope="module")
def dataset(make_track: MakeTrack, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder, _ = make_track(**SMALL)
    out = tmp_path_factory.mktemp("dataset") / "ada"
    track = converter.read_track(folder, ReadOptions(hash_inputs=False))
    converter.write_track(track, "gaussiantalker", out, canvas="crop")
    return out


def errors(report: Report) -> set[str]:
    return {f.check for f in report.findings if f.severity == "error"}


def test_a_good_bundle(bundle: Path) -> None:
    report = validate(bundle, ValidateOptions(illustrate=True))
    assert (report.kind, report.format, report.n_frames) == ("bundle", "bundle", 6)
    assert errors(report) == set()
    passed = {r.check for r in report.results if r.status == "passed"}
    assert passed >= {"bundle-damaged", "rotation-invalid", "landmarks-off-mesh", "fov-range"}
    assert {s.name for s in report.series} >= {"focal length", "reprojection error"}
    assert len(report.pictures) == 2


def test_flipped_bits_of_a_bundle_are_found(bundle: Path, tmp_path: Path) -> None:
    import h5py

    data = bundle.read_bytes()
    offsets = []
    with h5py.File(bundle) as file:

        def visit(name: str, item: object) -> None:
            if isinstance(item, h5py.Dataset) and item.id.get_offset() is not None:
                offsets.append((name, item.id.get_offset(), item.id.get_storage_size()))
            elif isinstance(item, h5py.Dataset) and item.chunks:
                for k in range(item.id.get_num_chunks()):
                    chunk = item.id.get_chunk_info(k)
                    offsets.append((name, chunk.byte_offset, chunk.size))

        file.visititems(visit)
    assert len(offsets) > 10
    rng = random.Random(5)
    for name, begin, size in rng.sample(offsets, 12):
        damaged = bytearray(data)
        damaged[begin + rng.randrange(size)] ^= 1 << rng.randrange(8)
        path = tmp_path / "track.h5"
        path.write_bytes(bytes(damaged))
        report = validate(path)
        assert report.kind in ("bundle", "unreadable"), name
        assert errors(report) & {"bundle-damaged", "unreadable"}, name


@pytest.mark.parametrize("share", [0.0, 0.001, 0.3, 0.9, 0.9999])
def test_truncated_bundles_are_found(bundle: Path, tmp_path: Path, share: float) -> None:
    data = bundle.read_bytes()
    path = tmp_path / "track.h5"
    path.write_bytes(data[: int(len(data) * share)])
    assert errors(validate(path)) & {"bundle-damaged", "unreadable"}


def test_a_good_dataset(dataset: Path) -> None:
    report = validate(dataset)
    assert (report.kind, report.format) == ("dataset", "gaussiantalker")
    assert errors(report) == set()


@pytest.mark.parametrize("name", ["track_params.pt", "transforms_train.json", "ori_imgs/0.jpg"])
def test_a_damaged_dataset(dataset: Path, tmp_path: Path, name: str) -> None:
    copy = tmp_path / "ada"
    shutil.copytree(dataset, copy)
    path = copy / name
    path.write_bytes(path.read_bytes()[:-7])
    report = validate(copy)
    assert report.kind == "dataset"
    assert errors(report) == {"dataset"}


@pytest.mark.parametrize("folder", ["ada", "shot: 3"])
def test_damage_is_told_whole_and_at_its_place_wherever_that_is(
    dataset: Path, tmp_path: Path, folder: str
) -> None:
    copy = tmp_path / folder
    shutil.copytree(dataset, copy)
    path = copy / "ori_imgs" / "0.jpg"
    path.write_bytes(b"no picture")
    told = [f for f in registry.target("gaussiantalker").check(copy) if "unreadable" in f.check]
    with pytest.raises(FormatError) as caught:
        read_size(path)
    assert [str(f) for f in told] == [str(caught.value)]


def test_a_folder_with_a_foreign_manifest_is_unreadable(tmp_path: Path) -> None:
    for text in ("{", '{"target": "nothing"}', "[]", '{"target": 3}'):
        (tmp_path / "uncrop.json").write_text(text)
        report = validate(tmp_path)
        assert report.kind == "unreadable"
        assert errors(report) == {"unreadable"}


def test_nothing_and_nonsense_are_unreadable(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("hello")
    for path in (tmp_path, tmp_path / "a.txt", tmp_path / "none"):
        report = validate(path)
        assert report.kind == "unreadable"
        (finding,) = report.findings
        assert finding.check == "unreadable"
        assert str(finding).count("\n") == 0


def test_a_track_that_uncrop_wrote_is_both(make_track: MakeTrack, tmp_path: Path) -> None:
    folder, _ = make_track(**SMALL)
    track = converter.read_track(folder, ReadOptions(hash_inputs=False))
    converter.write_track(track, "metrical_tracker", tmp_path / "out")
    report = validate(tmp_path / "out")
    assert (report.kind, report.format, report.n_frames) == ("dataset", "metrical_tracker", 6)
    assert errors(report) == set()
    passed = {r.check for r in report.results if r.status == "passed"}
    assert "K-naive" in passed
    assert "dataset" in {r.check for r in report.results}
