"""For checks of what raises."""


def fails(error, action):
    """The text of the exception."""
    try:
        action()
    except error as caught:
        return str(caught)
    raise AssertionError(f"no {error.__name__}")
