"""Which device a fit runs on, and that no other fit of this machine has it.

Snakemake counts GPUs but hands out none. A job takes the first device whose lock is free; the lock goes
with the process, however that ends. A small fit leaves most of a GPU idle: who says so in the environment
variable COLATENT_FITS_PER_GPU has several share each.

Locks lie in one folder for the whole machine and all its users; containers that have a `/tmp` of their own
do not see them. A device goes by its name in CUDA_VISIBLE_DEVICES: runs side by side must name it alike.
"""

import os
import re
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout

from colatent.errors import InputError

VISIBLE = "CUDA_VISIBLE_DEVICES"
SHARED = "COLATENT_FITS_PER_GPU"
JOB = "SLURM_JOB_ID"
LOCKS = Path("/tmp/colatent-gpus")  # not where TMPDIR says: that differs between jobs
MOST_FITS = 64
POLL_S = 0.5


@contextmanager
def reserved_device(wanted: str, progress: Callable[[str], None]) -> Iterator[str]:
    """Reserve a GPU for the body, or say that it runs on the CPU.

    Jobs of all users on this machine wait for one another; those inside a job of SLURM, which has its devices
    for itself, only for one another there: runs side by side in it, or what outlived an earlier one.

    Args:
        wanted: "cpu", "cuda" or "auto".

    Yields:
        "cuda" or "cpu".

    Raises:
        InputError: "cuda" is wanted, and there is none; or its lock cannot be opened.
    """
    if wanted == "cpu":
        yield "cpu"
        return
    import torch

    with ExitStack() as stack:
        if devices := _visible_devices(torch.cuda.device_count()):
            chosen = stack.enter_context(_locked(devices, progress))
            stack.callback(_see, os.environ.get(VISIBLE))
            _see(chosen)
            stack.callback(progress, f"GPU {chosen} is given back")
            progress(f"GPU {chosen} is reserved for this job")
        if torch.cuda.is_available():
            progress(f"on the GPU {torch.cuda.get_device_name()}")
            yield "cuda"
        elif wanted == "auto":
            progress("device: auto, and there is no GPU here that PyTorch can use: running on the CPU")
            yield "cpu"
        else:
            raise InputError(
                "device: cuda, and there is no GPU here that PyTorch can use; set `device: auto` (or cpu) in "
                "the config, or run it where there is one (on a cluster: partition and GPU request in the "
                "profile)"
            )


def fits_per_gpu() -> int:
    """Return how many fits may have the same GPU at the same time; 1 unless the environment says more.

    Raises:
        InputError: what it says is no such number.
    """
    said = os.environ.get(SHARED, "1")
    if not (re.fullmatch("[0-9]{1,9}", said) and 1 <= int(said) <= MOST_FITS):
        raise InputError(
            f"the environment variable {SHARED} is {said!r}; set it to a number from 1 to {MOST_FITS}, "
            "or unset it"
        )
    return int(said)


def device_name(used: str) -> str:
    """Return what a report calls the device of `reserved_device`: "cpu", or "cuda" with the GPU's name."""
    if used == "cpu":
        return used
    import torch

    return f"{used} ({torch.cuda.get_device_name()})"


def _visible_devices(count: int) -> list[str]:
    named = os.environ.get(VISIBLE)
    if named is None:
        return [str(i) for i in range(count)]
    return [name for part in named.split(",") if (name := part.strip()) and name != "-1"]


def _see(devices: str | None) -> None:
    """Let libraries see these devices only; all, if none are named."""
    os.environ.pop(VISIBLE, None)
    os.environ.update({} if devices is None else {VISIBLE: devices})


@contextmanager
def _locked(devices: list[str], progress: Callable[[str], None]) -> Iterator[str]:
    """Hold a lock of the first of the devices that has one free: as many as fits may share it."""
    places = [(device, _lock_file(device, i)) for i in range(fits_per_gpu()) for device in devices]
    if (free := _first_free(places)) is None:
        progress(f"waiting for a GPU: other jobs have {', '.join(devices)}")
    while free is None:
        time.sleep(POLL_S)
        free = _first_free(places)
    device, lock = free
    try:
        yield device
    finally:
        if JOB in os.environ:  # each job has files of its own: they would pile up
            Path(lock.lock_file).unlink(missing_ok=True)
        lock.release()


def _first_free(places: list[tuple[str, Path]]) -> tuple[str, FileLock] | None:
    """Lock the first device that is free; the files, and their folder, are for all users."""
    for device, file in places:
        lock = FileLock(file, timeout=0, mode=0o666, thread_local=False)
        try:
            if not file.parent.is_dir():
                file.parent.mkdir()
                file.parent.chmod(0o777)
            lock.acquire()
        except Timeout:
            continue
        except OSError as error:
            raise InputError(
                f"{file}: this lock of a GPU cannot be opened ({error.strerror}); remove it or change "
                f"permissions, or correct the environment variable {VISIBLE}, or set `device: cpu` in the "
                "config"
            ) from None
        with suppress(PermissionError):
            os.utime(file)  # what is old in /tmp is cleared away, held or not
        return device, lock
    return None


def _lock_file(name: str, place: int) -> Path:
    # with cgroups, device 0 of one job of SLURM is not that of another; and some give a GPU to several jobs
    if JOB in os.environ:
        name = f"job-{os.environ[JOB]}-{name}"
    return LOCKS / f"{name.replace('/', '_')}{f'-{place}' if place else ''}.lock"
