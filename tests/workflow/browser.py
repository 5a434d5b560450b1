"""A page opened in headless Chromium, without a network."""

import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import NamedTuple

CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
OPTIONS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-sync",
    "--disable-component-update",
    "--enable-logging=stderr",
    "--virtual-time-budget=5000",
]


class Opened(NamedTuple):
    """The document after its script has run, what the console said, and what was asked of the network."""

    document: str
    console: list[str]
    requests: str


def open_page(page: Path) -> Opened:
    """Open a page; every host name is unknown."""
    with tempfile.TemporaryDirectory() as folder:
        net_log = Path(folder, "net.json")
        run = subprocess.run(
            [
                str(CHROMIUM), *OPTIONS, f"--user-data-dir={folder}/profile", f"--log-net-log={net_log}",
                "--host-resolver-rules=MAP * ~NOTFOUND", "--dump-dom", page.resolve().as_uri(),
            ],
            capture_output=True, text=True, timeout=120, check=True,
        )  # fmt: skip
        console = [line for line in run.stderr.splitlines() if "CONSOLE" in line]
        return Opened(run.stdout, console, net_log.read_text(errors="replace"))
