"""Side-by-side measurements: `python -m benchmarks.NAME` writes `benchmarks/results/NAME.json`."""
