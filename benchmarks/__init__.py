"""Benchmarks: recipes, runner, statistics, report. Run from a clone: `python -m benchmarks`."""
