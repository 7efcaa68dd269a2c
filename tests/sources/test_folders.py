"""A track is found from whatever part of it a person points at, or refused in one line."""

from __future__ import annotations

import os
import re
import shutil
from pathlib import Path

import numpy as np
import pytest

import converter
from converter import registry
from converter.errors import FormatError, MissingInputError, UncropError
from converter.media.limits import DEFAULT_LIMITS
from converter.registry import ReadOptions, detect_source
from converter.sources.metrical_tracker.config import read_config
from converter.sources.metrical_tracker.folders import TrackFolders, find_folders
from tests.conftest import MakeTrack
from tests.sources.reading import SMALL, checks, read

BARE = {**SMALL, "n_frames": 2, "pictures": False, "mesh": False, "kpt_dense": False}


def find(path: Path | str, **options: Path) -> TrackFolders:
    assert detect_source(Path(path)).name == "metrical_tracker"
    return find_folders(Path(path), ReadOptions(**options))  # type: ignore[arg-type]


def refused(path: Path, **options: Path) -> str:
    with pytest.raises(UncropError) as caught:
        detect_source(path).read(path, ReadOptions(**options))  # type: ignore[arg-type]
    text = str(caught.value)
    assert len(text.splitlines()) == 1
    return text


@pytest.mark.parametrize("name", ["ada", "Zoë 2 [final] (x)", "a;b $HOME 'q'", "名前"])
@pytest.mark.parametrize(
    "part", ["", "output/{}", "output/{}/checkpoint", "input/{}", "output",
             "output/{}/checkpoint/00001.frame"],
)  # fmt: skip
def test_every_part_leads_to_the_track(own_track: MakeTrack, name: str, part: str) -> None:
    folder, truth = own_track(**BARE)
    os.rename(truth.actor, truth.actor.with_name(name))
    os.rename(truth.output, truth.output.with_name(name))
    truth.yaml.unlink()
    found = find(folder / part.format(name))
    assert found.name == name
    assert os.path.samefile(found.checkpoint, folder / "output" / name / "checkpoint")
    assert found.actor is not None
    assert os.path.samefile(found.actor, folder / "input" / name)
    assert found.bbox is not None


@pytest.mark.parametrize("form", ["output/ada/", "./output/ada", "output/../output/ada", "."])
def test_relative_paths(own_track: MakeTrack, monkeypatch: pytest.MonkeyPatch, form: str) -> None:
    folder, truth = own_track(**BARE)
    monkeypatch.chdir(folder)
    found = find(form)
    assert found.name == "ada"
    assert found.actor is not None
    assert os.path.samefile(found.actor, truth.actor)
    assert (found.actor, found.bbox) == (Path("input/ada"), Path("input/ada/bbox.pt"))


def test_the_checkpoint_folder_itself_as_a_dot(
    own_track: MakeTrack, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, truth = own_track(**BARE)
    monkeypatch.chdir(truth.output / "checkpoint")
    found = find(".")
    assert found.name in ("ada", "checkpoint")
    assert found.actor is not None
    assert os.path.samefile(found.actor, truth.actor)


def test_linked_folders(own_track: MakeTrack, tmp_path: Path) -> None:
    folder, truth = own_track(**BARE)
    far = tmp_path / "disk2" / "store"
    far.parent.mkdir()
    shutil.move(truth.output, far)
    truth.output.symlink_to(far)
    for path in (folder, truth.output):
        found = find(path)
        assert found.name == "ada"
        assert found.actor is not None
        assert os.path.samefile(found.actor, truth.actor)
    (folder / "output" / "loop").symlink_to(folder)
    (folder / "again").symlink_to(truth.output)
    assert find(folder).name in ("ada", "again")


def test_actor_by_the_yaml(own_track: MakeTrack) -> None:
    """The output is named after the yaml, and two actors are there."""
    folder, truth = own_track(**BARE, config_name="run7")
    shutil.copytree(truth.actor, folder / "input" / "run8")
    assert find(folder).actor is not None
    assert find(folder).actor.name == "ada"  # type: ignore[union-attr]
    assert find(truth.actor).checkpoint == folder / "output" / "run7" / "checkpoint"
    truth.yaml.unlink()
    assert find(folder).actor is None
    shutil.rmtree(folder / "input" / "run8")
    assert find(folder).actor == truth.actor


def test_yaml_in_configs(own_track: MakeTrack) -> None:
    folder, truth = own_track(**BARE, config_name="run7", begin_frames=1)
    (folder / "configs" / "actors").mkdir(parents=True)
    truth.yaml.rename(folder / "configs" / "actors" / "run7.yml")
    assert find(truth.output).actor is not None
    assert find(truth.output).config.begin_frames == 1


def test_actor_folder_whose_outputs_are_of_others(own_track: MakeTrack) -> None:
    folder, truth = own_track(**BARE, config_name="run7")
    shutil.copytree(truth.output, folder / "output" / "run9")
    assert find(truth.actor).name == "run7"
    truth.yaml.unlink()
    assert "2: " in refused(truth.actor)


def test_everything_in_one_folder(own_track: MakeTrack) -> None:
    folder, truth = own_track(**BARE)
    flat = folder / "flat"
    shutil.copytree(truth.actor, flat)
    shutil.copytree(truth.output, flat, dirs_exist_ok=True)
    shutil.rmtree(folder / "input")
    shutil.rmtree(folder / "output")
    for path in (flat, flat / "checkpoint", folder):
        assert find(path).actor == flat, path


def test_a_folder_beside_named_source_is_no_actor(own_track: MakeTrack) -> None:
    folder, truth = own_track(**BARE)
    (folder / "images").mkdir()
    (folder / "output" / "source").mkdir()
    for path in (folder, truth.output):
        assert find(path).actor == truth.actor


def test_several_tracks_are_listed(own_track: MakeTrack) -> None:
    folder, truth = own_track(**BARE)
    for n in range(8):
        shutil.copytree(truth.output, folder / "output" / f"b{n}")
    text = refused(folder)
    assert "found 9: output/ada/checkpoint, output/b0/checkpoint" in text
    assert "and 4 more" in text


def test_nothing_there(tmp_path: Path) -> None:
    assert "found a folder without .frame files" in refused(tmp_path)
    (tmp_path / "note.txt").write_text("x")
    assert "found another kind of file" in refused(tmp_path / "note.txt")
    (tmp_path / "output").mkdir()
    assert f"Did you mean {tmp_path}/output?" in refused(tmp_path / "outptu")
    assert f"There is no folder {tmp_path}/no." in refused(tmp_path / "no" / "where")


def test_a_folder_that_is_not_there_is_named_as_it_was_given(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "output").mkdir()
    assert refused(Path("no/where")).endswith("There is no folder no.")
    assert refused(Path("../no/where/at")).endswith("There is no folder ../no/where.")
    assert refused(Path("outptu")).endswith("Did you mean output?")


@pytest.mark.parametrize("name", ["x" * 300, "a\0b", "\udcff\udcfe", "loop"])
def test_impossible_paths(tmp_path: Path, name: str) -> None:
    (tmp_path / "loop").symlink_to("loop")
    assert "expected a track" in refused(tmp_path / name)


@pytest.mark.parametrize("option", ["actor", "source", "bbox"])
def test_wrong_options(make_track: MakeTrack, tmp_path: Path, option: str) -> None:
    folder, _ = make_track(**BARE)
    with pytest.raises(MissingInputError, match=f"what --{option} names, found nothing"):
        read(folder, **{option: tmp_path / "nope"})
    with pytest.raises(UncropError) as caught:
        read(folder, **{option: tmp_path})  # an empty folder
    assert str(tmp_path) in str(caught.value)
    text = tmp_path / "x.txt"
    text.write_text("hello")
    with pytest.raises(UncropError) as caught:
        read(folder, **{option: text})
    assert str(text) in str(caught.value)


@pytest.mark.skipif(os.name != "posix", reason="permissions of POSIX")
@pytest.mark.parametrize(
    ("closed", "said"),
    [
        ("", "found Permission denied"),
        ("output", "without .frame files"),
        ("output/ada/checkpoint", "without .frame files"),
        ("output/ada/checkpoint/00001.frame", r"00001\.frame: .* found Permission denied"),
        ("input/ada/bbox.pt", r"bbox\.pt: .* found Permission denied"),
        ("input/ada/kpt", r"kpt/00001\.npy: .* found Permission denied"),
        ("input/ada", ""),
    ],
)
def test_no_permission_is_one_line(own_track: MakeTrack, closed: str, said: str) -> None:
    folder, _ = own_track(**BARE)
    folder.chmod(0o755)
    (folder / closed).chmod(0)
    was = os.geteuid()
    above = [p for p in folder.parents if p != Path("/") and was == 0]
    modes = [(p, p.stat().st_mode) for p in above]
    try:
        if was == 0:
            for p in above:
                p.chmod(0o755)
            os.seteuid(65534)
            code = Path(converter.__file__).parent
            if not all(os.access(p, os.R_OK, effective_ids=True) for p in (code, np.__file__)):
                pytest.skip("other users cannot read the code itself")
        if said:
            assert re.search(said, refused(folder))
        else:
            assert read(folder).crop is None
    finally:
        os.seteuid(was)
        (folder / closed).chmod(0o755)
        for p, mode in modes:
            p.chmod(mode)


def test_thousands_of_files_are_listed_once(
    own_track: MakeTrack, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, truth = own_track(**BARE)
    for n in range(3000):
        (folder / f"{n:05d}.png").touch()
    listed: list[str] = []
    scandir = os.scandir

    def counted(path: str) -> object:
        listed.append(os.fspath(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", counted)
    assert find(folder).checkpoint == truth.output / "checkpoint"
    assert listed.count(str(folder)) <= 6


def test_a_video_among_several_must_be_named(own_track: MakeTrack) -> None:
    folder, truth = own_track(**BARE)
    for name in ("a.mp4", "b.mov"):
        (truth.actor / name).write_bytes(b"x")
    found = find(folder)
    assert found.source is None
    assert [f.check for f in found.findings] == ["videos"]


def test_unknown_formats_are_named() -> None:
    with pytest.raises(FormatError, match="Did you mean metrical_tracker"):
        registry.source("metrical-traker")
    with pytest.raises(FormatError, match="expected one of"):
        registry.target("nothing-like-it")


# --- the yaml ---------------------------------------------------------------------------------

MERGE_BOMB = "a0: &a0 {x: 1}\n" + "".join(
    f"a{n}: &a{n} {{<<: [{', '.join([f'*a{n - 1}'] * 9)}]}}\n" for n in range(1, 30)
)
ALIAS_BOMB = "a0: &a0 [x]\n" + "".join(
    f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]\n" for n in range(1, 30)
)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (MERGE_BOMB, set()),
        (ALIAS_BOMB, set()),
        ("a: &a [*a]", {"yaml-unreadable"}),
        ("[" * 30_000, {"yaml-unreadable"}),
        ("x: " + "1" * 70_000, {"yaml-unreadable"}),
        ("begin_frames: " + "9" * 6000, {"yaml-setting"}),
        ("begin_frames: 0x" + "f" * 6000, {"yaml-setting"}),
        ("actor: !!python/object/apply:os.system ['echo pwned']", {"yaml-setting"}),
        ("!!python/object/apply:os.system ['echo pwned']", {"yaml-unreadable"}),
        ("begin_frames: !!timestamp x", {"yaml-setting"}),
        ("begin_frames: !!int ''", {"yaml-setting"}),
        ("begin_frames: true\nfps: yes\ncrop_image: 7", {"yaml-setting"}),
        ("begin_frames: -1\nfps: .inf", {"yaml-setting"}),
        ("begin_frames: 1.5\nfps: .nan", {"yaml-setting"}),
        ("begin_frames: [1]\nfps: {a: 1}\nactor: [x]", {"yaml-setting"}),
        ("actor: 'a\\0b'\nfps: 0", {"yaml-setting"}),
        ("? [1, 2]\n: 3", {"yaml-unreadable"}),
        ("- a\n- b", {"yaml-unreadable"}),
        ("", set()),
        (b"\xff\xfe\x00x", {"yaml-unreadable"}),
        (b"a: \x07", {"yaml-unreadable"}),
        ("a: 'unclosed", {"yaml-unreadable"}),
        ("a: *nothing", {"yaml-unreadable"}),
    ],
)
def test_hostile_yaml(tmp_path: Path, text: str | bytes, expected: set[str]) -> None:
    path = tmp_path / "ada.yml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    config = read_config(path, DEFAULT_LIMITS)
    assert (config.begin_frames, config.fps, config.crop_image) == (None, None, None)
    assert {f.check for f in config.findings} == expected
    assert all(len(str(f)) < 400 for f in config.findings)


def test_a_tame_yaml(tmp_path: Path) -> None:
    path = tmp_path / "ada.yml"
    path.write_text("actor: './input/ada'\nbegin_frames: 1\nfps: 29.97\ncrop_image: False\n")
    config = read_config(path, DEFAULT_LIMITS)
    assert (config.actor, config.begin_frames) == ("./input/ada", 1)
    assert (config.fps, config.crop_image) == (29.97, False)
    assert config.findings == ()


def test_a_broken_yaml_is_ignored_and_named(own_track: MakeTrack) -> None:
    folder, truth = own_track(**BARE)
    truth.yaml.write_text("a: 'unclosed")
    track = read(folder)
    assert "yaml-unreadable" in checks(track)
