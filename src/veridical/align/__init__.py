"""Training on pairs: checks, the reference cache, the trainer, the run folder."""
