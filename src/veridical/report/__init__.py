"""One self-contained HTML page about finished runs.

As `veridical.report(...)` the package is a function, that of `veridical.api`.
"""

from veridical.callables import callable_as

callable_as(__name__, "veridical.api:report")
