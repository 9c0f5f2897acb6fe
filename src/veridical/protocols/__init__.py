"""Benchmarks, each done one exact way: what to ask, how to read the answer, how to count."""
