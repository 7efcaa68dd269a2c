"""``convert DIR --to TARGET -o OUT/{name}``: many tracks, each of which may fail alone."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from converter.batch.converting import named_places
from converter.batch.discover import Found
from converter.errors import FormatError

UNCROP = [sys.executable, "-m", "converter.cli.main"]


def convert(*arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*UNCROP, "convert", *map(str, arguments)],
        capture_output=True, text=True, timeout=600, check=False,
    )  # fmt: skip


@pytest.fixture
def three(fixtures_dir: Path, tmp_path: Path) -> Path:
    """Two good tracks, and one with a damaged frame."""
    top = tmp_path / "tracks"
    for name in ("ada", "bob", "eve"):
        shutil.copytree(fixtures_dir / "sample/output/ada", top / "output" / name)
        shutil.copytree(fixtures_dir / "sample/input/ada", top / "input" / name)
    (top / "output/eve/checkpoint/00003.frame").write_bytes(b"x")
    return top


def test_braces_that_mean_nothing_are_no_folder(fixtures_dir: Path, tmp_path: Path) -> None:
    done = convert(fixtures_dir / "sample", "--to", "bundle", "-o", tmp_path / "{nam}.h5")
    assert (done.returncode, list(tmp_path.iterdir())) == (2, [])
    assert "found {nam}." in done.stderr


def test_one_that_is_refused_does_not_end_the_others(three: Path, tmp_path: Path) -> None:
    out = tmp_path / "sets" / "{name}.h5"
    done = convert(three, "--to", "bundle", "-o", out, "--json", "--jobs", 2)
    assert "Traceback" not in done.stderr, done.stderr  # which would be exit code 1 as well
    assert done.returncode == 1, done.stderr
    result = json.loads(done.stdout)
    assert not result["ok"]
    assert [(Path(t["track"]).name, t["ok"]) for t in result["tracks"]] == [
        ("ada", True),
        ("bob", True),
        ("eve", False),
    ]
    assert sorted(p.name for p in (tmp_path / "sets").iterdir()) == ["ada.h5", "bob.h5"]
    assert "00003.frame" in done.stderr
    # Again: the outputs exist, and each says so; with --overwrite they are replaced.
    again = convert(three, "--to", "bundle", "-o", out)
    assert again.returncode == 1
    assert again.stderr.count("--overwrite") == 2
    shutil.rmtree(three / "output/eve")
    assert convert(three, "--to", "bundle", "-o", out, "--overwrite").returncode == 0


def test_what_uncrop_wrote_for_a_trainer_is_no_track(three: Path, tmp_path: Path) -> None:
    shutil.rmtree(three / "output/eve")
    nerf = ["--to", "nerfstudio", "-o", three / "sets" / "{name}"]
    assert convert(three, *nerf).returncode == 0
    own = three / "mended/ada"
    made = convert(three / "output/ada", "--to", "metrical_tracker", "-o", own)
    assert made.returncode == 0, made.stderr
    done = convert(three, "--to", "bundle", "-o", tmp_path / "{name}.h5", "--dry-run")
    assert done.returncode == 0, done.stderr
    assert "left out 2 that uncrop wrote for trainers" in done.stdout
    # A track that it wrote is one.
    assert done.stdout.count("dry run") == 3


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["A", "B", "--to", "bundle", "-o", "x"], "put {name} into -o"),
        (["A", "--to", "bundle", "-o", "{name}", "--jobs", "0"], "--jobs: expected 1 or more"),
        (["A", "B", "--to", "bundle", "-o", "{name}", "--fps", "25", "--begin-frames", "1"],
         "--begin-frames belongs to one track"),
        (["--to", "bundle", "-o", "x"], "expected a TRACK"),
    ],
)  # fmt: skip
def test_typing_mistakes(three: Path, arguments: list[str], said: str) -> None:
    tracks = {"A": three / "output/ada", "B": three / "output/bob"}
    done = convert(*(tracks.get(a, a) for a in arguments))
    assert done.returncode == 2, done.stderr
    assert said in done.stderr


def test_outputs_never_share_a_name(tmp_path: Path) -> None:
    paths = ["a/ada", "b/ada", "b/bob", "bundles/eve.h5"]
    (tmp_path / "bundles").mkdir()
    (tmp_path / "bundles/eve.h5").touch()
    places = named_places([Found(tmp_path / p) for p in paths], Path("sets/{name}/x"))
    assert [str(p) for p in places] == [
        "sets/a_ada/x", "sets/b_ada/x", "sets/bob/x", "sets/eve/x",
    ]  # fmt: skip
    with pytest.raises(FormatError, match="a_b_c"):
        named_places(
            [Found(tmp_path / p) for p in ("a/b_c", "a_b/c", "x/b_c", "x/c")], Path("{name}")
        )
