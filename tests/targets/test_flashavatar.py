"""FlashAvatar's folders: right by its own loader's formulas, and the usual mistakes are seen."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from converter import registry
from converter.errors import ConventionError, MissingInputError, TargetError
from converter.geometry.intrinsics import Intrinsics
from converter.media.files import sha256_of
from converter.media.torchfile import read_torch, torch_bytes
from converter.registry import ReadOptions, Written, no_progress
from converter.track import Track
from fixtures.synthetic.flame_head import ResultSpec, write_results
from fixtures.synthetic.track import write_parsing

TARGET = registry.target("flashavatar")


def write(track: Track, out: Path, **options: Any) -> Written:
    return TARGET.write(track, out, TARGET.options(**options), overwrite=False,
                        progress=no_progress)  # fmt: skip


def errors(out: Path) -> set[str]:
    return {f.check for f in TARGET.check(out) if f.severity == "error"}


@pytest.fixture(scope="module")
def dataset(made: tuple[Track, Any], tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("flashavatar") / "out"
    write(made[0], out)
    return out


def picture(path: Path) -> Any:
    """Pixels as they are in the file."""
    return cv2.imread(str(path), cv2.IMREAD_UNCHANGED)


def images(out: Path) -> Path:
    (folder,) = (out / "dataset").iterdir()
    return folder


def checkpoint(out: Path) -> Path:
    (folder,) = (out / "metrical-tracker" / "output").iterdir()
    return folder / "checkpoint"


def frame(out: Path, number: int) -> Any:
    return read_torch(checkpoint(out) / f"{number:05d}.frame").content


def seen_by_flashavatar(out: Path, number: int, points: Any) -> Any:
    """Edge-origin px by the loader's and the renderer's formulas, written out here."""
    first, own = frame(out, 0), frame(out, number)
    orig_w, orig_h = first["img_size"]
    K = first["opencv"]["K"][0].astype(np.float64)
    fov = [2 * np.arctan(orig_w / (2 * K[0, 0])), 2 * np.arctan(orig_h / (2 * K[1, 1]))]
    view = np.eye(4)
    view[:3, :3] = np.transpose(np.transpose(own["opencv"]["R"][0]))
    view[:3, 3] = own["opencv"]["t"][0]
    p = points @ view[:3, :3].T + view[:3, 3]
    ndc = p[:, :2] / p[:, 2:] / np.tan(np.array(fov) / 2)
    height, width = picture(images(out) / f"imgs/{number + 1:05d}.jpg").shape[:2]
    # ndc2Pix counts from the middle of the first pixel.
    return ((ndc + 1) * [width, height] - 1) / 2 + 0.5


@pytest.mark.parametrize(
    "options",
    [{}, {"size": "128"}, {"canvas": "window"}, {"canvas": "window", "size": "512"},
     {"canvas": "padded"}, {"canvas": "full", "max_residual": 5.0}],
    ids=str,
)  # fmt: skip
def test_reprojects_with_an_off_centre_principal_point(
    made: tuple[Track, Any], tmp_path: Path, options: dict[str, Any]
) -> None:
    track, out = made[0], tmp_path / "out"
    written = write(track, out, **options)
    assert errors(out) == set()
    (line,) = [s for s in written.summary if s.startswith("max reprojection difference")]
    assert float(line.split()[3]) <= 0.02
    assert track.meshes is not None
    x = track.meshes.vertices(4).astype(np.float64)
    now = seen_by_flashavatar(out, 4, x)
    manifest = json.loads((out / "uncrop.json").read_text())
    sx, sy, tx, ty = manifest["canvas"]["canvas_from_image"]
    true = track.in_source().project(4, x) * [sx, sy] + [tx, ty]
    apart = np.linalg.norm(now - true, axis=1)
    assert apart.max() < 0.02 if options.get("canvas") != "full" else np.median(apart) < 5
    square = manifest["canvas"]["width"] == manifest["canvas"]["height"] == 512
    assert ("images-not-512" in {f.check for f in written.findings}) == (not square)


def test_a_frame_holds_what_the_loader_takes(dataset: Path, made: tuple[Track, Any]) -> None:
    track = made[0]
    names = sorted(p.name for p in checkpoint(dataset).iterdir())
    assert names == [f"{i:05d}.frame" for i in range(10)]
    assert sorted(p.name for p in (images(dataset) / "imgs").iterdir()) == [
        f"{i:05d}.jpg" for i in range(1, 11)
    ]
    content = frame(dataset, 2)
    shapes = {key: value.shape for key, value in content["flame"].items()}
    assert {k: shapes[k] for k in ("exp", "shape", "eyes", "eyelids", "jaw")} == {
        "exp": (1, 100), "shape": (1, 300), "eyes": (1, 12), "eyelids": (1, 2), "jaw": (1, 6),
    }  # fmt: skip
    assert track.flame.expression is not None
    np.testing.assert_allclose(content["flame"]["exp"][0], track.flame.expression[2], atol=1e-6)
    assert content["opencv"]["K"][0, 0, 2] == content["opencv"]["K"][0, 1, 2] == 256
    # Numbering by content: image 5 is the source frame of .frame 4.
    assert track.source_frames is not None
    manifest = json.loads((dataset / "uncrop.json").read_text())
    sx, sy, tx, ty = manifest["canvas"]["canvas_from_image"]
    written = picture(images(dataset) / "imgs/00005.jpg").astype(float)
    cost = []
    for i in range(10):
        moved = cv2.warpAffine(
            track.source_frames.read(i), np.array([[sx, 0, tx], [0, sy, ty]]), (512, 512)
        )
        cost.append(np.abs(moved[100:400, 100:400] - written[100:400, 100:400]).mean())
    assert int(np.argmin(cost)) == 4


def test_frames_with_gaps_are_counted_without_them(made: tuple[Track, Any], tmp_path: Path) -> None:
    track = replace(made[0], frame_ids=made[0].frame_ids + np.array([0] * 4 + [3] * 6))
    written = write(track, tmp_path / "out")
    assert "frames-renumbered" in {f.check for f in written.findings}
    assert frame(tmp_path / "out", 9)["frame_id"] == "00009"
    manifest = json.loads((tmp_path / "out/uncrop.json").read_text())
    assert manifest["frame_ids"] == [0, 1, 2, 3, 7, 8, 9, 10, 11, 12]


def test_images_of_neighbouring_frames_are_refused(made: tuple[Track, Any], tmp_path: Path) -> None:
    track = made[0]

    class Shifted:
        size, origin = track.source_frames.size, "shifted"  # type: ignore[union-attr]

        def __len__(self) -> int:
            return len(track)

        def name(self, index: int) -> str:
            return str(index)

        def read(self, index: int) -> Any:
            return track.source_frames.read(min(index + 3, 9))  # type: ignore[union-attr]

        def stream(self, indices: Any) -> Any:
            return (self.read(i) for i in indices)

    with pytest.raises(TargetError, match="lie on the tracker's crops"):
        write(replace(track, source_frames=Shifted()), tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


# --- masks ------------------------------------------------------------------------------------

INSTA_LABELS = {250: 1, 80: 17, 110: 14, 90: 16, 0: 0}
MOUTH = np.s_[100:120, 180:200]


def write_masks(folder: Path, truth: Any, style: str, space: str) -> None:
    """Exact masks in each of the styles, with a small mouth at a known place of the image."""
    write_parsing(folder, truth, "insta", space)  # type: ignore[arg-type]
    for path in sorted(folder.glob("*.png")):
        image = picture(path)
        red = image[..., 2]
        labels = np.vectorize(INSTA_LABELS.get)(red).astype(np.uint8)
        labels[MOUTH] = 11
        if style == "labels":
            cv2.imwrite(str(path), labels)
        elif style == "insta":
            image[MOUTH] = (3, 7, 140)
            cv2.imwrite(str(path), image)
        else:
            path.unlink()
            head = ((labels > 0) & (labels != 16)).astype(np.uint8) * 255
            mouth = (labels == 11).astype(np.uint8) * 255
            cv2.imwrite(str(path.with_name(f"{path.stem}_neckhead.png")), head)
            cv2.imwrite(str(path.with_name(f"{path.stem}_mouth.png")), mouth)


@pytest.mark.parametrize(("style", "space"), [
    ("labels", "source"), ("labels", "crop"), ("insta", "source"), ("pairs", "source"),
])  # fmt: skip
def test_masks_move_with_the_images(
    made: tuple[Track, Any], tmp_path: Path, style: str, space: str
) -> None:
    track, truth = made
    write_masks(tmp_path / "masks", truth, style, space)
    names = "image" if space == "source" else "frame"
    out = tmp_path / "out"
    written = write(track, out, parsing=tmp_path / "masks", parsing_names=names)
    assert [m.file for m in written.missing] == ["alpha/"]
    manifest = json.loads((out / "uncrop.json").read_text())
    key = "canvas_from_image" if space == "source" else "canvas_from_crop"
    sx, sy, tx, ty = manifest["canvas"][key]
    head = picture(images(out) / "parsing/00005_neckhead.png")
    mouth = picture(images(out) / "parsing/00005_mouth.png")
    assert head.shape == mouth.shape == (512, 512)
    assert set(np.unique(head)) == {0, 255}
    rows, columns = np.nonzero(mouth)
    box = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
    expected = [180 * sx + tx, 100 * sy + ty, 200 * sx + tx, 120 * sy + ty]
    np.testing.assert_allclose(box, np.clip(expected, 0, 512), atol=1)
    # The head's mask lies on the head: the tracked mesh is nearly all inside.
    assert track.meshes is not None
    seen = seen_by_flashavatar(out, 4, track.meshes.vertices(4).astype(np.float64))
    inside = seen[(seen > 0).all(axis=1) & (seen < 512).all(axis=1)].astype(int)
    assert (head[inside[:, 1], inside[:, 0]] > 0).mean() > 0.9  # cloth hides some
    assert errors(out) == set()


def test_mattes_as_robustvideomatting_names_them_become_alpha(
    made: tuple[Track, Any], tmp_path: Path
) -> None:
    track, truth = made
    write_parsing(tmp_path / "parsing", truth, "insta", "source")
    (tmp_path / "matte").mkdir()
    assert track.source_indices is not None
    stems = {Path(truth.image_names[i]).stem: i for i in range(len(truth.image_names))}
    for path in (tmp_path / "parsing").iterdir():
        person = (picture(path)[..., 2] > 0).astype(np.uint8) * 255
        cv2.imwrite(str(tmp_path / "matte" / f"{stems[path.stem]:04d}.png"), person)
    out = tmp_path / "out"
    write(track, out, matte=tmp_path / "matte")
    alpha = picture(images(out) / "alpha/00005.jpg")
    assert alpha.shape == (512, 512)
    parsed = np.array(picture(tmp_path / "parsing" / f"{_stem(truth, 4)}.png")[..., 2])
    manifest = json.loads((out / "uncrop.json").read_text())
    sx, sy, tx, ty = manifest["canvas"]["canvas_from_image"]
    moved = cv2.warpAffine(
        (parsed > 0).astype(np.float32), np.array([[sx, 0, tx], [0, sy, ty]]), (512, 512)
    )
    assert ((moved > 0.5) == (alpha > 127)).mean() > 0.98


def _stem(truth: Any, position: int) -> str:
    return Path(truth.image_names[truth.image_indices[position]]).stem


def test_what_tells_no_mouth_apart_is_refused(made: tuple[Track, Any], tmp_path: Path) -> None:
    track, truth = made
    write_parsing(tmp_path / "colours", truth, "gaussiantalker", "source")
    with pytest.raises(ConventionError, match="no mouth"):
        write(track, tmp_path / "out", parsing=tmp_path / "colours", parsing_names="image")
    with pytest.raises(MissingInputError, match="what --parsing names"):
        write(track, tmp_path / "out", parsing=tmp_path / "nothing")
    bare = replace(track, flame=replace(track.flame, shape=None))
    with pytest.raises(TargetError, match="FLAME shape"):
        TARGET.require(bare, TARGET.options())


# --- other tracks -----------------------------------------------------------------------------


def test_results_of_flame_head_tracker_become_flashavatars(tmp_path: Path) -> None:
    truth = write_results(tmp_path / "fht", ResultSpec(n_frames=5, lost=(2,)))
    options = ReadOptions(hash_inputs=False, source=truth.source)
    track = registry.read_track(truth.results, options)
    out = tmp_path / "out"
    written = write(track, out)
    said = {f.check for f in written.findings}
    assert {"frames-renumbered", "flame-neutral"} <= said
    assert errors(out) == set()
    points = truth.vertices[3]
    manifest = json.loads((out / "uncrop.json").read_text())
    sx, sy, tx, ty = (np.broadcast_to(v, 4)[3] for v in manifest["canvas"]["canvas_from_image"])
    true = truth.project(3, points) * [sx, sy] + [tx, ty]
    assert np.abs(seen_by_flashavatar(out, 3, points) - true).max() < 0.05
    # The view is the head's, as its tracker saw it, not the whole frame.
    assert np.ptp(true[:, 1]) > 0.4 * 512


def test_fx_and_fy_become_one(made: tuple[Track, Any], tmp_path: Path) -> None:
    track = made[0]
    k = track.intrinsics
    squeezed = replace(track, intrinsics=Intrinsics(k.fx, 1.1 * k.fy, k.cx, k.cy, k.size),
                       crop_frames=None)  # fmt: skip
    write(squeezed, tmp_path / "out")
    assert errors(tmp_path / "out") == set()
    K = frame(tmp_path / "out", 0)["opencv"]["K"][0]
    assert K[0, 0] == K[1, 1]


# --- planted faults ---------------------------------------------------------------------------


def _frames(change: Callable[[Any], None]) -> Callable[[Path], None]:
    def damage(out: Path) -> None:
        for path in checkpoint(out).iterdir():
            content: Any = read_torch(path).content
            change(content)
            path.write_bytes(torch_bytes(content, stem=path.stem, tensors=False))

    return damage


def _flip(content: Any) -> None:
    content["opencv"]["R"] = (np.diag([1, -1, -1]) @ content["opencv"]["R"]).astype(np.float32)
    content["opencv"]["t"] = content["opencv"]["t"] * np.array([1, -1, -1], np.float32)


def _transpose(content: Any) -> None:
    content["opencv"]["R"] = np.ascontiguousarray(np.swapaxes(content["opencv"]["R"], 1, 2))


def _size(content: Any) -> None:
    content["img_size"] = np.array([512, 540], np.int64)


def _shifted(parts: tuple[str, ...]) -> Callable[[Path], None]:
    """Every .frame says what the next one should."""

    def damage(out: Path) -> None:
        contents = [frame(out, i) for i in range(10)]
        for i, content in enumerate(contents[1:] + contents[:1]):
            mixed = {**contents[i], **{part: content[part] for part in parts}}
            path = checkpoint(out) / f"{i:05d}.frame"
            path.write_bytes(torch_bytes(mixed, stem=path.stem, tensors=False))

    return damage


def _images_from_0(out: Path) -> None:
    for path in sorted((images(out) / "imgs").iterdir()):
        path.rename(path.with_name(f"{int(path.stem) - 1:05d}.jpg"))
    manifest = json.loads((out / "uncrop.json").read_text())
    renamed = {n: n for n in manifest["files"]}
    for name in renamed:
        if "/imgs/" in name:
            renamed[name] = f"{Path(name).parent}/{int(Path(name).stem) - 1:05d}.jpg"
    manifest["files"] = {renamed[n]: h for n, h in manifest["files"].items()}
    (out / "uncrop.json").write_text(json.dumps(manifest))


def _stray(out: Path) -> None:
    (checkpoint(out) / "notes.txt").write_text("mine")


def _other_image(out: Path) -> None:
    path = images(out) / "imgs/00004.jpg"
    cv2.imwrite(str(path), picture(path)[:500, :500])


FAULTS: dict[str, tuple[Callable[[Path], None], str]] = {
    "axes flipped": (_frames(_flip), "reprojection"),
    "R transposed": (_frames(_transpose), "reprojection"),
    "cameras shifted": (_shifted(("opencv",)), "reprojection"),
    "expressions shifted": (_shifted(("flame",)), "flame-off"),
    "img_size of another image": (_frames(_size), "reprojection"),
    "images from 0": (_images_from_0, "dataset-unreadable image-unreadable"),
    "a stray file": (_stray, "dataset-unreadable"),
    "an image of another size": (_other_image, "image-size"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_check_sees_the_fault(dataset: Path, tmp_path: Path, fault: str) -> None:
    out = tmp_path / "out"
    shutil.copytree(dataset, out)
    damage, expected = FAULTS[fault]
    damage(out)
    # The hashes are made right again, so that only the contents speak.
    manifest = json.loads((out / "uncrop.json").read_text())
    manifest["files"] = {name: sha256_of(out / name) for name in manifest["files"]}
    (out / "uncrop.json").write_text(json.dumps(manifest))
    assert errors(out) & set(expected.split())
