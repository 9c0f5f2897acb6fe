"""How good judges are, on pairs of which it is known which side is better."""
