"""Snakemake, started again and again from a process that has imported what it imports.

Two thirds of a start are imports of Snakemake's own. Run as a script, this waits for lines of JSON on
standard input; for each it forks, and says how the run ended. What is forked has yet to import this project's
code, from where its environment says; jobs are processes as ever.
"""

import json
import os
import runpy
import signal
import subprocess
import sys
import tempfile
from functools import cache
from importlib import import_module
from pathlib import Path

_PLAIN = {"OMP_NUM_THREADS": "1", "PYTHONDONTWRITEBYTECODE": ""}  # jobs need not compile this package anew


def run_snakemake(folder: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run Snakemake of this environment with ``folder`` as the working directory."""
    with tempfile.NamedTemporaryFile() as out, tempfile.NamedTemporaryFile() as err:
        order = {
            "folder": str(Path(folder).absolute()),
            "arguments": arguments,
            "environment": {**os.environ, **_PLAIN, **environment},
            "files": [os.devnull, out.name, err.name],
        }
        server = _server()
        assert server.stdin and server.stdout
        server.stdin.write(json.dumps(order) + "\n")
        server.stdin.flush()
        code = int(server.stdout.readline())
        said = (Path(file.name).read_text() for file in (out, err))
        return subprocess.CompletedProcess(arguments, code, *said)


@cache
def _server() -> subprocess.Popen[str]:
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"} | _PLAIN
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    return subprocess.Popen([sys.executable, __file__], env=environment, text=True, **pipes)


def _serve() -> dict | None:
    """Return the order in a process that is to carry it out; None once there are no more."""
    for line in sys.stdin:
        child = os.fork()
        if child == 0:
            return json.loads(line)
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
    return None


def _become(order: dict) -> None:
    """Be as if this process had been started with the order's environment, in its folder."""
    for number, file in enumerate(order["files"]):
        opened = os.open(file, os.O_RDWR)
        os.dup2(opened, number)
        os.close(opened)
    os.environ.clear()
    os.environ.update(order["environment"])
    os.chdir(order["folder"])
    own = filter(None, order["environment"].get("PYTHONPATH", "").split(os.pathsep))
    sys.path[:1] = [order["folder"], *own]
    sys.argv[1:] = order["arguments"]
    snakemake.workflow.Workflow._rundir = order["folder"]  # where it was imported
    tempfile.tempdir = None
    signal.alarm(600)


if __name__ == "__main__":
    import snakemake.cli
    import snakemake.workflow

    for name in ("snakemake.report.html_reporter", "smart_open", "nbformat", "h5py", "xarray", "zarr.codecs"):
        import_module(name)
    snakemake.cli.get_argument_parser()  # loads the plugins
    assert "colatent" not in sys.modules
    order = _serve()
    if order is not None:
        _become(order)
        runpy.run_module("snakemake", run_name="__main__", alter_sys=True)
