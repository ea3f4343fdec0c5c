"""The training loop and what surrounds it: settings, checkpoints, signals, batches made ahead."""
