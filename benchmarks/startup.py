"""How long a command takes to say how it is used."""

from __future__ import annotations

from pathlib import Path

from benchmarks.measure import Row, Table, cheapest, run_child, times

_LIMIT_S = 0.5
_CONVERT = ["-m", "converter.cli.main", "convert"]
_COMMANDS = {
    "python -c pass": ["-c", "pass"],
    "python -c 'import numpy'": ["-c", "import numpy"],
    "convert --help": [*_CONVERT, "--help"],
    "convert --to gaussiantalker --help": [*_CONVERT, "--to", "gaussiantalker", "--help"],
}


def run(folder: Path, quick: bool) -> Table:
    """Start each command several times, in turn."""
    del folder  # needs no input
    rounds = [
        {name: run_child(arguments).cost for name, arguments in _COMMANDS.items()}
        for _ in range(1 if quick else 10)
    ]
    costs = {name: cheapest([r[name] for r in rounds]) for name in _COMMANDS}
    bare = costs["python -c pass"]
    table = Table("Start-up")
    for name, cost in costs.items():
        judged = name.startswith("convert")
        table.rows.append(
            Row(
                name,
                cost.wall_s,
                cost.cpu_s,
                "" if cost is bare else f"{times(cost.alone_s, bare.alone_s)} the time of pass",
                f"{_LIMIT_S} s" if judged else "",
                cost.alone_s < _LIMIT_S if judged else None,
            )
        )
    return table
