"""Constructions make preference pairs out of records; one file a method, one short procedure a file."""
