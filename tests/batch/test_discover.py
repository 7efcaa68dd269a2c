"""Every track below a folder is found once, whatever the layout; what was not searched is said."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from converter.batch.discover import Discovery, Found, discover
from converter.errors import MissingInputError
from converter.media.manifest import MANIFEST


def touch(top: Path, *names: str) -> None:
    for name in names:
        path = top / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()


def found(top: Path, **bounds: int) -> list[str]:
    return [str(f.path.relative_to(top)) for f in discover(top, **bounds).found]


def test_the_trackers_own_tree(tmp_path: Path) -> None:
    for name in ("ada", "bob"):
        touch(tmp_path, f"input/{name}/bbox.pt", f"input/{name}/images/00001.png")
        touch(tmp_path, f"output/{name}/checkpoint/00000.frame", f"output/{name}/mesh/00000.ply")
    assert found(tmp_path) == ["output/ada", "output/bob"]


def test_many_actors_each_with_a_tree_of_its_own(tmp_path: Path) -> None:
    for name in ("ada", "bob"):
        touch(tmp_path, f"{name}/input/{name}/bbox.pt", f"{name}/output/{name}/checkpoint/0.frame")
    assert found(tmp_path) == ["ada/output/ada", "bob/output/bob"]


def test_tracks_inside_an_actor_folder_belong_to_it(tmp_path: Path) -> None:
    touch(tmp_path, "ada/bbox.pt", "ada/run1/checkpoint/0.frame", "ada/run2/checkpoint/0.frame")
    touch(tmp_path, "ada/images/track.h5", "bob/kpt/0.npy", "bob/a/b/0.frame", "eve/track.h5")
    ada, bob = tmp_path / "ada", tmp_path / "bob"
    assert discover(tmp_path).found == [
        Found(ada / "run1", ada),
        Found(ada / "run2", ada),
        Found(bob / "a" / "b", bob),
        Found(tmp_path / "eve" / "track.h5"),
    ]


def test_bare_frames_bundles_and_datasets(tmp_path: Path) -> None:
    touch(tmp_path, "bare/00000.frame", "b/track.h5", "b/UPPER.HDF5", "b/.hidden.h5")
    touch(tmp_path, f"set/{MANIFEST}", "set/track.h5", "set/ori_imgs/0.jpg", "notes.txt")
    assert found(tmp_path) == ["b/UPPER.HDF5", "b/track.h5", "bare", "set"]


def test_a_run_without_a_frame_is_found_too(tmp_path: Path) -> None:
    touch(tmp_path, "output/ada/checkpoint/0.frame")
    (tmp_path / "output/bob/checkpoint").mkdir(parents=True)
    assert found(tmp_path) == ["output/ada", "output/bob"]


def test_one_track_is_what_the_user_named(tmp_path: Path) -> None:
    touch(tmp_path, "input/ada/bbox.pt", "output/ada/checkpoint/0.frame")
    assert found(tmp_path) == ["."]
    assert found(tmp_path / "input/ada") == ["."]
    assert discover(tmp_path / "output/ada/checkpoint/0.frame").found == [
        Found(tmp_path / "output/ada/checkpoint/0.frame")
    ]
    with pytest.raises(MissingInputError):
        discover(tmp_path / "nowhere")


def test_one_track_deep_inside_its_actor_folder_keeps_it(tmp_path: Path) -> None:
    touch(tmp_path, "ada/bbox.pt", "ada/a/b/c/checkpoint/0.frame")
    assert discover(tmp_path).found == [Found(tmp_path / "ada/a/b/c", tmp_path / "ada")]


def test_links_are_followed_once(tmp_path: Path) -> None:
    touch(tmp_path, "real/ada/checkpoint/0.frame", "real/bob/checkpoint/0.frame")
    (tmp_path / "real/ada/up").symlink_to(tmp_path)
    (tmp_path / "real/self").symlink_to(tmp_path / "real")
    (tmp_path / "broken").symlink_to(tmp_path / "nowhere")
    assert found(tmp_path) == ["real/ada", "real/bob"]
    (tmp_path / "links").mkdir()
    for name in ("ada", "bob"):
        (tmp_path / "links" / name).symlink_to(tmp_path / "real" / name)
    assert found(tmp_path / "links") == ["ada", "bob"]


@pytest.mark.parametrize("bounds", [{"max_depth": 3}, {"max_folders": 4}])
def test_a_bound_that_is_met_is_said(tmp_path: Path, bounds: dict[str, int]) -> None:
    touch(tmp_path, "a/checkpoint/0.frame", "b/checkpoint/0.frame", "c/d/e/f/checkpoint/0.frame")
    result = discover(tmp_path, **bounds)
    assert "the search ends there" in result.unsearched[0]
    assert tmp_path / "c/d/e/f" not in [f.path for f in result.found]
    everything = discover(tmp_path)
    assert tmp_path / "c/d/e/f" in [f.path for f in everything.found]
    assert everything.unsearched == []


@pytest.mark.skipif(os.geteuid() == 0, reason="root may list every folder")
def test_a_folder_that_may_not_be_listed_is_said(tmp_path: Path) -> None:
    touch(tmp_path, "a/checkpoint/0.frame", "b/checkpoint/0.frame", "shut/checkpoint/0.frame")
    (tmp_path / "shut").chmod(0)
    result: Discovery = discover(tmp_path)
    (tmp_path / "shut").chmod(0o755)
    assert len(result.found) == 2
    assert "shut" in result.unsearched[0]


def test_results_of_another_tracker_are_found(fixtures_dir: Path, tmp_path: Path) -> None:
    results = fixtures_dir / "flame_head_tracker"
    inner = sorted(p for p in results.rglob("*") if p.suffix in (".npz", ".npy"))
    assert {f.path for f in discover(results).found} == {p.parent for p in inner}
    # Numbered arrays alone are no track: landmarks that lie about, say.
    touch(tmp_path, "notes/0.npy", "notes/1.npy", "a/checkpoint/0.frame", "b/checkpoint/0.frame")
    assert found(tmp_path) == ["a", "b"]
