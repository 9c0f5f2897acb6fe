"""Hallucination mitigated at decoding: contrast, OPERA, calibration and best-of-N, one file a method."""
