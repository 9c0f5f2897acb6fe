"""Hallucination mitigated at decoding: contrastive methods, calibration and best-of-N, one file a method."""
