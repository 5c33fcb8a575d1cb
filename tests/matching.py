"""Match an error's message by the facts in it, so that its words stay free."""

import re


def containing(*values: object) -> str:
    """Return a pattern for ``match=`` that finds each value in a message, whole and in any order."""
    return "(?s)" + "".join(rf"(?=.*{_whole(str(value))})" for value in values)


def _whole(value: str) -> str:
    """Return a pattern for a value that is no part of a longer word or number."""
    return (r"(?<!\w)" if value[:1].isalnum() else "") + re.escape(value) + (r"(?!\w)" if value[-1:].isalnum() else "")
