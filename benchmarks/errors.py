"""What keeps a contestant from running."""


class LeftOut(Exception):
    """A contestant cannot run here; the message is one line that says why."""
