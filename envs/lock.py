"""Write the pip lock and the conda environment from what is installed in .venv now."""

import platform
import subprocess
import sys
from pathlib import Path

ENVS = Path(__file__).parent
HEADER = "# Made by `make lock`; installed by `make setup`. Python 3.11 or newer.\n"

# pip leaves setuptools out unless told otherwise, and torch needs it
command = [sys.executable, "-m", "pip", "freeze", "--all", "--exclude", "pip", "--exclude-editable"]
freeze = subprocess.run(command, capture_output=True, text=True, check=True).stdout
# a local version such as 2.13.0+cpu names one machine's build: the lock names the release
lines = [line.partition("+")[0] for line in freeze.splitlines() if not line.startswith("-")]
(ENVS / "requirements.txt").write_text(HEADER + "\n".join(lines) + "\n")

python = ".".join(platform.python_version_tuple()[:2])
(ENVS / "colatent.yaml").write_text(
    f"{HEADER}name: colatent\nchannels: [conda-forge, nodefaults]\ndependencies:\n"
    f"  - python ={python}\n  - pip\n  - pip:\n      - -r requirements.txt\n      - -e ..\n"
)
