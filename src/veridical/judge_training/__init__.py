"""Training of judges: a reward probe, a reward model, and a verifier of sentences."""
