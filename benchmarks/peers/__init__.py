"""Whole training programs side by side: each in a process of its own, on the same work."""
