"""Text of files, short enough for a line, and safe to print."""

from colatent.jobs.terminal import escaped


def plain(text: object, limit: int = 1000) -> str:
    """Return the text with unprintable characters as escapes, cut to ``limit`` characters."""
    shown = escaped(str(text)[: limit + 1])
    return shown if len(shown) <= limit else shown[: limit - 3] + "..."
