"""Runs in the forms that others read, and what others publish in ours."""
