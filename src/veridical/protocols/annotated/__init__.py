"""Benchmarks' questions from annotated pictures; the benchmarks read and count the answers as they do for their own."""
