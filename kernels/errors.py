"""The errors of the whole project: wrong input and unsupported work.

Expected outcomes (an infeasible target, an ineligible kernel) are values, not exceptions. The command line turns these
errors into one line and exit code 2.
"""


class SparseplanError(Exception):
    """Base of all errors that sparseplan raises on purpose.

    The message says what was wrong, the value seen, what is allowed and what to do.
    """


class InputError(SparseplanError):
    """Something the caller gave is wrong: a file, an option, a shape, a value."""


class UnsupportedError(SparseplanError):
    """The request is well-formed, but this build or this machine cannot do it."""


class SparseplanWarning(UserWarning):
    """Something that does not stop the work but lessens what its result is worth; one line, as for errors."""
