"""The command line as a user meets it: help, typing mistakes, exit codes, JSON, interruption."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from converter import registry
from converter.cli.arguments import _texts
from converter.cli.convert import ConvertArguments
from converter.cli.main import VERBS, main
from converter.cli.recover_bbox import RecoverArguments

UNCROP = [sys.executable, "-m", "converter.cli.main"]


def run(*arguments: str, **more: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*UNCROP, *arguments], capture_output=True, text=True, timeout=120, check=False, **more
    )  # type: ignore[call-overload,no-any-return]


@pytest.fixture
def sample(fixtures_dir: Path) -> str:
    return str(fixtures_dir / "sample")


def test_help_names_every_verb_and_target() -> None:
    assert "convert" in run("--help").stdout
    assert run().returncode == 2
    shared = run("convert", "--help").stdout
    assert "gaussiantalker" in shared
    assert "bundle" in shared
    assert "--canvas" in run("convert", "--to", "gaussiantalker", "--help").stdout
    assert "--with-images" in run("convert", "--to=bundle", "--help").stdout


VERB_HELPS = [[verb] for verb in VERBS]
TARGET_HELPS = [["convert", "--to", name] for name in registry.names("targets")]


@pytest.mark.parametrize("words", [*VERB_HELPS, *TARGET_HELPS], ids=" ".join)
def test_help_says_nothing_that_only_programmers_read(
    words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as left:
        main([*words, "--help"])
    assert left.value.code == 0
    text = capsys.readouterr().out
    for noise in ("default: None", "default: False", "default: )", "`"):
        assert noise not in text
    lines = [line.strip("│| ") for line in text.splitlines()]
    starts = [i for i, line in enumerate(lines) if re.match("--?[a-z]", line)]
    options = [" ".join(lines[i:j]) for i, j in zip(starts, [*starts[1:], None], strict=True)]
    required = ["(required)" in option for option in options if not option.startswith("-h")]
    assert sum(required) == {"convert": 2, "fit": 1}.get(words[0], 0)
    assert required == sorted(required, reverse=True)


def test_help_breaks_lines_where_the_window_ends_or_a_sentence() -> None:
    (tracks,) = _texts(RecoverArguments)["tracks"].splitlines()
    assert tracks.endswith("or folders to search for tracks.")
    first, second = _texts(ConvertArguments)["out"].splitlines()
    assert first.endswith("(with --overwrite).")
    assert second == "{name} in it stands for the name of each track."


@pytest.mark.parametrize("arguments", [["--help"], ["--to", "gaussiantalker", "--help"]])
def test_help_imports_nothing_heavy(arguments: list[str]) -> None:
    code = (
        "import sys\nfrom converter.cli.main import main\n"
        f"try:\n    main(['convert', *{arguments!r}])\n"
        "except SystemExit:\n    pass\n"
        "heavy = {'numpy', 'torch', 'cv2', 'h5py', 'av', 'scipy', 'trimesh', 'PIL', 'rich'}\n"
        "heavy &= set(sys.modules)\n"
        "sys.exit(f'imported {heavy}' if heavy else 0)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["conver"], 2, "there is no verb conver. Did you mean convert?"),
        (["recover_bbox"], 2, "there is no verb recover_bbox. Did you mean recover-bbox?"),
        (["zzz"], 2, "there is no verb zzz.\n"),
        (
            ["convert", "TRACK", "--to", "gausiantalker", "-o", "x"],
            2,
            "Did you mean gaussiantalker",
        ),
        (["convert", "TRACK", "--to", "gausian", "-o", "x"], 2, "Did you mean gaussiantalker?"),
        (["convert", "TRACK", "--to", "er_nerf", "-o", "x"], 2, "Did you mean gaussiantalker?"),
        (["convert", "TRACK", "--to", "imavatar", "-o", "x"], 2, "Did you mean flame_params?"),
        (["convert", "TRACK", "--to", "gaussiantalker"], 2, "--out"),
        (
            ["convert", "TRACK", "--to", "gaussiantalker", "-o", "x", "--canvs", "crop"],
            2,
            "--canvas",
        ),
        (["convert", "TRACK", "--to", "bundle", "-o", "x", "--canvas", "crop"], 2, "--canvas"),
        (["convert", "/nowhere/at all", "--to", "bundle", "-o", "x"], 3, "/nowhere/at all"),
        (["convert", "TRACK", "--to", "gaussiantalker", "-o", "x", "--size", "511"], 2, "--size"),
        (["convert", "TRACK", "--to", "gaussiantalker", "-o", "x", "--scale", "0"], 2, "--scale"),
        (["convert", "TRACK", "--to", "insta", "-o", "x", "--size", "13"], 2, "64 to 4096 px"),
        (["convert", "TRACK", "--to", "insta", "-o", "x", "--test", "0"], 2, "--test"),
        (["convert", "TRACK", "--to", "flashavatar", "-o", "x", "--quality", "0"], 2, "--quality"),
        (["convert", "TRACK", "--to", "insta", "-o", "x", "--matte", "no"], 3, "what --matte"),
        (
            ["convert", "TRACK", "--to", "nerfstudio", "-o", "x", "--canvas", "window"],
            2,
            "use --space instead. See convert --to nerfstudio --help",
        ),
        (
            ["convert", "TRACK", "--to", "flashavatar", "-o", "x", "--space=crop"],
            2,
            "use --canvas instead. See convert --to flashavatar --help",
        ),
        (
            ["convert", "TRACK", "--to", "colmap", "-o", "x", "--flavour", "vhap"],
            2,
            "--flavour: is an option of flame_params, gaussianavatars, not of colmap",
        ),
        (
            [
                "convert",
                "TRACK",
                "--to",
                "gaussiantalker",
                "-o",
                "x",
                "--canvas",
                "window",
                "--size",
                "4000x4000",
            ],
            3,
            "at most 50% lies outside",
        ),
        (["convert", "TRACK", "--to", "gaussiantalker", "-o", "x", "--bbox", "no.pt"], 3, "no.pt"),
        (["inspect", "/nowhere"], 3, "/nowhere"),
    ],
)
def test_typing_mistakes(
    sample: str, tmp_path: Path, arguments: list[str], code: int, said: str
) -> None:
    done = run(*(sample if a == "TRACK" else a for a in arguments), cwd=tmp_path)
    assert done.returncode == code, done.stderr
    assert said in done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_json_is_one_object_also_for_errors(sample: str, tmp_path: Path) -> None:
    out = tmp_path / "track.h5"
    done = run("convert", sample, "--to", "bundle", "-o", str(out), "--json")
    answer = json.loads(done.stdout)
    assert answer["ok"] is True
    assert answer["out"] == str(out)
    assert answer["n_frames"] > 0
    done = run("convert", sample, "--to", "bundle", "-o", str(out), "--json")
    assert done.returncode == 3
    answer = json.loads(done.stdout)
    assert answer["ok"] is False
    assert "--overwrite" in answer["remedy"]


def test_quiet_prints_nothing_on_success(sample: str, tmp_path: Path) -> None:
    done = run("convert", sample, "--to", "bundle", "-o", str(tmp_path / "t.h5"), "--quiet")
    assert done.returncode == 0
    assert done.stdout == ""


def test_dry_run_writes_nothing(sample: str, tmp_path: Path) -> None:
    done = run("convert", sample, "--to", "gaussiantalker", "-o", "x", "--dry-run", cwd=tmp_path)
    assert done.returncode == 0
    assert list(tmp_path.iterdir()) == []


def test_dry_run_looks_at_the_place(sample: str, tmp_path: Path) -> None:
    """It refuses what the run itself would refuse, before any work."""
    (tmp_path / "x").mkdir()
    arguments = ["convert", sample, "--to", "gaussiantalker", "-o", "x", "--dry-run"]
    assert run(*arguments, cwd=tmp_path).returncode == 0  # an empty folder may be filled
    (tmp_path / "x" / "thesis.tex").write_text("mine")
    done = run(*arguments, cwd=tmp_path)
    assert done.returncode == 3
    assert "add --overwrite" in done.stderr
    assert "thesis.tex" in run(*arguments, "--overwrite", cwd=tmp_path).stderr


def test_inspect_gives_programs_numbers(
    sample: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["inspect", sample, "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)["facts"]
    assert facts["frames"]["n"] == 36
    assert facts["intrinsics"]["source"]["width"] == 1280
    crop, source = facts["intrinsics"]["crop"], facts["intrinsics"]["source"]
    box, scale = facts["crop"]["bbox"], facts["crop"]["scale_x"]
    assert source["fx_px"] == pytest.approx(crop["fx_px"] / scale)
    assert source["cx_px"] == pytest.approx(crop["cx_px"] / scale + box["x_min"])
    assert facts["landmarks"] == {"n_points": 68, "n_frames": 35}
    assert facts["pose"]["yaw_deg"][0] < facts["pose"]["yaw_deg"][1]
    assert main(["inspect", f"{sample}/input/ada/bbox.pt", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["facts"]["bbox"] == box


def test_a_bundle_with_images_is_enough(sample: str, tmp_path: Path) -> None:
    """The same dataset comes from the bundle alone as from the track."""
    direct, bundle, through = tmp_path / "direct", tmp_path / "t.h5", tmp_path / "through"
    assert main(["convert", sample, "--to", "gaussiantalker", "-o", str(direct)]) == 0
    assert main(["convert", sample, "--to", "bundle", "-o", str(bundle), "--with-images"]) == 0
    assert main(["convert", str(bundle), "--to", "gaussiantalker", "-o", str(through)]) == 0
    for path in direct.rglob("*"):
        if path.is_file() and path.name not in ("track.h5", "uncrop.json"):
            assert path.read_bytes() == (through / path.relative_to(direct)).read_bytes(), path.name


def test_a_bundle_without_images_says_what_it_lacks(sample: str, tmp_path: Path) -> None:
    bundle = tmp_path / "t.h5"
    assert main(["convert", sample, "--to", "bundle", "-o", str(bundle)]) == 0
    done = run("convert", str(bundle), "--to", "gaussiantalker", "-o", str(tmp_path / "out"))
    assert done.returncode == 3
    assert "--source" in done.stderr
    video = Path(sample) / "input" / "ada" / "video.mp4"
    done = run(
        "convert", str(bundle), "--to", "gaussiantalker", "-o", str(tmp_path / "out"),
        "--source", str(video),
    )  # fmt: skip
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("what", ["track", "frame", "bbox", "bundle", "dataset"])
def test_inspect_reads_whatever_a_person_has(
    sample: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], what: str
) -> None:
    paths = {
        "track": Path(sample),
        "frame": Path(sample) / "output" / "ada" / "checkpoint" / "00003.frame",
        "bbox": Path(sample) / "input" / "ada" / "bbox.pt",
    }
    if what == "bundle":
        paths[what] = tmp_path / "t.h5"
        main(["convert", sample, "--to", "bundle", "-o", str(paths[what])])
    if what == "dataset":
        paths[what] = tmp_path / "out"
        main(["convert", sample, "--to", "gaussiantalker", "-o", str(paths[what])])
    capsys.readouterr()
    assert main(["inspect", str(paths[what]), "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)["facts"]
    assert facts


def test_a_changed_dataset_is_a_finding(sample: str, tmp_path: Path) -> None:
    out = tmp_path / "out"
    main(["convert", sample, "--to", "gaussiantalker", "-o", str(out), "--canvas", "crop"])
    (out / "ori_imgs" / "2.jpg").unlink()
    done = run("inspect", str(out))
    assert done.returncode == 1
    assert "2.jpg" in done.stderr


@pytest.mark.parametrize("kind", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_a_kill_leaves_the_old_output_or_none(
    sample: str, tmp_path: Path, kind: signal.Signals
) -> None:
    out = tmp_path / "out"
    command = [*UNCROP, "convert", sample, "--to", "gaussiantalker", "-o", str(out), "--overwrite"]
    whole: dict[str, bytes] | None = None
    for delay in (0.5, 0.9, 1.3):
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        time.sleep(delay)
        process.send_signal(kind)
        code = process.wait(60)
        if out.exists():
            assert main(["inspect", str(out)]) == 0
        else:
            assert code != 0
        if kind != signal.SIGKILL:
            assert {p.name for p in tmp_path.iterdir()} <= {"out"}
        if whole is None:
            assert subprocess.run([*command, "--quiet"], check=False).returncode == 0
            whole = {str(p): p.read_bytes() for p in out.rglob("*") if p.is_file()}
        assert {str(p): p.read_bytes() for p in out.rglob("*") if p.is_file()} == whole
    assert subprocess.run([*command, "--quiet"], check=False).returncode == 0
    assert {p.name for p in tmp_path.iterdir()} == {"out"}


def test_the_reader_of_a_pipe_may_go_away(sample: str) -> None:
    done = subprocess.run(
        f"{sys.executable} -m converter.cli.main inspect {sample} | head -1",
        shell=True, capture_output=True, text=True, check=False,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
    )  # fmt: skip
    assert "Traceback" not in done.stderr
    assert "BrokenPipe" not in done.stderr
