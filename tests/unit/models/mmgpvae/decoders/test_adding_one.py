"""A further decoder is one file and its entry in the table: config, schema and model then know it."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import colatent

FILE = '''
import torch
from colatent.models.mmgpvae.decoders.base import LatentDecoder
from colatent.models.mmgpvae.layers import DTYPE, dense


class QuadraticDecoder(LatentDecoder):
    """eta = C z + D z^2 + d."""

    def __init__(self, options, generator):
        super().__init__()
        self.readout = dense(2 * len(options.latents), options.n_channels, generator, gain=0.5)

    def forward(self, latents):
        z = latents.to(DTYPE)
        return self.readout(torch.cat([z, z.square()], dim=-1))
'''
CODE = "colatent.models.mmgpvae.decoders.quadratic:QuadraticDecoder"
ENTRY = f'DecoderKind("quadratic", "{CODE}"),'
USE = """
import numpy as np
from colatent.config import MMGPVAESettings
from colatent.data.trials import Trials
from colatent.models.base import FitRun
from colatent.models.mmgpvae.model import MMGPVAE

assert "quadratic" in str(MMGPVAESettings.model_json_schema()["properties"]["decoder"])
decoder = {"a": "quadratic"}
settings = MMGPVAESettings(kind="mm-gpvae", latents={"a": 1}, decoder=decoder, epochs=2, restarts=1)
a = np.random.default_rng(0).normal(size=(6, 8, 3))
trials = Trials({"a": a}, {"a": a < np.inf}, {"a": ("0", "1", "2")}, {"a": "continuous"}, 0.02)
model = MMGPVAE(settings, trials.layout).fit(trials, FitRun())
assert type(model.network.modality("a").decoder).__name__ == "QuadraticDecoder"
again = MMGPVAE.from_state(settings, trials.layout, model.state())
one, other = (m.predict(trials, ("a",), "a").mean for m in (model, again))
assert np.isfinite(one).all() and (one == other).all()
"""


def test_a_decoder_is_one_file_and_its_entry(tmp_path: Path) -> None:
    package = tmp_path / "colatent"
    source = Path(colatent.__file__).parent
    shutil.copytree(source, package, ignore=shutil.ignore_patterns("__pycache__"))
    (package / "models/mmgpvae/decoders/quadratic.py").write_text(FILE)
    table = package / "config/models/mmgpvae.py"
    first = 'DecoderKind("mlp"'
    assert table.read_text().count(first) == 1
    table.write_text(table.read_text().replace(first, f"{ENTRY} {first}"))
    environment = os.environ | {"PYTHONPATH": str(tmp_path)}
    run = subprocess.run([sys.executable, "-c", USE], env=environment, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
