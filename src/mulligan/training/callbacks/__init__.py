"""Callbacks of the run: checkpoints, metrics, console."""
