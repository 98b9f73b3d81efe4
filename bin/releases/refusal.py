"""The one kind of error that is shown to the operator."""


class Refusal(Exception):
    """What is wrong and how to fix it. A message never contains what may be a secret."""
