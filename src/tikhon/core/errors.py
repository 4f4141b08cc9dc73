"""The one exception that tikhon raises for wrong input."""


class TikhonError(Exception):
    """Something the caller can put right: the message says what was wrong, where, and what to do."""
