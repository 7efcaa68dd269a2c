"""Every check: its id, what it establishes, and where that is specified.

`uncrop validate --explain ID` prints an entry; docs/checks/ID.md is one (`page` makes it, and a
test keeps both in step).
"""

from __future__ import annotations

import difflib
from dataclasses import dataclass

from converter.errors import FormatError
from converter.validation.report import Kind

_TRACK: tuple[Kind, ...] = ("track",)
_RECORD: tuple[Kind, ...] = ("track", "bundle")


@dataclass(frozen=True, slots=True)
class CheckInfo:
    """One check.

    Attributes
    ----------
    id
        Its stable id.
    title
        What holds when it passes, as a clause.
    explanation
        One paragraph: what is compared, within which limit, what it means, what to do.
    spec
        Where the fact comes from.
    kinds
        What it is run on.

    """

    id: str
    title: str
    explanation: str
    spec: str
    kinds: tuple[Kind, ...] = _TRACK


_MT = "metrical-tracker, defect"

CATALOGUE: tuple[CheckInfo, ...] = (
    CheckInfo(
        "unreadable",
        "there is something to validate",
        "What was named is no track, no bundle and no dataset that uncrop wrote, or it is so "
        "damaged that nothing of it can be read. The message says what was expected. Name the "
        "folder that holds checkpoint/, or a parent of it.",
        "reliability, promise 3",
        ("unreadable",),
    ),
    CheckInfo(
        "worker-died",
        "the process that validates a track lives to the end",
        "The process that was validating this track ended without an answer: the system killed it "
        "(out of memory is the usual reason), or a library that decodes images or video crashed. "
        "Other tracks are not affected. Validate it again alone, with --jobs 1; with --resume, "
        "tracks of this kind are tried again.",
        "reliability, promise 2",
        ("unreadable",),
    ),
    CheckInfo(
        "internal-error",
        "uncrop itself does not fail",
        "A check raised something that it should not, whatever the track holds. The message names "
        "the line of uncrop's source. Other tracks are not affected. This is a defect of uncrop: "
        "please report it with the message.",
        "reliability, promise 3",
        ("unreadable",),
    ),
    CheckInfo(
        "reading",
        "the record can be read without repair",
        "Everything that the reader of this format repaired, left out or doubted, as it would "
        "while converting.",
        "design, Errors",
        ("bundle",),
    ),
    CheckInfo(
        "folders",
        "the parts of the track were found without doubt",
        "The yaml can be read, its settings make sense, and there is one video. A doubtful part is "
        "left out; name it with --actor, --source or --bbox.",
        "metrical-tracker, 1",
    ),
    CheckInfo(
        "frames-damaged",
        "every .frame can be read",
        "Every .frame is read whole: archive, checksums, pickle stream, shapes of all arrays. A "
        "file that is cut short, damaged, or of another program is named; the others are "
        "checked all the same. Copy or track these frames again.",
        f"{_MT} 2",
    ),
    CheckInfo(
        "frames-unsafe",
        "no .frame asks for code or for endless memory",
        "A .frame is a pickle, and opening a stranger's pickle runs what it says. uncrop never "
        "does; this file asks for something that no data file needs. Do not open it with "
        "torch.load or pickle.",
        f"{_MT} 2; reliability 1.1",
    ),
    CheckInfo(
        "frames-stray",
        "checkpoint/ holds one file per frame and nothing else",
        "Files like 'copy of 00003.frame' or 3.frame beside 00003.frame. FlashAvatar counts every "
        "file of the folder, and two files of one number contradict each other.",
        f"{_MT} 1",
    ),
    CheckInfo(
        "frames-missing",
        "the frames are numbered from 0 without a gap",
        "INSTA indexes its frames by number and fails at the first gap; uncrop's targets leave "
        "missing frames out of every file alike, and keep the images and times of the others.",
        f"{_MT} 1",
        _RECORD,
    ),
    CheckInfo(
        "files-missing",
        "every frame has its mesh, depth map, dump and landmarks",
        "Where some frames have a mesh, depth map, dumped image or landmark file, all should. "
        "Missing meshes are an error, for neither INSTA nor GaussianTalker can do without.",
        f"{_MT} 1",
    ),
    CheckInfo(
        "files-extra",
        "no mesh or depth map is without its frame",
        "Meshes or depth maps whose number no .frame has: what is left of frames that were "
        "removed, or of another run in the same folder.",
        f"{_MT} 1",
    ),
    CheckInfo(
        "dumps-stray",
        "output/input holds images of tracked frames only",
        "Camera initialisation writes its keyframe as input/00101.png, 00201.png up to 00901.png. "
        "In a track that is shorter they stay, and INSTA copies the whole folder. Delete them; "
        "uncrop ignores them.",
        f"{_MT} 19",
    ),
    CheckInfo(
        "frames-renamed",
        "file name, frame_id and archive name agree",
        "A .frame knows its number twice: as frame_id, and as the folder inside its archive. Where "
        "frame_id differs from the file's name the file was renamed, and its camera belongs to "
        "another image (error). Where only the archive's name differs, a script renumbered the "
        "track (warning).",
        f"{_MT} 10b",
    ),
    CheckInfo(
        "frames-leftover",
        "no frame is left over from initialisation",
        "Initialisation fits keyframes and writes them as the first frames; tracking overwrites "
        "them. After a run that was interrupted they may stay, and hold the camera of another "
        "image. global_step tells: it counts optimiser steps, and a keyframe's is a multiple of a "
        "pass. --fix leaves them out.",
        f"{_MT} 17",
    ),
    CheckInfo(
        "steps-irregular",
        "global_step grows evenly",
        "A frame that took twice the usual steps is where tracking was resumed (info). Any other "
        "change means other settings, or frames of two runs in one folder (warning).",
        f"{_MT} 17",
    ),
    CheckInfo(
        "path-trap",
        "the tracker found its own folders",
        "The tracker makes paths by replacing the texts 'source', 'png' and 'jpg' anywhere in "
        "them. An actor folder below .../resources/... sends its landmarks to .../rekpts/... . "
        "Found where kpt/ or images/ is missing beside source/ and the path holds such a text.",
        f"{_MT} 21",
    ),
    CheckInfo(
        "numbers-nonfinite",
        "all numbers are finite",
        "NaN, infinity, or numbers beyond 1e9 in any block. The tracker keeps its previous best on "
        "a bad step and never writes these, so the damage came later.",
        f"{_MT} 3",
    ),
    CheckInfo(
        "flame-partial",
        "every FLAME block is in all frames alike",
        "A block that some frames lack, or that has several lengths, means that frames of two "
        "writers were mixed.",
        f"{_MT} 9",
    ),
    CheckInfo(
        "camera-varies",
        "focal length and principal point are the same in all frames",
        "The tracker optimises them once, so they are bit-identical in every frame. Any difference "
        "beyond rounding (1e-6 relative) is a focal length that drifts, two runs in one folder, or "
        "frames left over from initialisation. Trainers that hold one K take the first frame's.",
        f"{_MT} 9",
    ),
    CheckInfo(
        "shape-varies",
        "shape and texture are the same in all frames",
        "As for the camera: bit-identical in a genuine track. Other shapes mean other heads, so "
        "two runs were mixed.",
        f"{_MT} 9",
    ),
    CheckInfo(
        "K-naive",
        "no bbox was added to the principal point without rescaling",
        "A formula in circulation moves K to the source frame by adding the bbox's corner to the "
        "principal point and leaves the focal length alone. It is wrong by hundreds of pixels "
        "wherever the crop was resized. Recognised because K minus the camera block's K is "
        "(0, 0, x_min, y_min) within 0.05 px; in forks without that block, because the landmarks "
        "fit once the bbox is taken off. --fix restores K.",
        f"{_MT} 4; geometry, 'A formula in circulation'",
    ),
    CheckInfo(
        "K-source",
        "K is not already that of the source frame",
        "K was mapped to source resolution (rightly, with the bbox), while images and img_size are "
        "the crop's. Applying the bbox once more would be wrong. Recognised because it is the "
        "camera block's K mapped by the bbox within 0.05 px, or by img_size, or by landmarks. "
        "--fix maps it back.",
        f"{_MT} 4",
    ),
    CheckInfo(
        "K-scaled",
        "K was not scaled to another resolution",
        "fx, fy, cx and cy carry one common factor: K was resized with images that are not these.",
        f"{_MT} 4",
    ),
    CheckInfo(
        "K-swapped",
        "K was not computed with height and width swapped",
        "img_size is (height, width), and two readers in circulation take it the other way round. "
        "Of square images the swap is harmless and cannot be seen. --fix restores K.",
        f"{_MT} 5",
    ),
    CheckInfo(
        "K-transposed",
        "K is not transposed",
        "The principal point stands in the last row. The tracker pickles K in Fortran order; a "
        "reader that takes the bytes in C order gets it turned. --fix turns it back.",
        f"{_MT} 6",
    ),
    CheckInfo(
        "K-malformed",
        "K has the form of a pinhole",
        "No skew and a last row (0, 0, 1) within 1e-6, positive focal lengths, and fx equal to fy "
        "to the bit, as the tracker writes them.",
        f"{_MT} 6",
    ),
    CheckInfo(
        "K-differs",
        "K is what the camera block says",
        "K follows from the camera block: fl s, w/2 - pp_x s, h/2 - pp_y s with s = min(h, w)/2. "
        "Genuine files agree within 1.2e-4 px; more than 0.01 px, and no known rewrite explains "
        "it: one of the two was edited.",
        f"{_MT} 4; geometry",
    ),
    CheckInfo(
        "img-size-swapped",
        "img_size is (height, width)",
        "img_size of an image that is not square is stored the wrong way round. --fix turns it.",
        f"{_MT} 5",
    ),
    CheckInfo(
        "img-size-differs",
        "img_size is the size of the images",
        "By the headers of the images, exact. Otherwise K belongs to images of another resolution.",
        f"{_MT} 5",
    ),
    CheckInfo(
        "images-sizes",
        "all images have one size",
        "Headers of images/ and output/input, a sample of them (all with --thorough).",
        f"{_MT} 5",
    ),
    CheckInfo(
        "images-unsquared",
        "the images were resized to the tracker's size",
        "With an image_size that is not square, the tracker cuts by the bbox and neither squares "
        "nor resizes: the images have the box's size.",
        f"{_MT} 18",
    ),
    CheckInfo(
        "rotation-invalid",
        "every R is a rotation",
        "|R R^T - I| is at most 1e-4 (genuine files: 5e-6) and det R > 0. A mirrored R means that "
        "a script flipped one axis.",
        f"{_MT} 7",
        _RECORD,
    ),
    CheckInfo(
        "rotation-transposed",
        "R is not transposed",
        "R equals the transpose of what the camera block says: camera to world in place of world "
        "to camera, or 6D numbers stacked as columns. --fix turns it.",
        f"{_MT} 8; targets 0.1",
    ),
    CheckInfo(
        "pose-axes",
        "the pose is in OpenCV's convention, world to camera",
        "R and t are the camera block's pose as another program writes it: camera to world, OpenGL "
        "axes, pytorch3d axes, row vectors. --fix takes the camera block's.",
        f"{_MT} 8",
    ),
    CheckInfo(
        "pose-differs",
        "both blocks of a frame describe one pose",
        "opencv.R = D M^T and opencv.t = D camera.t with D = diag(-1, -1, 1); within 1e-4 and "
        "1e-5 m. Otherwise one of the two was edited after tracking.",
        f"{_MT} 8; geometry",
    ),
    CheckInfo(
        "camera-block",
        "every frame has the tracker's own camera block",
        "It is the evidence that tells rewritten cameras from genuine ones. Forks drop it (info); "
        "where only some frames lack it, two writers were mixed (warning).",
        f"{_MT} 8",
    ),
    CheckInfo(
        "head-behind",
        "the head is in front of the camera",
        "t_z > 0 in every frame. OpenGL and pytorch3d cameras look the other way.",
        f"{_MT} 8",
        _RECORD,
    ),
    CheckInfo(
        "fov-range",
        "the field of view is that of a camera",
        "Between 3 and 120 degrees over the image's height. The tracker begins at about 12 for a "
        "crop. Values far off are NDC numbers, or K of another resolution.",
        "geometry, Conventions",
        _RECORD,
    ),
    CheckInfo(
        "principal-off",
        "the principal point is near the image's centre",
        "Within 10 % of the side; outside the image is an error. FlashAvatar and GaussianAvatars "
        "force it to the centre, INSTA, GaussianBlendshapes and nerfstudio keep it, and uncrop's "
        "GaussianTalker canvas is centred on it.",
        "targets, A0",
        _RECORD,
    ),
    CheckInfo(
        "landmarks-damaged",
        "files of kpt/ hold 68 points",
        "Shape (68, 2), numbers, a whole .npy file.",
        f"{_MT} 13",
    ),
    CheckInfo(
        "landmarks-dense",
        "files of kpt_dense/ hold 478 points",
        "Some versions of the tracker write the 68 points there, too (its issue 35). uncrop leaves "
        "them out.",
        f"{_MT} 13",
    ),
    CheckInfo(
        "numbering-unknown",
        "it is known which image belongs to which frame",
        "The tracker dumps every image that it fitted under the frame's number; comparing pixels "
        "gives the offset. Without dumps it rests on begin_frames of the yaml, or on nothing.",
        f"{_MT} 10a; metrical-tracker, Numbering",
    ),
    CheckInfo(
        "begin-frames",
        "begin_frames is what the images show",
        "begin_frames as the yaml or --begin-frames says it, against the offset at which the "
        "tracker's dumps equal its images. The images decide.",
        f"{_MT} 10a",
    ),
    CheckInfo(
        "images-order",
        "every frame's dump equals its image",
        "One offset fits frames all over the track; bit-exact for PNG, within 3 grey levels for "
        "JPEG. An image that was removed, added or replaced shifts what lies behind it. Five "
        "frames are compared, all with --thorough.",
        f"{_MT} 10",
    ),
    CheckInfo(
        "landmarks-lag",
        "landmarks and meshes are of the same images",
        "For every landmark the mesh vertex that follows it best is chosen on a quarter of the "
        "frames, and held against the rest, with landmarks of images -2 to +3. The frame's own "
        "must fit best. Where the head moves less than about 0.3 px per frame it cannot be told, "
        "and the check says so.",
        f"{_MT} 10c",
    ),
    CheckInfo(
        "landmarks-missing",
        "the detector found the face in nearly all frames",
        "A failed detection is a file of zeros. More than 5 % of the frames, or more than five in "
        "a row, is a warning; fewer are filled when a dataset is written.",
        f"{_MT} 13",
        _RECORD,
    ),
    CheckInfo(
        "landmarks-off-mesh",
        "the landmarks lie on the projected mesh",
        "At least 90 % inside the convex hull of the projected mesh, grown by 15 px in 512. "
        "Genuine tracks reach 100 %, a K of another image 0 %.",
        f"{_MT} 11",
        _RECORD,
    ),
    CheckInfo(
        "jitter",
        "the camera moves as the head does",
        "Shaking of the projected head from frame to frame, beyond that of the landmarks: a still "
        "head whose camera moves. Judged by fourth differences, which a smooth turn does not "
        "have; more than 1 px in 512 is a warning, and so are single jumps of more than 3.",
        "ecosystem; design, fitting",
        _RECORD,
    ),
    CheckInfo(
        "depth-off",
        "depth maps show the mesh",
        "One channel of uint16 in millimetres, not empty, and the median within 0.1 m of the "
        "projected mesh's. Three maps are looked at, all with --thorough.",
        f"{_MT} 20",
    ),
    CheckInfo(
        "bbox-missing",
        "bbox.pt is there",
        "Without it no camera can leave the crop. uncrop recover-bbox finds it again from crops "
        "and video.",
        f"{_MT} 14",
    ),
    CheckInfo(
        "bbox-damaged",
        "bbox.pt holds four whole numbers",
        "An array, tensor or list of four integers.",
        f"{_MT} 14",
    ),
    CheckInfo(
        "bbox-order",
        "bbox.pt is in the order x_min, x_max, y_min, y_max",
        "Corners x_min, y_min, x_max, y_max are found where the order is impossible, and where the "
        "images were cut by them.",
        f"{_MT} 14",
    ),
    CheckInfo(
        "bbox-outside",
        "the box lies inside the source frames",
        "0 <= min < max <= size - 1 in both directions. The tracker reuses an old bbox.pt for a "
        "new video without a word; a box of another resolution shows here.",
        f"{_MT} 14",
    ),
    CheckInfo(
        "bbox-odd",
        "the box has even extents",
        "The tracker's own boxes always have. Another program made this one.",
        f"{_MT} 14",
    ),
    CheckInfo(
        "bbox-unused",
        "no bbox.pt lies beside whole frames",
        "With crop_image: false, or where source frames are the images, bbox.pt is not applied; "
        "another program might apply it.",
        f"{_MT} 16",
    ),
    CheckInfo(
        "source-cropped",
        "the source frames are not crops already",
        "Source frames of the images' size: the track knows nothing of the original video, and "
        "source resolution is the crop's.",
        f"{_MT} 16",
    ),
    CheckInfo(
        "crop-pixels",
        "the images were cut from the source frames by this bbox",
        "Crops re-rendered as the tracker renders them against its images, in the middle half: "
        "equal within 0.25 grey levels for PNG, 3 for JPEG and video. Catches a bbox.pt that was "
        "deleted and computed anew while old images were kept. Five frames all over the track (six "
        "early ones of a video), all with --thorough.",
        f"{_MT} 15",
    ),
    CheckInfo(
        "crop-altered",
        "the images are the source's up to their borders",
        "They equal it in the middle and differ outside: a replaced background, or a matte.",
        f"{_MT} 15",
    ),
    CheckInfo(
        "jaw-fixed",
        "the jaw was optimised",
        "The tracker's default is optimize_jaw: false, and the jaw is then the identity in every "
        "frame, exactly. The mouth moves in the expression only.",
        f"{_MT} 12",
        _RECORD,
    ),
    CheckInfo(
        "eyelids-fixed",
        "the eyelids were optimised",
        "Zero in every frame: blinks are not in the track.",
        f"{_MT} 12",
        _RECORD,
    ),
    CheckInfo(
        "shape-unset",
        "the shape is a person's",
        "Zero: FLAME's mean head. MICA's identity.npy was not used.",
        f"{_MT} 12",
        _RECORD,
    ),
    CheckInfo(
        "expression-fixed",
        "the face moves, and not by expression alone",
        "An expression that never changes; or one that changes while neither jaw nor eyelids do "
        "(mouth-only tracking).",
        f"{_MT} 12",
        _RECORD,
    ),
    CheckInfo(
        "frames-few",
        "there are enough frames for the trainers",
        "INSTA holds back the last 350 frames for testing, FlashAvatar 500; with fewer nothing is "
        "left to train on. GaussianTalker has no such number, but wants minutes of speech.",
        "targets, A1 and A2",
        _RECORD,
    ),
    CheckInfo(
        "bundle-damaged",
        "the bundle is complete and every array is what was written",
        "The mark that is written last, the number of frames, and the SHA-256 of every array. Any "
        "truncation and any flipped bit in array data shows here.",
        "reliability, promise 10",
        ("bundle",),
    ),
    CheckInfo(
        "dataset",
        "the written dataset is what its trainer needs",
        "The target that wrote the folder reads it back as its trainer does: hashes of all files, "
        "cameras, and the reprojection of the mesh.",
        "design, A format is one file",
        ("dataset",),
    ),
    CheckInfo(
        "files-damaged",
        "everything that was looked at can be read",
        "Images, meshes, landmark files, the video: what other checks wanted to look at and could "
        "not.",
        f"{_MT} 2",
        ("track", "bundle", "dataset"),
    ),
)

ALL = "all"
"""In place of an id: all of them."""
_BY_ID = {info.id: info for info in CATALOGUE}


def explain(check_id: str) -> CheckInfo:
    """Return the entry of a check; raises FormatError, with the nearest ids, if there is none."""
    if check_id in _BY_ID:
        return _BY_ID[check_id]
    by_case = {known.lower(): known for known in _BY_ID}
    wanted = check_id.lower()
    near = [known for lower, known in by_case.items() if wanted in lower and len(wanted) > 2]
    near += [by_case[n] for n in difflib.get_close_matches(wanted, by_case, n=3, cutoff=0.7)]
    meant = " or ".join(dict.fromkeys(near[:4]))
    remedy = f"Did you mean {meant}? " if meant else ""
    raise FormatError(f"check {check_id}", "the id of a check, like K-naive", check_id,
                      f"{remedy}`uncrop validate --explain {ALL}` lists them.")  # fmt: skip


def contents() -> str:
    """Every id with what passes, a line each."""
    width = max(len(check_id) for check_id in _BY_ID)
    return "".join(f"{info.id:<{width}}  {info.title}\n" for info in CATALOGUE)


def page(info: CheckInfo) -> str:
    """The entry as docs/checks/ID.md."""
    kinds = ", ".join(info.kinds)
    return (
        f"# {info.id}\n\nPasses when {info.title}.\n\n{_wrapped(info.explanation)}\n\n"
        f"Run on: {kinds}. Source: {info.spec}.\n"
    )


def _wrapped(text: str) -> str:
    import textwrap

    return "\n".join(textwrap.wrap(text, 100, break_long_words=False, break_on_hyphens=False))
