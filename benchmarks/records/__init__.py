"""What is kept of a run: its folder, lock, log and record, and the machine it ran on."""
