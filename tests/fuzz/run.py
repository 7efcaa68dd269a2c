"""Fuzzes one reader: ``python -m tests.fuzz.run TARGET --seconds 60``.

With atheris (coverage-guided; ``pip install atheris``) if it is there, with `tests.fuzz.mutate`
otherwise. Only `UncropError` may come out, within 1 GB and 5 seconds per input; anything else ends
the run with exit code 1, the input saved beside the corpus. Prints one line of figures.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import inspect
import json
import os
import re
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from types import CodeType, FrameType
from typing import Any

MAX_S = 5.0
MAX_MB = 1000
FOLDER = Path(__file__).resolve().parents[2] / ".fuzz"
"""Corpora and crashes are kept here between runs; git does not see it."""


def main() -> int:
    """Run one target and print what came of it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("target")
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--engine", choices=("auto", "atheris", "mutate"), default="auto")
    parser.add_argument("--inner", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.inner:
        return _atheris(options.target, options.seconds)
    corpus = _prepare(options.target)
    engine = options.engine
    if engine == "auto":
        engine = "atheris" if _has_atheris() else "mutate"
    run = _run_atheris if engine == "atheris" else _run_mutations
    figures = {"target": options.target, "engine": engine, **run(options.target, options.seconds)}
    figures["corpus"] = len(list(corpus.iterdir()))
    figures["lines"] = line_coverage(options.target, corpus)
    sys.stdout.write(json.dumps(figures) + "\n")
    return 1 if figures["crashes"] else 0


def _has_atheris() -> bool:
    import importlib.util

    return importlib.util.find_spec("atheris") is not None


def _prepare(target: str) -> Path:
    from tests.fuzz.targets import TARGETS, clean, hostile

    corpus = FOLDER / target
    corpus.mkdir(parents=True, exist_ok=True)
    for data in [*TARGETS[target].corpus(), *hostile(target)]:
        (corpus / hashlib.sha256(data).hexdigest()[:20]).write_bytes(data)
    clean()
    return corpus


# --- coverage-guided ----------------------------------------------------------------------------


def _run_atheris(target: str, seconds: float) -> dict[str, Any]:
    crashes = FOLDER / "crashes"
    crashes.mkdir(parents=True, exist_ok=True)
    before = set(crashes.iterdir())
    command = [sys.executable, "-m", "tests.fuzz.run", target, "--inner", "--seconds", str(seconds)]
    memory = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
    with tempfile.TemporaryDirectory(prefix="uncrop-fuzz-", dir=memory) as scratch:
        # libFuzzer ends its process without cleaning up.
        done = subprocess.run(
            command, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, check=False,
            env={**os.environ, "UNCROP_FUZZ_SCRATCH": scratch},
        )  # fmt: skip
    text = done.stderr.decode("utf-8", "replace")
    found = sorted(path.name for path in set(crashes.iterdir()) - before)
    stats = dict(re.findall(r"stat::(\w+):\s+(\d+)", text))
    edges = re.findall(r"cov: (\d+)", text)
    if found or not stats:
        sys.stderr.write(text[-4000:])
    return {
        "inputs": int(stats.get("number_of_executed_units", 0)),
        "crashes": len(found) + (not stats and not found),
        "edges": int(edges[-1]) if edges else 0,
        "peak_mb": int(stats.get("peak_rss_mb", 0)),
        "slowest_s": int(stats.get("slowest_unit_time_sec", 0)),
        "saved": found,
    }


def _atheris(target: str, seconds: float) -> int:
    import atheris

    with atheris.instrument_imports(include=["converter"]):
        import converter.bundle.read
        import converter.bundle.record
        import converter.media.arrays
        import converter.media.images
        import converter.media.manifest
        import converter.media.meshes
        import converter.media.pickle_model
        import converter.media.pickled
        import converter.media.torch_series
        import converter.media.torchfile
        import converter.media.video
        import converter.sources.metrical_tracker.config
        import converter.sources.metrical_tracker.payload
        import converter.sources.metrical_tracker.reader
        import converter.targets.gaussiantalker.check  # noqa: F401
    from converter.errors import UncropError
    from tests.fuzz.targets import TARGETS

    _silence()
    read = TARGETS[target].read()

    def test_one(data: bytes) -> None:
        with contextlib.suppress(UncropError):
            read(data)

    arguments = [
        sys.argv[0], str(FOLDER / target), f"-max_total_time={int(seconds)}", f"-timeout={MAX_S:g}",
        f"-rss_limit_mb={MAX_MB}", "-max_len=65536", "-print_final_stats=1", "-verbosity=1",
        f"-artifact_prefix={FOLDER / 'crashes'}/{target}-",
    ]  # fmt: skip
    atheris.Setup(arguments, test_one)
    atheris.Fuzz()
    return 0


# --- blind --------------------------------------------------------------------------------------


def _run_mutations(target: str, seconds: float) -> dict[str, Any]:
    from tests.fuzz.mutate import mutations
    from tests.fuzz.targets import TARGETS, clean, hostile

    _silence()
    corpus = [*TARGETS[target].corpus(), *hostile(target)]
    read = TARGETS[target].read()
    began, n, slowest, crashes = time.monotonic(), 0, 0.0, []
    for data in mutations(corpus, 1 << 40, f"{target} {began}"):
        if time.monotonic() - began > seconds:
            break
        problem, took = attempt(read, data)
        n, slowest = n + 1, max(slowest, took)
        if problem:
            path = FOLDER / "crashes" / f"{target}-{hashlib.sha256(data).hexdigest()[:20]}"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)
            crashes.append(path.name)
            sys.stderr.write(f"{path}: {problem}\n")
    clean()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
    return {"inputs": n, "crashes": len(crashes), "edges": None, "peak_mb": peak,
            "slowest_s": round(slowest, 2), "saved": crashes}  # fmt: skip


def attempt(read: Any, data: bytes) -> tuple[str, float]:
    """Read one input; what is wrong (nothing, if it was read or refused), and CPU seconds."""
    from converter.errors import UncropError

    began = time.process_time()
    problem = ""
    try:
        read(data)
    except UncropError as error:
        if not str(error).isprintable():
            problem = f"message {str(error)!r}"
    except Exception as error:
        problem = f"{type(error).__name__}: {error}"
    took = time.process_time() - began
    return problem or (f"took {took:.1f} s" if took > MAX_S else ""), took


def _silence() -> None:
    os.environ.setdefault("OPENCV_LOG_LEVEL", "SILENT")


# --- coverage -----------------------------------------------------------------------------------


def line_coverage(target: str, corpus: Path) -> str:
    """Share of the reader's lines that its corpus reaches, "N of M"."""
    import importlib

    from tests.fuzz.targets import TARGETS, clean

    wanted: dict[str, set[int]] = {}
    for name in TARGETS[target].modules:
        file = str(importlib.import_module(name).__file__)
        code = compile(Path(file).read_text(encoding="utf-8"), file, "exec")
        wanted[file] = set().union(*(_lines(c) for c in _functions(code)))
    seen: dict[str, set[int]] = {file: set() for file in wanted}

    def trace(frame: FrameType, event: str, _: Any) -> Any:
        lines = seen.get(frame.f_code.co_filename)
        if lines is None:
            return None
        if event in ("line", "call"):
            lines.add(frame.f_lineno)
        return trace

    read = TARGETS[target].read()
    paths = sorted(corpus.iterdir(), key=lambda path: path.stat().st_size)[:1500]
    for path in paths:
        data = path.read_bytes()
        sys.settrace(trace)
        try:
            attempt(read, data)
        finally:
            sys.settrace(None)
    clean()
    n_seen = sum(len(seen[file] & lines) for file, lines in wanted.items())
    return f"{n_seen} of {sum(map(len, wanted.values()))}"


def _functions(code: CodeType) -> list[CodeType]:
    """Code of all functions inside a module, a class or a function."""
    inner = [c for c in code.co_consts if isinstance(c, CodeType)]
    found = [c for c in inner if c.co_flags & inspect.CO_NEWLOCALS]  # no class bodies
    return found + [c for i in inner for c in _functions(i)]


def _lines(code: CodeType) -> set[int]:
    first = code.co_firstlineno
    return {line for _, _, line in code.co_lines() if line is not None and line != first}


if __name__ == "__main__":
    sys.exit(main())
