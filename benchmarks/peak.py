"""``python -m benchmarks.peak VERB ...``: run uncrop, and print its peak memory in bytes last."""

from __future__ import annotations

import resource
import sys
from pathlib import Path

from converter.cli.main import main


def peak_bytes() -> int:
    """Largest resident size of this program so far."""
    status = Path("/proc/self/status")
    if status.is_file():
        lines = status.read_text().splitlines()
        return next(int(x.split()[1]) * 1024 for x in lines if x.startswith("VmHWM"))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


if __name__ == "__main__":
    code = main(sys.argv[1:])
    print(peak_bytes())
    sys.exit(code)
