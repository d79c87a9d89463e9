"""The one exception that users are meant to read.

Raise :class:`RasrError` for anything the user can mend (a missing file, a wrong key, absent weights). The
message is one line that names the offending thing and says what to do. Entry points print it without a
traceback; everything else that escapes is a bug of ours and keeps its traceback.
"""


class RasrError(ValueError):
    """A mistake in the input, the configuration or the files, with its mend in the message."""


def one_line(error: Exception, *, first: bool = False, most: int = 160) -> str:
    """What an exception of a library says, without line breaks and at most this long.

    Args:
        error: the exception.
        first: only its first line, where what follows is a page of advice.
        most: characters.
    """
    lines = str(error).strip().splitlines()
    text = " ".join(" ".join(lines[:1] if first else lines).split()) or type(error).__name__
    return text if len(text) <= most else f"{text[: most - 3]}..."
