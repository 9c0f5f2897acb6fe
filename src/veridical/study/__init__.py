"""Grids of runs that differ in one thing at a time, what they answer, and papers' claims put to the test.

As `veridical.study(...)` the package is a function, that of `veridical.api`.
"""

from veridical.callables import callable_as

callable_as(__name__, "veridical.api:study")
