"""What can go wrong in a way that the user can mend."""


class InputError(ValueError):
    """Something the user gave cannot be used; the message is one sentence that names it and the mend.

    The command line prints the message alone, without a traceback, and exits with code 2.
    """


class TrainingStopped(InputError):
    """A training stopped before its end, and the message says why and how to go on."""


class Interrupted(TrainingStopped):
    """The user, or the system, asked a training to stop; everything is saved."""
