"""The one exception that users are meant to read.

Raise :class:`RasrError` for anything the user can mend (a missing file, a wrong key, absent weights). The
message is one line that names the offending thing and says what to do. Entry points print it without a
traceback; everything else that escapes is a bug of ours and keeps its traceback.
"""


class RasrError(ValueError):
    """A mistake in the input, the configuration or the files, with its mend in the message."""
