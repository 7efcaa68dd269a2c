"""Side-by-side measurements: ``python -m benchmarks.run``, described in docs/benchmarks.md."""
