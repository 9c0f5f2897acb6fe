"""The one error a user is meant to read."""

from __future__ import annotations


class UserError(Exception):
    """Something the user can mend; the message names the thing, where it is, and the remedy.

    The command line prints it without a traceback and exits with status 2.
    """
