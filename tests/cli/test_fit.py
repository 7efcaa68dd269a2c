"""``uncrop fit``: what it writes, says and refuses."""

from __future__ import annotations

import csv
import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import converter
from converter.cli.main import main
from fitting.flame import read_flame
from fixtures.synthetic.flame import generic_model
from tests.conftest import MakeTrack
from tests.damage import Folders, naive_K, without_camera_block
from tests.fitting.flame.test_flame import flame_track


@pytest.fixture(scope="module")
def track(make_track: MakeTrack) -> Path:
    """A synthetic track of ten frames, with crops."""
    return make_track(n_frames=10)[0]


def fit(*arguments: object) -> int:
    return main(["fit", *map(str, arguments)])


def test_writes_metrical_trackers_folders_and_a_report(
    track: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "mended"
    assert fit(track, "-o", out) == 0
    printed = capsys.readouterr().out
    assert re.search(r"landmarks within [\d.]+ px \(RMS\) before, [\d.]+ px after", printed)
    assert f"report: {out}.fit.jpg and mended.fit.csv" in printed
    assert (tmp_path / "mended.fit.jpg").read_bytes()[:2] == b"\xff\xd8"
    with (tmp_path / "mended.fit.csv").open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert [r["frame"] for r in rows] == [f"{i:05d}" for i in range(10)]
    assert all(float(r["rms_after_px"]) < 1 for r in rows)
    again = converter.read_track(out)
    before = converter.read_track(track)
    np.testing.assert_allclose(again.w2c.R, before.w2c.R, atol=0.02)
    steps = json.loads((out / "uncrop.json").read_text("utf-8"))["steps"]
    assert "cameras fitted again to 68 landmarks" in " ".join(steps)
    assert main(["inspect", str(out)]) == 0


@pytest.mark.parametrize(("using", "where"), [("kpt", "landmarks"), ("mesh", "mesh")])
def test_figures_say_what_they_are_measured_on(
    track: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], using: str, where: str
) -> None:
    """The same poses have another figure on other points."""
    assert fit(track, "-o", tmp_path / "x.h5", "--dry-run", "--using", using) == 0
    said = capsys.readouterr().out
    assert re.search(
        rf"turns jitter by [\d.]+ degrees before, [\d.]+ after, on the {where}\n", said
    )


@pytest.mark.parametrize("name", ["mended.h5", "mended.hdf5"])
def test_a_bundle_if_it_ends_in_h5(track: Path, tmp_path: Path, name: str) -> None:
    out = tmp_path / name
    assert fit(track, "-o", out, "--central", "--quiet") == 0
    assert {p.name for p in tmp_path.iterdir()} == {
        name, "mended.fit.jpg", "mended.fit.csv"
    }  # fmt: skip
    k = converter.read_track(out).in_crop().intrinsics
    assert (k.cx, k.cy) == (k.size.width / 2, k.size.height / 2)


def test_json(track: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert fit(track, "-o", tmp_path / "x.h5", "--json", "--dry-run", "--smooth", "auto") == 0
    said = json.loads(capsys.readouterr().out)
    assert said["ok"]
    assert said["out"] is None
    assert said["n_fitted"] == said["n_frames"] == 10
    assert said["fitted_to"].endswith("vertices of the track's own meshes")
    assert list(tmp_path.iterdir()) == []


def test_a_K_that_stops_every_other_verb_is_repaired(
    own_track: MakeTrack, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, truth = own_track(n_frames=10)
    folders = Folders(folder, truth.actor, truth.output)
    assert truth.bbox is not None
    folders.edit_frames(naive_K(list(truth.bbox)))
    folders.edit_frames(without_camera_block)
    out = tmp_path / "mended.h5"
    assert fit(folder, "-o", out) == 0
    said = capsys.readouterr().err
    assert "leaves the landmarks" in said
    K = converter.read_track(out).in_crop().intrinsics.matrix
    np.testing.assert_allclose(K, truth.K_crop, atol=1e-3)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--keep-k", "--central"], "--keep-k and --central exclude each other"),
        (["--smooth", "much"], "--smooth: expected auto, or a number of px above 0, found 'much'"),
        (["--smooth", "-1"], "--smooth"),
        (["--smooth", "0"], "above 0"),
        (["--focal-prior", "7"], "a fraction between 0 and 1"),
        (["--max-residual", "0"], "px above 0"),
        (["--solver", "adam", "--smooth", "auto"], "--solver adam fits to landmarks"),
        (["--solver", "adam", "--using", "mesh"], "--solver adam fits to landmarks"),
        (["--solver", "sgd"], "sgd"),
    ],
)
def test_misuse(
    track: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    said: str,
) -> None:
    with pytest.raises(SystemExit) if "sgd" in arguments else _nothing():
        assert fit(track, "-o", tmp_path / "x.h5", *arguments) == 2
    assert said in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


class _nothing:  # noqa: N801
    def __enter__(self) -> None: ...

    def __exit__(self, *_: object) -> None: ...


def test_bad_input_leaves_nothing_behind(
    make_track: MakeTrack, track: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "x.h5"
    without_kpt = make_track(n_frames=6, kpt=False)[0]
    assert fit(without_kpt, "-o", out) == 3
    assert "uncrop landmarks TRACK detects them" in capsys.readouterr().err
    without_meshes = make_track(n_frames=6, mesh=False)[0]
    assert fit(without_meshes, "-o", out) == 3
    assert "With --flame FILE" in capsys.readouterr().err
    assert fit(track, "-o", out, "--using", "dense") == 3
    assert "--landmark-embedding" in capsys.readouterr().err
    assert fit(track, "-o", out, "--max-residual", "0.0001") == 3
    assert "Or raise --max-residual" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "x.fit.csv").write_text("mine")
    assert fit(track, "-o", out) == 3
    assert "x.fit.csv" in capsys.readouterr().err
    assert not out.exists()
    assert fit(track, "-o", out, "--overwrite", "--quiet") == 0


def test_a_folder_of_its_own_is_replaced_only_on_request(
    track: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "mended"
    assert fit(track, "-o", out, "--quiet") == 0
    for also in ([], ["--dry-run"]):
        assert fit(track, "-o", out, *also) == 3
        assert "add --overwrite" in capsys.readouterr().err
    assert fit(track, "-o", out, "--overwrite", "--quiet") == 0
    (out / "mine.txt").write_text("mine")
    assert fit(track, "-o", out, "--overwrite", "--quiet") == 3
    assert (out / "mine.txt").read_text() == "mine"


# ------------------------------------------------------------------ models of the user's
@pytest.fixture
def bare(tmp_path: Path) -> tuple[Path, Path, Path]:
    """A bundle without meshes, and the model and embedding that its landmarks come from."""
    model_path = tmp_path / "generic_model.pkl"
    model_path.write_bytes(generic_model())
    track, _ = flame_track(read_flame(model_path), tmp_path)
    bundle = tmp_path / "bare.h5"
    converter.write_track(replace(track, meshes=None), "bundle", bundle)
    return bundle, model_path, tmp_path / "landmark_embedding.npy"


def test_a_track_without_meshes_is_fitted_with_a_model(
    bare: tuple[Path, Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bundle, model, embedding = bare
    out = tmp_path / "out.h5"
    given = ["--flame", model, "--landmark-embedding", embedding]
    assert fit(bundle, "-o", out, *given) == 0
    assert "fitted to 68 landmarks by the given embedding" in capsys.readouterr().out
    before, after = converter.read_track(bundle), converter.read_track(out)
    np.testing.assert_allclose(after.w2c.R, before.w2c.R, atol=0.02)
    assert fit(bundle, "-o", tmp_path / "x.h5", "--landmark-embedding", embedding) == 3
    assert "With --flame FILE" in capsys.readouterr().err
    assert fit(out, "-o", tmp_path / "x.h5", *given, "--quiet") == 0


def test_ears_by_the_users_table(
    bare: tuple[Path, Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bundle, model, embedding = bare
    given = ["--flame", model, "--landmark-embedding", embedding]
    ears = tmp_path / "ears.npz"
    n = len(converter.read_track(bundle))
    table = np.arange(20)
    np.savez(ears, left=table, right=table + 30, landmarks=np.full((n, 20, 2), np.nan))
    assert fit(bundle, "-o", tmp_path / "a.h5", *given, "--ears", ears, "--quiet") == 0
    for change, said in (
        ({"left": table + 10**6}, "vertex numbers"),
        ({"right": table * 1.0}, "vertex numbers"),
        ({"landmarks": np.zeros((n + 1, 20, 2))}, "fit: ears"),
    ):
        content = {"left": table, "right": table + 30, "landmarks": np.zeros((n, 20, 2))}
        np.savez(ears, **{**content, **change})
        assert fit(bundle, "-o", tmp_path / "b.h5", *given, "--ears", ears) == 3
        assert said in capsys.readouterr().err
    np.savez(ears, left=table)
    assert fit(bundle, "-o", tmp_path / "b.h5", *given, "--ears", ears) == 3
    assert "no right and landmarks" in capsys.readouterr().err


def test_a_model_of_other_meshes(
    bare: tuple[Path, Path, Path], track: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert fit(track, "-o", tmp_path / "x.h5", "--flame", bare[1]) == 3
    assert "Leave --flame out" in capsys.readouterr().err
