"""A recording on a server, read piece by piece through fsspec: an optional extra.

Only the blocks that h5py asks for cross the network, and only the last `N_BLOCKS` of them are kept,
so memory is bounded whatever the file's size.
"""

import gc
import io
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

from colatent.config.location import PROTOCOLS, protocol, shown
from colatent.errors import InputError

BLOCK_BYTES = 2**20  # size of a request: NWB's metadata are scattered in small pieces
N_BLOCKS = 128
ATTEMPTS = 3
PAUSE = 1.0  # s, before another attempt; longer each time
TIMEOUT = 20.0  # s, to connect, and between two pieces of an answer
T = TypeVar("T")


class RemoteFile(io.RawIOBase):
    """A seekable file on a server, for h5py.

    Its `repr`, which h5py uses as the file name, is its location. An error while reading is kept as
    `failure`, because h5py may replace it by another.
    """

    def __init__(self, url: str, opened: Any, info: dict[str, Any]) -> None:
        self.url = url
        self.info = info
        self.failure: Exception | None = None
        self._opened = opened

    def __repr__(self) -> str:
        return shown(self.url)

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        return int(self._opened.seek(offset, whence))

    def tell(self) -> int:
        return int(self._opened.tell())

    def readinto(self, buffer: Any) -> int:
        at = self.tell()

        def read() -> bytes:
            self._opened.seek(at)
            content = bytes(self._opened.read(len(buffer)))
            # an empty answer would be taken for the end of the file
            if not content and len(buffer) and at < self.info["size"]:
                raise OSError(f"the server sent nothing at byte {at}")
            return content

        try:
            content = _attempt(read)
        except Exception as error:
            self.failure = error
            raise OSError(_reason(error)) from error
        buffer[: len(content)] = content
        return len(content)

    def close(self) -> None:
        if not self.closed:
            self._opened.close()
        super().close()


@contextmanager
def open_remote(url: str) -> Iterator[RemoteFile]:
    """Open a file on a server for reading, through fsspec.

    Raises:
        InputError: fsspec or its part for this protocol is not installed, the server or the file
            cannot be reached, the server cannot send parts of a file, reading broke off, or the
            file was replaced meanwhile.
    """
    filesystem, path = _filesystem(url)
    info = _info(url, filesystem, path)
    try:
        opened = filesystem.open(
            path,
            "rb",
            block_size=BLOCK_BYTES,
            cache_type="blockcache",
            cache_options={"maxblocks": N_BLOCKS},
        )
    except Exception as error:  # each protocol has errors of its own
        raise _unreachable(url, error) from error
    if not opened.seekable() or type(opened).__name__ == "HTTPStreamFile":
        raise _sends_no_parts(url)
    with RemoteFile(url, opened, info) as remote, _no_automatic_collection():
        try:
            yield remote
        except Exception:
            if remote.failure is None:
                raise
        if remote.failure is not None:
            raise _broken_off(url, remote.failure) from remote.failure
    if _version(_info(url, filesystem, path)) != _version(info):
        raise InputError(f"{shown(url)}: the file was replaced while it was read; run again")


def identity(url: str) -> dict[str, Any]:
    """Return what identifies this version of a remote file, as far as the protocol tells."""
    version = _version(_info(url, *_filesystem(url)))
    unread = {"sha256": None, "not_hashed": "a remote file, of which only parts were read"}
    return {"file": shown(url), **version, **unread}


def _version(info: dict[str, Any]) -> dict[str, Any]:
    version = {
        "etag": info.get("ETag"),
        "last_modified": info.get("LastModified") or info.get("Last-Modified"),
        "version": info.get("VersionId"),
    }
    return {"size": info["size"], **{key: str(value) for key, value in version.items() if value is not None}}


def _filesystem(url: str) -> tuple[Any, str]:
    package = PROTOCOLS[protocol(url)]
    try:
        import fsspec

        filesystem, path = fsspec.url_to_fs(url, **_time_limits(protocol(url)))
    except ImportError as error:
        also = f" {package}" if package == "s3fs" else ""
        raise InputError(
            f"{shown(url)}: reading from a server needs packages that are not installed ({error}); "
            f"run `pip install 'colatent[remote]'{also}`"
        ) from error
    except Exception as error:
        raise _unreachable(url, error) from error
    return filesystem, path


def _time_limits(scheme: str) -> dict[str, Any]:
    """Return time limits for a protocol's filesystem, which may wait for ever without them."""
    if scheme in ("http", "https"):
        import aiohttp

        limits = aiohttp.ClientTimeout(total=None, sock_connect=TIMEOUT, sock_read=TIMEOUT)
        return {"client_kwargs": {"timeout": limits}}
    if scheme == "s3":
        return {"config_kwargs": {"connect_timeout": TIMEOUT, "read_timeout": TIMEOUT}}
    return {}


def _info(url: str, filesystem: Any, path: str) -> dict[str, Any]:
    try:
        info = _attempt(lambda: filesystem.info(path))
    except Exception as error:
        raise _unreachable(url, error) from error
    if info.get("type") == "directory":
        raise InputError(f"{shown(url)}: this is a folder; give the URL of an NWB file")
    if not info.get("size"):
        what = "the file is empty" if info.get("size") == 0 else "the server does not say how long it is"
        raise InputError(f"{shown(url)}: {what}; download the file and give its path")
    return dict(info)


def _attempt(action: Callable[[], T]) -> T:
    """Retry after what may be a network hiccup, but not after an answer such as 404."""
    for attempt in range(1, ATTEMPTS):
        try:
            return action()
        except Exception as error:
            if not _may_pass(error):
                raise
            time.sleep(attempt * PAUSE)
    return action()


def _may_pass(error: BaseException) -> bool:
    cause = error.__cause__ or error
    status = getattr(cause, "status", None)
    if status is not None:
        return int(status) >= 500 or int(status) == 429
    return not isinstance(cause, FileNotFoundError | PermissionError | ValueError | TypeError)


def _unreachable(url: str, error: BaseException) -> InputError:
    cause = error.__cause__ or error
    if getattr(cause, "status", None) in (404, 410) or isinstance(cause, FileNotFoundError):
        return InputError(
            f"{shown(url)}: there is no such file on the server; check the nwb column of the sessions table"
        )
    remedy = "check the URL and the connection"
    if type(cause).__name__ == "NoCredentialsError":
        remedy = "set AWS credentials or, for a public bucket, `export FSSPEC_S3_ANON=true`"
    return InputError(f"{shown(url)}: cannot be reached ({_reason(error)}); {remedy}")


def _broken_off(url: str, error: Exception) -> InputError:
    if isinstance(error, ValueError) and "range requests" in str(error):  # so says fsspec
        return _sends_no_parts(url)
    return InputError(
        f"{shown(url)}: reading broke off ({_reason(error)}); check the connection, and run again"
    )


def _sends_no_parts(url: str) -> InputError:
    return InputError(
        f"{shown(url)}: the server does not send parts of files; download the file and give its path"
    )


def _reason(error: BaseException) -> str:
    """Return what went wrong in one line."""
    cause = error.__cause__ or error
    if isinstance(cause, TimeoutError):
        return f"no answer within {TIMEOUT:g} s"
    status = getattr(cause, "status", None)
    if status is not None:
        return f"the server answered {status} {getattr(cause, 'message', '')}".strip()
    return " ".join(f"{type(cause).__name__}: {cause}".split())


@contextmanager
def _no_automatic_collection() -> Iterator[None]:
    """Disable automatic garbage collection while a remote file is open.

    h5py holds its lock while it waits for fsspec's thread. If that thread happens to collect h5py
    objects, which takes the same lock, both wait for ever (h5py issue 2019).
    """
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()
