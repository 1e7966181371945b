"""The one exception that speaks to users."""


class AvatarError(ValueError):
    """Bad input, said in one sentence: the value, what was expected, what to do.

    The command line prints it without a traceback; a node shows it as it is.
    """
