"""Checksums of the files that one job wrote into a folder, in the format of ``sha256sum``."""

from collections.abc import Iterable
from pathlib import Path

from colatent.errors import InputError
from colatent.store.atomic import atomically
from colatent.store.stores import anew, file_sha256

CHECKSUMS = "SHA256SUMS"  # `sha256sum --check SHA256SUMS` in the folder checks them, too


def write_checksums(folder: str | Path, files: Iterable[Path]) -> None:
    """Leave the checksums of files below a folder in it; those that are there from before go."""
    folder = Path(folder)
    lines = [f"{file_sha256(file)}  {file.relative_to(folder).as_posix()}\n" for file in sorted(files)]
    with atomically(folder / CHECKSUMS) as made:
        made.write_text("".join(lines), encoding="utf-8")


def check_files(folder: str | Path, made: Path, expected: Iterable[Path]) -> dict[Path, str]:
    """Return the files that were written into a folder, and the list of their checksums, with the checksums.

    Args:
        made: the output that is made anew where something is wrong.
        expected: files that must be among them.

    Raises:
        InputError: a file is not as it was written.
    """
    folder = Path(folder)
    found, checksums = {}, _read(folder / CHECKSUMS, made)
    for file in expected:
        if file.relative_to(folder).as_posix() not in checksums:
            raise InputError(f"{file}: not in {folder / CHECKSUMS}; {anew(made)}")
    for name, checksum in checksums.items():
        file = folder / name
        if not file.is_file():
            raise InputError(f"{file}: the file is missing; {anew(made)}")
        if file_sha256(file) != checksum:
            raise InputError(f"{file}: the file is not as it was written; {anew(made)}")
        found[file] = checksum
    return found | {folder / CHECKSUMS: file_sha256(folder / CHECKSUMS)}


def _read(file: Path, made: Path) -> dict[str, str]:
    try:
        lines = [line.split("  ", 1) for line in file.read_text(encoding="utf-8").splitlines()]
        checksums = {name: checksum for checksum, name in lines}
    except (OSError, ValueError):
        checksums = {}
    if not checksums:
        raise InputError(f"{file}: the checksums are missing or damaged; {anew(made)}")
    return checksums
