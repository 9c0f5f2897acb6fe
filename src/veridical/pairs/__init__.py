"""Runs a construction over records: batching, shards, resuming, rejects, and what came out."""
