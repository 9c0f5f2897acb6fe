"""Encode images and prompt once, and keep, share and re-batch what was encoded."""
