"""Two runs into one output: one of the two whole, whoever comes first, and nothing else."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from fixtures.hostile.abuse import small_track
from tests.faults.rig import N_TRIALS, Run, digest
from tests.hostile.zygote import start

pytestmark = pytest.mark.slow

KINDS = {
    "bundle": ("t.h5", [["--to", "bundle"], ["--to", "bundle", "--with-images"]]),
    "gaussiantalker": (
        "dataset",
        [["--to", "gaussiantalker", "--canvas", "crop", "--size", s] for s in ("128", "160")],
    ),
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("overwrite", [False, True])
def test_two_runs_into_one_output(kind: str, overwrite: bool, zygote: Run, tmp_path: Path) -> None:
    name, variants = KINDS[kind]
    track = small_track(tmp_path / "track")
    place = tmp_path / "place"
    place.mkdir()
    out = place / name

    def convert(run: Run, variant: list[str], **more: Any) -> Any:
        line = ["convert", str(track), "-o", str(out), "--quiet", *variant]
        return run(line + ["--overwrite"] * overwrite, tmp_path, [tmp_path], **more)

    def clear() -> None:
        import shutil

        shutil.rmtree(place)
        place.mkdir()

    whole = []
    for variant in variants:
        assert convert(zygote, variant)["code"] == 0
        whole.append(digest(out))
        clear()
    assert whole[0] != whole[1]
    n_rounds = N_TRIALS or 40
    n_both = 0
    with start() as other, ThreadPoolExecutor(2) as pool:
        for round_ in range(n_rounds):
            first = pool.submit(convert, zygote, variants[round_ % 2])
            second = pool.submit(convert, other, variants[1 - round_ % 2])
            answers = [first.result(), second.result()]
            codes = sorted(answer["code"] for answer in answers)
            errors = "".join(answer["err"] for answer in answers)
            # Without --overwrite the second to end is refused; with it, both may succeed.
            assert codes in ([0, 0], [0, 3]) if overwrite else codes == [0, 3], errors
            assert "Traceback" not in errors
            assert digest(out) in whole, "a mixture"
            if not overwrite:
                winner = round_ % 2 if answers[0]["code"] == 0 else 1 - round_ % 2
                assert digest(out) == whole[winner]
                assert "--overwrite" in errors
            assert {p.name for p in place.iterdir()} == {name}
            n_both += codes == [0, 0]
            clear()
    assert n_both > 0 or not overwrite
