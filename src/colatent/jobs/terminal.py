"""Text of files, made safe to print: nothing in it steers a terminal."""


def escaped(text: str) -> str:
    """Return text with unprintable characters as escapes."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def escaped_command(command: str) -> str:
    """Return a command of ``shlex.join`` with unprintable characters as ``$'…'``, which a shell reads back.

    As they are, an escape sequence would steer the terminal, and a tab that is pasted completes a word.
    """
    # shlex quotes every word that holds one, so there are quotes to end before it, and to begin behind it
    return "".join(c if c.isprintable() else f"'$'{_octal(c)}''" for c in command)


def _octal(character: str) -> str:
    # a byte of a file name that is no UTF-8 is a lone surrogate; so is what JSON may hold and no name can
    kept = "surrogateescape" if "\udc80" <= character <= "\udcff" else "surrogatepass"
    return "".join(f"\\{byte:03o}" for byte in character.encode("utf-8", kept))
