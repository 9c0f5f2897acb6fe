"""Judges say what is wrong with a text about an image, and put it right."""
