"""The house: each name means one thing, files and signatures are short, and light parts stay light."""

import ast
import subprocess
import sys
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SOURCE = sorted((ROOT / "src/colatent").rglob("*.py"))
MOST_LINES = 400
MOST_PARAMETERS = {"models": 7}  # of a function, by layer
OTHERS_PARAMETERS = 8


def nodes(kind: type[ast.AST]) -> Iterator[tuple[Path, ast.AST]]:
    for file in SOURCE:
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, kind):
                yield file.relative_to(ROOT / "src/colatent"), node


def test_a_class_name_means_one_thing():
    places = defaultdict(list)
    for file, node in nodes(ast.ClassDef):
        places[node.name].append(str(file))
    assert {name: files for name, files in places.items() if len(files) > 1} == {}


def test_no_file_is_longer_than_a_reader_can_hold():
    files = [*SOURCE, *(ROOT / "tests").rglob("*.py"), *(ROOT / "workflow").rglob("*.smk")]
    lines = {file.relative_to(ROOT).as_posix(): len(file.read_text().splitlines()) for file in files}
    assert {file: n for file, n in lines.items() if n > MOST_LINES} == {}


def test_no_function_takes_more_than_a_caller_can_hold():
    found = {}
    for file, node in nodes(ast.FunctionDef):
        parameters = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]
        n = len([p for p in parameters if p.arg not in ("self", "cls")])
        if n > MOST_PARAMETERS.get(file.parts[0], OTHERS_PARAMETERS):
            found[f"{file}: {node.name}"] = n
    assert found == {}


def test_the_top_of_the_package_has_few_modules():
    top = {file.name for file in (ROOT / "src/colatent").glob("*.py")}
    assert top == {"__init__.py", "cli.py", "errors.py"}


@pytest.mark.parametrize(
    ("statement", "heavy"),
    [
        ("from colatent.config.file import load_config; load_config('config/config.yaml')",
         "torch dask scipy sklearn pandas xarray zarr matplotlib pynwb"),
        ("import colatent, colatent.models, colatent.store, colatent.scoring, colatent.report, "
         "colatent.results, colatent.analyses",
         "torch dask scipy sklearn matplotlib pynwb"),
    ],
    ids=["config", "packages"],
)  # fmt: skip
def test_light_parts_load_nothing_heavy(statement, heavy):
    script = f"import sys; {statement}; print(*{{m.partition('.')[0] for m in sys.modules}})"
    loaded = subprocess.check_output([sys.executable, "-c", script], cwd=ROOT, text=True).split()
    assert set(loaded) & set(heavy.split()) == set()
