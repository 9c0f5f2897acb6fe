"""Load a model, know its family, write its chat template, attach and save adapters."""
