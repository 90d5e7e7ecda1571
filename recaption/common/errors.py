"""Mistakes that are the user's to mend."""


class UserError(Exception):
    """A mistake that the user can mend. Shown as one line; the command exits with status 2."""
