"""Mistakes that a user can mend, told in a sentence instead of a traceback, and guesses at what was meant."""

import difflib


class UserError(ValueError):
    """A mistake that the user can mend.

    The message says what happened, what was expected, what was received and how to mend it. The binaries
    print it and end with status 1; library callers catch it like any `ValueError`.
    """


def near_match(received: str, known: list[str]) -> str:
    """Returns ` Did you mean 'x'?` for the known name nearest to `received`, or an empty string."""
    matches = difflib.get_close_matches(received, known, n=1)
    return f" Did you mean {matches[0]!r}?" if matches else ""
