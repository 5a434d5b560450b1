"""What the README shows works as shown."""

import re
import subprocess
import sys
from pathlib import Path

README = Path(__file__).parents[2] / "README.md"


def test_gpfa_examples_run_without_the_workflow():
    examples = re.findall(r"```python\n(.*?)```", README.read_text(), re.DOTALL)
    one, several = [e for e in examples if "GPFA" in e]
    checks = "assert latents.shape == (50, 100, 3)", "assert latents.shape == (50, 100, 5)"
    shared = "assert emg_from_spikes.shape == (50, 100, 6) and model.delay_.shape == (2, 5)"
    light = "import sys; assert 'snakemake' not in sys.modules"
    code = "\n".join([one, checks[0], several, checks[1], shared, light])
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)


def test_it_opens_with_the_two_commands():
    text = README.read_text()
    assert 0 < text.index("make demo") < text.index("make test") < 600


def test_the_examples_it_names_exist():
    named = re.findall(r"`(\w+\.yaml)` \|", README.read_text())
    assert named
    assert all((README.parent / "config/examples" / name).is_file() for name in named)
