"""Text of files, made safe to print: nothing in it steers a terminal."""


def escaped(text: str) -> str:
    """Return text with unprintable characters as escapes."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
