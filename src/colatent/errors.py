"""Errors that a user can act on."""


class InputError(Exception):
    """A file or a setting is wrong: one sentence with what, where and what to do."""
