"""The tracker's images: their sizes, their order, and the depth maps beside them."""

from __future__ import annotations

from collections import Counter

import numpy as np

from converter.errors import UncropError
from converter.findings import Finding, counted
from converter.media.images import read_depth
from converter.validation.checking import check
from converter.validation.evidence import CheckSkipped, Outcome, finding, named
from converter.validation.tracked import Tracked

_DEPTH_LIMIT_M = 0.1
_N_DEPTHS = 3
_SAME_GREY_LEVELS = 3.0


@check("images-sizes")
def images_sizes(track: Tracked) -> Outcome:
    """The tracker's images and its dumps are all of one size."""
    sizes = Counter(track.image_sizes.values())
    if not sizes:
        raise CheckSkipped("there are no images")
    if len(sizes) == 1:
        return Outcome((), len(track.image_sizes))
    usual = track.image_size
    odd = [(path, size) for path, size in track.image_sizes.items() if size != usual]
    path, size = odd[0]
    found = finding("error", path, f"is {size}, while most images are {usual}; {len(odd)} of "
                    f"{len(track.image_sizes)} looked at differ.", len(odd), 0, "images",
                    "Restore the images the tracker was run on.")  # fmt: skip
    return Outcome((found,), len(track.image_sizes))


@check("images-unsquared")
def images_unsquared(track: Tracked) -> Outcome:
    """The images were resized to the tracker's size, and not left as cut."""
    size, bbox = track.image_size, track.bbox
    if size is None or bbox is None:
        raise CheckSkipped("there are no images" if size is None else track.crop_reason)
    if bbox.x_min >= bbox.x_max or bbox.y_min >= bbox.y_max:
        raise CheckSkipped("the numbers of bbox.pt are in another order")
    source = track.source_size
    cut = bbox.clamped(source).size if source else bbox.size
    if size.width == size.height or cut != size:
        return Outcome((), 1)
    wrong = track.stated_size is not None and track.stated_size != size
    found = finding(
        "error" if wrong else "warning", track.folders.inputs,
        f"the images have the size of the bbox, {size}: with an image_size that is not square the "
        "tracker cuts and neither squares nor resizes.",
        fix="uncrop reads them so. Trainers that expect squares need image_size of equal numbers.",
    )  # fmt: skip
    return Outcome((found,), 1)


@check("begin-frames")
def begin_frames(track: Tracked) -> Outcome:
    """begin_frames, where somebody says it, is what the images show."""
    stated, stated_by = track.stated_offset
    if stated is None:
        raise CheckSkipped("neither a yaml nor --begin-frames says begin_frames")
    numbering = track.numbering
    if numbering is None or not numbering.by_content:
        raise CheckSkipped("no image shows which frame is which")
    if numbering.offset == stated:
        return Outcome((), 1)
    fix = "Leave it out" if stated_by == "--begin-frames" else "Mend the yaml"
    found = finding("warning", stated_by, f"says begin_frames {stated}, but the images show "
                    f"{numbering.offset}: frame 00000 is image number {numbering.offset + 1}.",
                    numbering.offset, stated, "images",
                    f"{fix}; uncrop lets the images decide.")  # fmt: skip
    return Outcome((found,), 1)


@check("numbering-unknown")
def numbering_unknown(track: Tracked) -> Outcome:
    """Something shows which image belongs to which frame."""
    numbering = track.numbering
    if numbering is None and track.numbering_error is None:
        found = finding(
            "warning", track.folders.checkpoint, "nothing shows which image belongs to which "
            "frame: there is no output/input, no yaml and no --begin-frames.",
            fix="Give --begin-frames N (the tracker's default is 0, its shipped configs say 1).",
        )  # fmt: skip
        return Outcome((found,), 1)
    if numbering is not None and not numbering.by_content:
        text = f"which image is whose rests on {numbering.evidence}; no image confirms it."
        return Outcome((finding("info", "frame numbering", text),), 1)
    return Outcome((), 1)


@check("images-order")
def images_order(track: Tracked) -> Outcome:
    """Every frame's dump equals the image that the numbering says is its own."""
    if not track.files.dumps or not track.numbers:
        raise CheckSkipped("there is no output/input to compare the images with")
    if not track.files.numbered_images(track.crop).count:
        raise CheckSkipped("there are neither images nor source frames with a bbox")
    numbering = track.numbering
    error = track.numbering_error
    if error is not None:
        return Outcome((Finding.of_error("", error),), 5)
    if numbering is None:
        raise CheckSkipped("nothing shows which image belongs to which frame")
    if not numbering.by_content:
        raise CheckSkipped("no frame has a dump, or the picture is still")
    return _each_dump(track, numbering.offset)


def _each_dump(track: Tracked, offset: int) -> Outcome:
    last = track.numbers[-1] + offset
    n_images = len(track.files.images)
    found: list[Finding] = []
    if track.files.images and not 0 <= track.numbers[0] + offset <= last < n_images:
        found.append(
            finding("error", track.files.images[0].parent, f"holds "
                    f"{counted(n_images, 'image')}; frame {track.numbers[-1]:05d} would be number "
                    f"{last + 1}.", n_images, last + 1, "images",
                    "Is this the actor folder that was tracked, and the whole of it?")
        )  # fmt: skip
    if not track.thorough or not track.files.images:
        return Outcome(tuple(found), 5)
    wrong, n_seen = [], 0
    for number in track.numbers:
        dump, position = track.files.dumps.get(number), number + offset
        if dump is None or not 0 <= position < n_images:
            continue
        n_seen += 1
        if not _equal(track, dump, position):
            wrong.append(number)
    if wrong:
        found.append(
            finding("error", track.files.images[0].parent, f"{len(wrong)} of {n_seen} images are "
                    f"not what the tracker dumped for their frames ({named(wrong)}).", len(wrong),
                    0, "images", "Restore the images as they were tracked.")
        )  # fmt: skip
    return Outcome(tuple(found), n_seen, tuple(wrong))


def _equal(track: Tracked, dump: object, position: int) -> bool:
    try:
        a = track.pictures(dump).astype(np.int16)  # type: ignore[arg-type]
        b = track.pictures(track.files.images[position])
    except UncropError as error:
        track.damaged.setdefault(error.where, error)
        return True
    return a.shape == b.shape and float(np.mean(np.abs(a - b))) <= _SAME_GREY_LEVELS


@check("depth-off")
def depth_off(track: Tracked) -> Outcome:
    """The depth maps show the mesh where the cameras put it."""
    maps = track.files_of("depth", ".png")
    if not maps:
        raise CheckSkipped("there is no depth folder")
    ids = [int(i) for i in track.ids]
    there = [i for i, number in enumerate(ids) if number in maps]
    picked = track.sample(there, _N_DEPTHS)
    found, marked = [], []
    for index in picked:
        wrong = _depth_wrong(track, index, maps[ids[index]])
        if wrong is not None:
            marked.append(ids[index])
            found.append(wrong)
    if len(found) > 3:
        rest = len(found) - 3
        message = f"{rest} more of {len(picked)} maps are wrong."
        where = track.folders.output / "depth"
        found = [*found[:3], finding("error", where, message, len(marked), 0, "maps")]
    return Outcome(tuple(found), len(picked), tuple(marked))


def _depth_wrong(track: Tracked, index: int, path: object) -> Finding | None:
    depth = track.attempt(lambda: read_depth(path, track.options.limits))  # type: ignore[arg-type]
    if depth is None:
        return None
    if depth.dtype != np.uint16 or depth.ndim != 2:
        return finding("error", path, f"is {depth.dtype.name} of {depth.ndim} axes, expected one "
                       "channel of uint16, millimetres.",
                       fix="Track again, or leave it out.")  # fmt: skip
    seen = depth[depth > 0]
    if not len(seen):
        return finding("error", path, "is empty: the mesh was not in the picture.",
                       fix="Track this frame again.")  # fmt: skip
    vertices = track.vertices(index)
    if vertices is None:
        return None
    z = float(np.median(track.track.w2c[index](vertices)[:, 2]))
    off = abs(float(np.median(seen)) / 1000 - z)
    if off <= _DEPTH_LIMIT_M:
        return None
    return finding("error", path, f"has its middle at {np.median(seen) / 1000:.3f} m, the mesh is "
                   f"at {z:.3f} m.", off, _DEPTH_LIMIT_M, "m",
                   "Is it of another run, or in another unit than mm?")  # fmt: skip
