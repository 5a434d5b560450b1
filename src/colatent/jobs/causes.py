"""Why a job most likely failed, and what to change."""

import re
from typing import NamedTuple


class Cause(NamedTuple):
    """A likely cause.

    Attributes:
        name: what happened.
        remedy: what to change.
        signs: pattern of what is found in logs and in the words of errors.
    """

    name: str
    remedy: str
    signs: str


# the first that fits is told; a rule's name is put into the remedy
CAUSES = (
    Cause(
        "time limit",
        "run the same command again, a fit goes on from its checkpoint if it has one; give it more with "
        "--set-resources {rule}:runtime=480 (minutes)",
        r"DUE TO TIME LIMIT|TimeLimit",
    ),
    Cause(
        "full disk, or quota",
        "make room where the results and the temporary files (TMPDIR) lie, and run the same command again",
        # the last two are PyTorch's, which does not say why
        r"\[Errno (28|122)\]|No space left on device|Disk quota exceeded|unexpected pos|file write failed",
    ),
    Cause(
        "out of memory of the GPU",
        "make it smaller: a smaller batch_size, fewer latents; let fewer jobs share the GPU "
        "(COLATENT_FITS_PER_GPU), or take a larger one",
        r"CUDA out of memory|CUDA error: out of memory|CU[A-Z]+_STATUS_ALLOC_FAILED",
    ),
    Cause(
        "out of memory",
        "give it more with --set-resources {rule}:mem_mb=16000, or make it smaller: fewer channels, wider "
        "bins, a smaller read_mb (ingest)",
        r"out of memory|MemoryError|OutOfMemory|oom[-_ ]?kill|Cannot allocate memory|bad_alloc|KilledWorker",
    ),
    Cause(
        "busy GPU",
        "run the same command again when no other program has the GPU to itself (nvidia-smi shows which), or "
        "set `device: cpu` in the config",
        r"device\(s\) is/are busy or unavailable|devices are busy or unavailable",
    ),
    Cause(
        "missing GPU",
        "set `device: auto` (or cpu) in the config, or run it where there is a GPU: on a cluster, check the "
        "partition and the GPU request in the profile",
        r"No CUDA|no GPU|not compiled with CUDA|NVIDIA driver|CUDA driver|invalid device ordinal"
        r"|no CUDA-capable device",
    ),
    Cause(
        "NaN: the computation left the finite numbers",
        "lower the model's learning_rate, or use fewer latents; look in the report's data card for channels "
        "that are constant or out of scale",
        # nan as a value, not as a part of a path
        r"never finite|(?<![\w/\\.-])-?(nan|NaN)(?![\w/\\-]|\.\w)|infs or NaNs|LinAlgError"
        r"|not positive[- ]definite|FloatingPointError",
    ),
    Cause(
        "told to stop: cancelled (Ctrl-C, scancel, a closed terminal), its node was needed, or near its time "
        "limit",
        "run the same command again; if it was the time limit, with --set-resources {rule}:runtime=480 "
        "(minutes)",
        r"stopped by SIG(TERM|USR1|INT|HUP)|CANCELLED|PREEMPT|NODE FAILURE|REQUEUE",
    ),
)
KILLED = Cause(
    "killed without a word: out of memory, or with Snakemake",
    "run the same command again; if it dies again, give it more memory with "
    "--set-resources {rule}:mem_mb=16000",
    "",
)


def likely_cause(text: str) -> Cause | None:
    """Return the likely cause that the words of an error or a log point to, or None."""
    return next((cause for cause in CAUSES if re.search(cause.signs, text)), None)
