"""Checksums of the files that one job wrote into a folder, in the format of ``sha256sum``."""

from collections.abc import Iterable
from pathlib import Path

from colatent.errors import InputError
from colatent.store.atomic import write_text
from colatent.store.stores import DamagedStoreError, anew, file_sha256

CHECKSUMS = "SHA256SUMS"  # `sha256sum --check SHA256SUMS` in the folder checks them, too


def write_checksums(folder: str | Path, files: Iterable[Path]) -> None:
    """Leave the checksums of files below a folder in it; those that are there from before go."""
    folder = Path(folder)
    lines = [f"{file_sha256(file)}  {file.relative_to(folder).as_posix()}\n" for file in sorted(files)]
    write_text(folder / CHECKSUMS, "".join(lines), "the list of checksums")


def check_file(file: Path, checksum: str, made: Path) -> None:
    """Raise DamagedStoreError unless a file is as it was written; ``made`` is the output to redo."""
    if not file.is_file():
        raise DamagedStoreError(file, "the file is missing", anew(made))
    if file_sha256(file) != checksum:
        raise DamagedStoreError(file, "the file is not as it was written", anew(made))


def check_files(folder: str | Path, made: Path, expected: Iterable[Path]) -> dict[Path, str]:
    """Return the files that were written into a folder, and the list of their checksums, with the checksums.

    Args:
        made: the output to redo where something is wrong.
        expected: files that must be among them.

    Raises:
        InputError: a file is not as it was written.
    """
    sums = Path(folder) / CHECKSUMS
    try:
        lines = [line.split("  ", 1) for line in sums.read_text(encoding="utf-8").splitlines()]
        found = {sums.parent / name: checksum for checksum, name in lines}
    except (OSError, ValueError):
        found = {}
    if not found:
        raise InputError(f"{sums}: the checksums are missing or damaged; {anew(made)}")
    if missing := [file for file in expected if file not in found]:
        raise InputError(f"{missing[0]}: not in {sums}; {anew(made)}")
    for file, checksum in found.items():
        check_file(file, checksum, made)
    return found | {sums: file_sha256(sums)}
