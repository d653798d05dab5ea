"""The command line: hydra and omegaconf live here only."""
