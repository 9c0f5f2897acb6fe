"""Find what is wrong with a set of pairs before it is trained on or published."""
