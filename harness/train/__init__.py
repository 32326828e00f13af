"""Training: the epoch, model selection, checkpoints and the record of a run."""
