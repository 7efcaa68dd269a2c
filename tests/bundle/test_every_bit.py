"""``uncrop validate track.h5`` finds one flipped bit in any dataset, and any truncation."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from converter.cli.main import main
from converter.validation.validate import validate
from tests.bundle.tools import datasets, flip, spans


def errors(path: Path) -> list[str]:
    return [f"{f.where}: {f.message}" for f in validate(path).findings if f.severity == "error"]


def test_a_whole_bundle_is_fine(whole: Path) -> None:
    assert errors(whole) == []


def test_a_bit_of_each_dataset(bundle: Path, whole: Path, copy_of: Callable[[Path], Path]) -> None:
    """First, middle and last byte of each, another bit each time."""
    missed, n = [], 0
    for good in (bundle, copy_of(whole)):
        for dataset in datasets(good):
            every = spans(good, dataset)
            places = {every[0][0], every[-1][0] + every[-1][1] - 1}
            places.add(every[len(every) // 2][0] + every[len(every) // 2][1] // 2)
            for place in places:
                bit = n % 8
                flip(good, place, bit)
                found = errors(good)
                if not any(f"{good}:{dataset}" in text for text in found):
                    missed.append(f"{dataset} at {place}, bit {bit}: {found}")
                flip(good, place, bit)
                n += 1
        assert not any(f"{good}:" in text for text in errors(good))  # mended again
    assert missed == []
    assert n > 100


def test_every_truncation(bundle: Path) -> None:
    data = bundle.read_bytes()
    missed = []
    for end in [*range(0, len(data), len(data) // 40), len(data) - 1]:
        bundle.write_bytes(data[:end])
        if not any(str(bundle) in text and "HDF5" in text for text in errors(bundle)):
            missed.append(end)
    assert missed == []


def test_the_command_says_so(bundle: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["validate", str(bundle)]) in (0, 1)
    place, length = spans(bundle, "/camera/R")[0]
    flip(bundle, place + length // 2)
    capsys.readouterr()
    assert main(["validate", str(bundle)]) == 1
    printed = capsys.readouterr()
    assert "track.h5" in printed.out + printed.err
