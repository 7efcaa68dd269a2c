"""A box from landmarks alone: never surer than it is."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from converter.geometry.crop import BBox, Crop
from converter.geometry.pixels import Floats, Size, pixels_from_index
from fitting.crop import CropCertificate
from fitting.crop.landmarks import LandmarkPair, box_from_landmarks, box_from_rule, rule_box
from fitting.crop.mapping import Mapping
from fixtures.synthetic.crop_cases import tracker_box

SOURCE, OUTPUT = Size(1920, 1080), Size(512, 512)


def face(rng: np.random.Generator) -> Floats:
    """68 points about the middle of a crop, as get_bbox leaves room around them."""
    angle = rng.uniform(0, 2 * np.pi, 68)
    radius = rng.uniform(20, 105, 68)
    return np.stack([256 + radius * np.cos(angle), 256 + radius * np.sin(angle)], axis=1)


def pairs_of(
    crop: Crop, seed: int, n_frames: int, noise_px: float, seen_larger: float
) -> list[LandmarkPair]:
    """Landmarks of both spaces; ``seen_larger``: what the detector adds to a face in the source."""
    rng = np.random.default_rng(seed)
    points = face(rng)
    pairs = []
    for index in range(n_frames):
        there = points + rng.normal(0, 3, 2)
        true = crop.source_from_crop(there)
        middle = true.mean(axis=0)
        seen = middle + (true - middle) * (1 + seen_larger)
        pairs.append(
            LandmarkPair(
                f"{index:05d}",
                there + rng.normal(0, noise_px, (68, 2)),
                seen + rng.normal(0, noise_px, (68, 2)),
            )
        )
    return pairs


def worst_edge(certificate: CropCertificate, truth: Crop) -> float:
    assert certificate.crop is not None, certificate.reason
    found, true = Mapping.of_crop(certificate.crop), Mapping.of_crop(truth)
    return float(np.max(np.abs(found.edges - true.edges)))


@settings(max_examples=60)
@given(
    seed=st.integers(0, 10**6),
    n_frames=st.integers(1, 40),
    noise_px=st.floats(0, 2),
    seen_larger=st.floats(-0.009, 0.009),
)
def test_the_error_bar_holds_the_truth(
    seed: int, n_frames: int, noise_px: float, seen_larger: float
) -> None:
    box = BBox(*tracker_box(np.random.default_rng(seed), SOURCE.width, SOURCE.height))
    truth = Crop.from_bbox(box, SOURCE, OUTPUT)
    pairs = pairs_of(truth, seed, n_frames, noise_px, seen_larger)
    certificate = box_from_landmarks(pairs, SOURCE, OUTPUT)
    if certificate.crop is None:  # a small box in noise says so
        assert certificate.cause == "landmarks-disagree"
        return
    assert certificate.verdict == "approximate"
    assert worst_edge(certificate, truth) <= certificate.error_px
    side = Mapping.of_crop(truth).size.width
    assert certificate.error_px >= 0.0099 * side  # never surer than a detector can be
    if noise_px < 1 and n_frames > 2:
        assert certificate.error_px <= 0.03 * side + 3


def test_the_error_bar_is_not_empty_talk() -> None:
    """It says 1 % where that is all there is, and more for one noisy frame."""
    truth = Crop.from_bbox(BBox(500, 1350, 100, 950), SOURCE, OUTPUT)
    many = box_from_landmarks(pairs_of(truth, 1, 50, 1.0, 0.0), SOURCE, OUTPUT)
    one = box_from_landmarks(pairs_of(truth, 1, 1, 2.0, 0.0), SOURCE, OUTPUT)
    assert 8.5 <= many.error_px <= 10.5
    assert one.error_px > many.error_px
    assert str(many).endswith("from landmarks of 50 frames, edges within 10 px")


@pytest.mark.parametrize(
    "harm", ["mirrored points", "another face", "rotated", "two boxes", "nothing"]
)
def test_landmarks_that_do_not_belong_together_are_refused(harm: str) -> None:
    truth = Crop.from_bbox(BBox(500, 1350, 100, 950), SOURCE, OUTPUT)
    pairs = pairs_of(truth, 2, 9, 0.5, 0.0)
    if harm == "mirrored points":
        pairs = [LandmarkPair(p.name, p.crop, p.source[::-1]) for p in pairs]
    elif harm == "another face":
        pairs = [LandmarkPair(p.name, p.crop, face(np.random.default_rng(9))) for p in pairs]
    elif harm == "rotated":
        turn = np.array([[np.cos(0.1), -np.sin(0.1)], [np.sin(0.1), np.cos(0.1)]])
        pairs = [LandmarkPair(p.name, p.crop, p.source @ turn) for p in pairs]
    elif harm == "two boxes":
        other = Crop.from_bbox(BBox(400, 1350, 50, 1000), SOURCE, OUTPUT)
        pairs[:4] = pairs_of(other, 2, 9, 0.5, 0.0)[:4]
    else:
        pairs = []
    certificate = box_from_landmarks(pairs, SOURCE, OUTPUT)
    assert certificate.verdict == "refused"
    cause = "no-landmarks" if harm == "nothing" else "landmarks-disagree"
    assert certificate.cause == cause
    assert certificate.bbox is None


def get_bbox(points: list[tuple[int, int]], width: int, height: int) -> BBox:
    """The tracker's rule, one number after the other (metrical-tracker, image.py:22-42)."""
    xs, ys = [p[0] for p in points], [p[1] for p in points]
    x_centre, y_centre = int((max(xs) + min(xs)) / 2), int((max(ys) + min(ys)) / 2)
    size = int(2.5 * 2 * max(x_centre - min(xs), y_centre - min(ys)))
    x0, x1 = max(x_centre - size // 2, 0), min(x_centre + size // 2, width - 1)
    y0, y1 = max(y_centre - size // 2, 0), min(y_centre + size // 2, height - 1)
    x0 += (x1 - x0) % 2 != 0
    y0 += (y1 - y0) % 2 != 0
    return BBox(x0, x1, y0, y1)


@given(st.lists(st.tuples(st.integers(300, 1500), st.integers(200, 900)), min_size=68, max_size=68))
def test_the_rule_is_the_trackers(points: list[tuple[int, int]]) -> None:
    found = rule_box(pixels_from_index(np.array(points, np.float64)), SOURCE)
    assert found == get_bbox(points, SOURCE.width, SOURCE.height)


def test_the_same_landmarks_give_the_same_box_by_the_rule() -> None:
    """The tracker's own detector on the same first frame: then even the integers are right."""
    rng = np.random.default_rng(4)
    ints = np.rint(rng.uniform((900, 200), (1070, 370), (68, 2)))
    box = rule_box(pixels_from_index(ints), SOURCE)
    truth = Crop.from_bbox(box, SOURCE, OUTPUT)
    pairs = pairs_of(truth, 5, 20, 1.0, 0.004)
    certificate = box_from_landmarks(pairs, SOURCE, OUTPUT, by_rule=box)
    assert certificate.bbox == box
    elsewhere = BBox(box.x_min + 40, box.x_max + 40, box.y_min, box.y_max)
    refuted = box_from_landmarks(pairs, SOURCE, OUTPUT, by_rule=elsewhere)
    assert refuted.bbox != elsewhere
    assert worst_edge(refuted, truth) <= refuted.error_px


@given(st.integers(0, 10**6), st.floats(0, 1))
def test_the_rule_alone_has_a_wider_error_bar(seed: int, noise_px: float) -> None:
    rng = np.random.default_rng(seed)
    points = face(rng) * 0.9 + [700, 250]
    truth = Crop.from_bbox(rule_box(points, SOURCE), SOURCE, OUTPUT)
    again = points + rng.normal(0, noise_px, points.shape)
    certificate = box_from_rule(again, "00001", SOURCE, OUTPUT)
    assert certificate.verdict == "approximate"
    assert worst_edge(certificate, truth) <= certificate.error_px
