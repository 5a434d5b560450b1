"""What the README shows works as shown."""

import re
import subprocess
import sys
from pathlib import Path

README = Path(__file__).parents[2] / "README.md"


def test_gpfa_example_runs_without_the_workflow():
    examples = re.findall(r"```python\n(.*?)```", README.read_text(), re.DOTALL)
    (example,) = [e for e in examples if "GPFA" in e]
    check = "import sys; assert latents.shape == (50, 100, 3); assert 'snakemake' not in sys.modules"
    subprocess.run([sys.executable, "-c", example + check], check=True, timeout=120)


def test_it_opens_with_the_two_commands():
    text = README.read_text()
    assert 0 < text.index("make demo") < text.index("make test") < 600


def test_the_examples_it_names_exist():
    named = re.findall(r"`(\w+\.yaml)` \|", README.read_text())
    assert named
    assert all((README.parent / "config/examples" / name).is_file() for name in named)
