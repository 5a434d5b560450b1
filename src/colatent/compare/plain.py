"""Text of files, made safe to print: nothing in it steers a terminal."""


def plain(text: object, limit: int = 1000) -> str:
    """Return the text with unprintable characters as escapes, cut to ``limit`` characters."""
    escaped = "".join(c if c.isprintable() else ascii(c)[1:-1] for c in str(text)[: limit + 1])
    return escaped if len(escaped) <= limit else escaped[: limit - 3] + "..."
