"""mulligan: pre-training for language models that rewinds past loss spikes and proves it."""

__version__ = "0.1.0"
