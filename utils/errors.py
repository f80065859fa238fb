"""The one exception for mistakes of the user: what is wrong and what would be right, in one line."""

import difflib
from collections.abc import Iterable
from typing import Any


class UserError(ValueError):
    """A mistake of the user, and of which argument: UserError("must be at most 1.5", strength=2).

    Its text is "strength=2: must be at most 1.5"; the command line makes an option of the argument ("--strength=2: …"),
    the page the label of a field. Where the value says nothing, None leaves it out: "strength: …".
    """

    def __init__(self, message: str, **argument: Any):
        self.message = message
        self.argument, self.value = next(iter(argument.items()), ("", None))
        value = "" if self.value is None else f"={self.value}"
        super().__init__(f"{self.argument}{value}: {message}" if argument else message)


def reason_of(error: BaseException) -> str:
    """What an exception of a library says, in a line."""
    return (str(error) or type(error).__name__).splitlines()[0]


def nearest(name: str, choices: Iterable[str]) -> str:
    """The nearest of `choices`, or the empty string if none is near."""
    return next(iter(difflib.get_close_matches(name, list(choices), n=1, cutoff=0.6)), "")


def did_you_mean(name: str, choices: Iterable[str]) -> str:
    """`; did you mean poet?` for the nearest of `choices`, or the empty string if none is near."""
    near = nearest(name, choices)
    return f"; did you mean {near}?" if near else ""
