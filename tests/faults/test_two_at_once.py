"""Two runs into one output: one of the two whole, whoever comes first, and nothing else."""

from __future__ import annotations

import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from tests.faults.rig import COMMANDS, N_TRIALS, Command, Run, digest
from tests.hostile.zygote import start

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("command", COMMANDS, ids=lambda c: c.name)
@pytest.mark.parametrize("overwrite", [False, True])
def test_two_runs_into_one_output(
    command: Command, overwrite: bool, zygote: Run, tmp_path: Path
) -> None:
    tracks = [command.made_track(tmp_path / f"track{side}", side) for side in (10, 12)]
    variants = [(command.first, tracks[0]), (command.second, tracks[1])]
    place = tmp_path / "place"
    place.mkdir()
    out = place / command.out

    def convert(run: Run, variant: tuple[tuple[str, ...], Path], **more: Any) -> Any:
        line = command.line(variant[0], variant[1], out)
        return run(line + ["--overwrite"] * overwrite, tmp_path, [tmp_path], **more)

    def clear() -> None:
        shutil.rmtree(place)
        place.mkdir()

    whole = []
    for variant in variants:
        assert convert(zygote, variant)["code"] in (0, 1)
        whole.append(digest(out))
        clear()
    assert whole[0] != whole[1] or command.name == "recover-bbox"  # there is one box
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
            if command.name != "fix":  # which says 1 for a track with findings, written or not
                assert codes in ([0, 0], [0, 3]) if overwrite else codes == [0, 3], errors
            assert "Traceback" not in errors
            assert digest(out) in whole, "a mixture"
            if not overwrite and command.name != "fix":
                winner = round_ % 2 if answers[0]["code"] == 0 else 1 - round_ % 2
                assert digest(out) == whole[winner]
                assert "--overwrite" in errors
            assert {p.name for p in place.iterdir()} <= {command.out, *command.beside}
            n_both += codes in ([0, 0], [1, 1])
            clear()
    assert n_both > 0 or not overwrite
