"""Tables of scores as files: whatever channels are called, a row is a row."""

import csv
import errno
import os
from pathlib import Path

import pandas as pd
import pytest
from support import scores

from colatent.errors import InputError
from colatent.results.compare import compare_tables
from colatent.results.manifest import _refuse_other_scores
from colatent.scoring.tables import SCORE_COLUMNS, join_scores, read_scores, write_table
from colatent.store.checksums import CHECKSUMS, check_files
from colatent.store.stores import file_sha256, write_store

NAMES = [
    "nan", "", "NA", "01", "1e5", "-inf", "None", "pooled_", "a,b", 'q"x', '"', "line\nbreak", "cr\rx", "\r",
    "crlf\r\nx", " lead", "trail ", "é\u2028\x0b\x85", "'=cmd", "\t", "pooled",
]  # fmt: skip


def test_names_and_values_survive(tmp_path):
    table = scores("m", NAMES)
    write_table(table, tmp_path / "t.csv")
    pd.testing.assert_frame_equal(read_scores(tmp_path / "t.csv"), table, check_exact=True)
    with (tmp_path / "t.csv").open(newline="") as file:
        rows = list(csv.reader(file))
    assert rows[0] == SCORE_COLUMNS
    assert [row[SCORE_COLUMNS.index("channel")] for row in rows[1:]] == NAMES


def test_a_table_that_cannot_be_written_leaves_the_old_one(tmp_path, monkeypatch):
    write_table(scores("m", NAMES), tmp_path / "t.csv")
    before = (tmp_path / "t.csv").read_bytes()

    def half(self: pd.DataFrame, path: Path, **_: object) -> None:
        Path(path).write_text("half")
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(pd.DataFrame, "to_csv", half)
    with pytest.raises(OSError, match="No space"):
        write_table(scores("other", NAMES), tmp_path / "t.csv")
    assert os.listdir(tmp_path) == ["t.csv"] and (tmp_path / "t.csv").read_bytes() == before


@pytest.fixture
def joined(tmp_path: Path) -> Path:
    """A tree of two models' tables, one with the fewest quotes, as they once were, and the joined one."""
    plain, nasty = scores("plain", ["a", "b", "c", "x,y"]), scores("nasty", NAMES)
    folder = tmp_path / "s/score"
    folder.mkdir(parents=True)
    plain.to_csv(folder / "plain.csv", index=False)
    write_table(nasty, folder / "nasty.csv")
    tables = [folder / f"{m}.csv" for m in ("plain", "nasty")]
    stores = [t.with_suffix("") for t in tables]
    for table, store in zip(tables, stores, strict=True):
        write_store(store, {}, {"stage": "score", "inputs": {}, "table": file_sha256(table)})
    join_scores([str(t) for t in tables], stores, tmp_path)
    expected = pd.concat([plain, nasty], ignore_index=True)
    pd.testing.assert_frame_equal(read_scores(tmp_path / "scores.csv"), expected, check_exact=True)
    return tmp_path


def test_the_joined_table_is_known_to_be_of_its_parts(joined):
    names = ["s/score/plain", "s/score/nasty"]
    _refuse_other_scores(joined, names)
    table = joined / "scores.csv"
    whole = table.read_bytes()
    head, first, rest = whole.split(b"\n", 2)
    swapped = head.replace(b'"fold","seed"', b'"seed","fold"')
    for other in (
        whole.replace(b"cr\rx", b"cr\ry"),
        b"\n".join((head, rest)),
        b"\n".join((head, first, first, rest)),
        b"\n".join((swapped, first, rest)),
        whole[: whole.rindex(b'"01"')],
        b"",
    ):
        assert other != whole
        table.write_bytes(other)
        with pytest.raises(InputError, match="joined from other tables"):
            _refuse_other_scores(joined, names)


def test_joined_tables_have_checksums(joined):
    found = check_files(joined, joined / "scores.csv", [joined / "scores.csv"])
    assert {file.name for file in found} == {"scores.csv", "paired_differences.csv", CHECKSUMS}
    (joined / "paired_differences.csv").write_text("edited")
    with pytest.raises(InputError, match=r"paired_differences.csv: the file is not as it was written"):
        check_files(joined, joined / "scores.csv", [])


def test_quotes_are_no_difference(joined, tmp_path):
    table = read_scores(joined / "scores.csv").query("model == 'plain'")
    write_table(table, tmp_path / "quoted.csv")
    assert compare_tables(joined / "s/score/plain.csv", tmp_path / "quoted.csv") == []
    write_table(table.assign(channel=["a", "b", "c", "x,z"]), tmp_path / "other.csv")
    assert compare_tables(joined / "s/score/plain.csv", tmp_path / "other.csv")
    assert compare_tables(joined / "scores.csv", joined / "scores.csv") == []
