"""The training objective: next-token cross-entropy with z-loss and label smoothing."""
