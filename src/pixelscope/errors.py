"""Errors that the user can fix."""


class InputError(ValueError):
    """An input cannot be used; the message is one sentence that names it and says how to fix it.

    The command line prints the message alone, without a traceback, and exits with code 2.
    """


class TrainingStopped(InputError):
    """A training stopped early; the message says why and how to resume."""


class Interrupted(TrainingStopped):
    """The user or the system stopped a training; everything is saved."""
