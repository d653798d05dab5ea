"""The run itself, on Lightning: module, data module, optimizers, callbacks, checkpoints."""
