"""The one exception of the package for input that cannot be used."""


class BadInput(ValueError):
    """Input that cannot be used; the message names it, says what was found and what would be right.

    The command line prints the message alone and exits with status 2.
    """
