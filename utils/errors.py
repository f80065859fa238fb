"""The one exception for mistakes of the user: main.py prints its message as one line and exits with 2."""

import difflib
from collections.abc import Iterable


class UserError(Exception):
    """What went wrong and what would be right, in one line."""


def nearest(name: str, choices: Iterable[str]) -> str:
    """The nearest of `choices`, or the empty string if none is near."""
    return next(iter(difflib.get_close_matches(name, list(choices), n=1, cutoff=0.6)), "")


def did_you_mean(name: str, choices: Iterable[str]) -> str:
    """`; did you mean poet?` for the nearest of `choices`, or the empty string if none is near."""
    near = nearest(name, choices)
    return f"; did you mean {near}?" if near else ""
