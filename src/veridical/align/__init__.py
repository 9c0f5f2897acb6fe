"""Training on pairs: checks, the reference cache, the trainer, the run folder.

As `veridical.align(...)` the package is a function, that of `veridical.api`.
"""

from veridical.callables import callable_as

callable_as(__name__, "veridical.api:align")
