"""Snakemake and its jobs, started again and again from a process that has imported what they import.

Most of a start is imports of other packages. Run as a script, this waits on a socket for orders; for each it
forks, and says how the run ended. What is forked has yet to import this project's code, from where its
environment says. Snakemake starts its jobs in the same way, through a small program in place of Python.
Tests that kill processes, the real SLURM and the demo start them as users do.
"""

import array
import gc
import json
import os
import runpy
import selectors
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from functools import cache
from importlib import import_module
from pathlib import Path

from filelock import FileLock

_PLAIN = {"OMP_NUM_THREADS": "1", "PYTHONDONTWRITEBYTECODE": ""}  # jobs need not compile this package anew
_IMPORTED = (
    "snakemake.cli", "snakemake.report.html_reporter", "smart_open", "nbformat", "h5py", "zarr.codecs",
    "xarray", "pandas", "torch", "pynwb", "scipy.stats", "scipy.optimize", "sklearn.linear_model",
    "sklearn.model_selection", "matplotlib.figure", "matplotlib.backends.backend_agg", "jinja2",
    "rich.progress",
)  # fmt: skip
_LONGEST = 1200  # seconds: what hangs is not waited for
# In place of Python: lets the process that has imported all run a script or module, with this one's files.
_CLIENT = """#!{python} -SE
import array, json, os, socket, sys
arguments = sys.argv[1:]
if not arguments or arguments[0].startswith("-") and arguments[0] != "-m":
    os.execv("{python}", ["{python}", *arguments])
order = json.dumps(dict(folder=os.getcwd(), arguments=arguments, environment=dict(os.environ))).encode()
server = socket.socket(socket.AF_UNIX)
server.connect("{place}")
files = array.array("i", [0, 1, 2])
server.sendmsg([len(order).to_bytes(8, "big")], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, files)])
server.sendall(order)
sys.exit(int(server.recv(8) or 1))
"""


def run_snakemake(folder: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run Snakemake of this environment with ``folder`` as the working directory."""
    return run_python(folder, "-m", "snakemake", *arguments, **environment)


def run_python(folder: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run a script, or with -m a module, with ``folder`` as the working directory."""
    return subprocess.run(
        [warm_python(), *arguments],
        cwd=folder,
        env={**os.environ, **_PLAIN, **environment},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
    )


@cache
def warm_python() -> Path:
    """Return the program to give in place of Python; start what waits for orders, one for all workers."""
    owner = os.getppid() if "PYTEST_XDIST_WORKER" in os.environ else os.getpid()
    folder = Path(tempfile.gettempdir(), f"warm-{os.getuid()}-{owner}")
    with FileLock(f"{folder}.lock"):
        if not (folder / "python").exists():
            folder.mkdir()
            environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"} | _PLAIN
            command = [sys.executable, __file__, str(folder), str(owner)]
            server = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True)
            assert server.stdout and server.stdout.readline() == "ready\n"
    return folder / "python"


def _serve(folder: Path, owner: int) -> tuple[dict, list[int]] | None:
    """Return an order and its files in each process that is to carry one out; None once the owner is gone."""
    place, client = folder / "socket", folder / "python"
    client.write_text(_CLIENT.format(python=sys.executable, place=place))
    client.chmod(0o755)
    listening = socket.socket(socket.AF_UNIX)
    listening.bind(str(place))
    listening.listen()
    print("ready", flush=True)
    running: dict[int, socket.socket] = {}
    with selectors.DefaultSelector() as ready:
        ended, wake = os.pipe()
        os.set_blocking(wake, False)
        signal.set_wakeup_fd(wake)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        ready.register(listening, selectors.EVENT_READ)
        ready.register(ended, selectors.EVENT_READ)
        while _is_there(owner):
            for key, _ in ready.select(timeout=5):
                if key.fileobj is listening:
                    asking, _ = listening.accept()
                    order, files = _received(asking)
                    child = os.fork()
                    if child == 0:
                        signal.set_wakeup_fd(-1)
                        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
                        for end in (listening, asking, *running.values()):
                            end.close()
                        return order, files
                    for file in files:
                        os.close(file)
                    running[child] = asking
                    ready.register(asking, selectors.EVENT_READ, child)
                elif key.fileobj == ended:
                    os.read(ended, 4096)
                    for child in tuple(running):
                        done, status = os.waitpid(child, os.WNOHANG)
                        if not done:
                            continue
                        asking = running.pop(child)
                        if asking.fileno() >= 0:
                            ready.unregister(asking)
                            asking.sendall(b"%d" % (os.waitstatus_to_exitcode(status) % 256))
                            asking.close()
                else:  # whoever asked was killed, and so is what it asked for
                    ready.unregister(key.fileobj)
                    key.fileobj.close()
                    os.kill(key.data, signal.SIGTERM)
    shutil.rmtree(folder)
    Path(f"{folder}.lock").unlink()
    return None


def _is_there(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    return True


def _received(asking: socket.socket) -> tuple[dict, list[int]]:
    files = array.array("i")
    size, more, *_ = asking.recvmsg(8, socket.CMSG_SPACE(3 * files.itemsize))
    files.frombytes(more[0][2])
    order = b""
    while len(order) < int.from_bytes(size, "big"):
        order += asking.recv(65536)
    return json.loads(order), list(files)


def _become(order: dict, files: list[int], client: Path) -> None:
    """Be as if this process had been started with the order's environment, in its folder."""
    for number, file in enumerate(files):
        os.dup2(file, number)
        os.close(file)
    os.environ.clear()
    os.environ.update(order["environment"])
    os.chdir(order["folder"])
    own = filter(None, order["environment"].get("PYTHONPATH", "").split(os.pathsep))
    script = order["arguments"][0]
    sys.path[:1] = [order["folder"] if script == "-m" else str(Path(script).parent), *own]
    sys.argv[:] = order["arguments"]
    snakemake.workflow.Workflow._rundir = order["folder"]  # where it was imported
    tempfile.tempdir = None
    if script == "-m":
        sys.executable = str(client)  # for the jobs
    signal.alarm(_LONGEST)


if __name__ == "__main__":
    import snakemake.cli
    import snakemake.workflow

    for name in _IMPORTED:
        import_module(name)
    snakemake.cli.get_argument_parser()  # loads the plugins
    assert "colatent" not in sys.modules
    gc.freeze()
    folder = Path(sys.argv[1])
    found = _serve(folder, int(sys.argv[2]))
    if found is not None:
        _become(*found, folder / "python")
        if sys.argv[0] == "-m":
            del sys.argv[0]
            runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
        else:
            runpy.run_path(sys.argv[0], run_name="__main__")
