"""A run: its folder, log, checkpoints, optimiser, evaluations, watchdog."""
