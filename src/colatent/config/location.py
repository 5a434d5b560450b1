"""Where a recording lies: a path on this machine (`Path`, or text without a scheme) or a URL (text)."""

import re
from pathlib import Path
from urllib.parse import SplitResult, urlsplit, urlunsplit

from colatent.errors import InputError

# protocol -> the package that fsspec needs for it
PROTOCOLS = {"http": "aiohttp", "https": "aiohttp", "s3": "s3fs", "memory": ""}
_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://")


def is_url(location: str | Path) -> bool:
    """Return whether a recording is remote; a `Path` never is."""
    return isinstance(location, str) and _SCHEME.match(location) is not None


def protocol(url: str) -> str:
    """Return the protocol of a URL, in lower case.

    Raises:
        InputError: the protocol is not supported, or the URL carries a password, which would be
            written into logs and stores.
    """
    found = _SCHEME.match(url)
    scheme = found.group(1).lower() if found else ""
    if scheme not in PROTOCOLS or "::" in url:
        known = ", ".join(f"{name}://" for name in PROTOCOLS if name != "memory")
        raise InputError(
            f"{shown(url)}: recordings cannot be read from there; give a path, or a URL with {known}"
        )
    if "@" in _split(url).netloc:
        raise InputError(
            f"{shown(url)}: the URL holds a user name or a password, which would be written into "
            "logs; take it out, and keep it where fsspec looks for it (~/.config/fsspec)"
        )
    return scheme


def shown(location: str | Path) -> str:
    """Return a location for messages and records: a URL without parts that may be a key to the file."""
    if not is_url(location):
        return str(location)
    try:
        parts = _split(str(location))
    except InputError:  # cut away whatever may be a key
        return str(location).partition("?")[0].rpartition("@")[2]
    return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))


def _split(url: str) -> SplitResult:
    try:
        return urlsplit(url)
    except ValueError as error:
        raise InputError(
            f"{url.partition('?')[0].rpartition('@')[2]}: not a valid URL ({error}); correct it"
        ) from None
