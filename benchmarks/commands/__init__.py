"""The commands of `python -m benchmarks`, one file each; they parse arguments and call the rooms below."""
