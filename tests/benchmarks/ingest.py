"""Speed and memory of ingest, each as ratios within one run.

    python tests/benchmarks/ingest.py spikes
    python tests/benchmarks/ingest.py emg --gib 0.5 1 2 4 --folder /tmp

`emg` writes a raw EMG file of each size (uncompressed int16, 64 channels, 2 kHz) and deletes it.
"""

import argparse
import multiprocessing
import os
import resource
import shutil
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import dask
import h5py
import numpy as np
import zarr

from colatent.ingest.alignment import Windows
from colatent.ingest.counts import count_spikes
from colatent.ingest.signals.biquads import filter_both_ways
from colatent.ingest.signals.clocks import RegularClock
from colatent.ingest.signals.envelope import envelope
from colatent.ingest.signals.series import open_series

HOUR, UNITS, RATE, BIN = 3600, 100, 20.0, 0.01
CHANNELS, EMG_RATE = 64, 2000.0
BLOCK_ROWS = 2**16


def seconds(work: Callable[[], object], repeats: int = 5) -> float:
    times = []
    for _ in range(repeats):
        begin = time.perf_counter()
        work()
        times.append(time.perf_counter() - begin)
    return float(np.median(times))


def spikes() -> None:
    import neo
    import pynapple
    import quantities
    from elephant.conversion import BinnedSpikeTrain

    rng = np.random.default_rng(0)
    trains = [np.sort(rng.uniform(0, HOUR, rng.poisson(RATE * HOUR))) for _ in range(UNITS)]
    ns = [np.rint(t * 1e9).astype(np.int64) for t in trains]
    bins, width = round(HOUR / BIN), round(BIN * 1e9)
    windows = Windows(np.array([0]), np.array([bins]), width)
    counts = count_spikes(ns, UNITS, windows)[0]
    assert counts.sum() == sum(map(len, trains))
    edges = np.arange(bins + 1) * width
    assert all((counts[:, u] == np.histogram(s, edges)[0]).all() for u, s in enumerate(ns))
    print(f"every one of {int(counts.sum())} spikes is counted; counts equal numpy.histogram's")
    neo_trains = [neo.SpikeTrain(t * quantities.s, t_stop=HOUR * quantities.s) for t in trains]
    group = pynapple.TsGroup(
        {u: pynapple.Ts(t) for u, t in enumerate(trains)}, time_support=pynapple.IntervalSet(0, HOUR)
    )
    ours = seconds(lambda: count_spikes(ns, UNITS, windows))
    print(f"colatent, dense                 {ours:.3f} s, without compiling")
    # no dense counts can be had in less: every spike read and every count touched, once
    floor = seconds(lambda: ([train.sum() for train in ns], np.full(counts.size, 0, counts.dtype)))
    print(f"reading spikes, writing zeros   {floor:.3f} s = {floor / ours:.2f} x colatent's")
    for name, work in {
        "colatent, as float64": lambda: count_spikes(ns, UNITS, windows).astype(np.float64),
        "elephant BinnedSpikeTrain": lambda: BinnedSpikeTrain(neo_trains, bin_size=10 * quantities.ms),
        "elephant, made dense": lambda: BinnedSpikeTrain(neo_trains, bin_size=10 * quantities.ms).to_array(),
        "pynapple count": lambda: group.count(BIN),
    }.items():
        other = seconds(work)
        print(f"{name:30s}  {other:.3f} s = {other / ours:.1f} x colatent's")


def write_emg(path: Path, gib: float) -> None:
    rows = int(gib * 2**30 / (2 * CHANNELS))
    rng = np.random.default_rng(0)
    noise = rng.normal(0, 1000, (BLOCK_ROWS, CHANNELS)).astype(np.int16)
    with h5py.File(path, "w") as file:
        data = file.create_dataset("emg/data", (rows, CHANNELS), "i2", chunks=(8192, CHANNELS))
        data.attrs.update(unit="volts", conversion=1e-6, offset=0.0)
        file["emg/starting_time"] = 0.0
        file["emg/starting_time"].attrs["rate"] = EMG_RATE
        for first in range(0, rows, BLOCK_ROWS):
            data[first : first + BLOCK_ROWS] = noise[: rows - first]


def read_and_write(path: Path, out: Path, compute: bool) -> None:
    """Read all blocks and write as many rows of result; with `compute`, the rows are the envelope."""
    with h5py.File(path) as file:
        raw = open_series(file["emg"], None, 3.0, np.float32)
        slow = envelope(raw, SimpleNamespace(highpass=40.0, lowpass=10.0))
        assert isinstance(slow.clock, RegularClock)
        factor, size = round(EMG_RATE / slow.clock.rate), slow.clock.size
        block = BLOCK_ROWS // factor
        shape = (size, CHANNELS)
        store = zarr.create_array(out, shape=shape, chunks=(block, CHANNELS), dtype="f4", overwrite=True)

        def put(first: int, last: int) -> None:
            if compute:
                store[first:last] = slow.read(first, last)
            else:
                rows = file["emg/data"][first * factor : last * factor]
                store[first:last] = rows[::factor][: last - first]

        tasks = [dask.delayed(put)(i, min(i + block, size)) for i in range(0, size, block)]
        dask.compute(*tasks, scheduler="threads", num_workers=os.cpu_count())


def measured(path: str, out: str, compute: bool, pipe) -> None:  # type: ignore[no-untyped-def]
    if compute:  # compiling takes the same second whatever the file's size
        for dtype in (np.float32, np.float64):
            filter_both_ways(np.zeros((1, CHANNELS), np.float32), np.zeros((2, 6), dtype))
    begin = time.perf_counter()
    read_and_write(Path(path), Path(out), compute)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    pipe.send((time.perf_counter() - begin, peak))


def in_new_process(path: Path, out: Path, compute: bool) -> tuple[float, float]:
    """Seconds and peak resident memory (GiB) of a process of its own."""
    context = multiprocessing.get_context("spawn")
    receive, send = context.Pipe(duplex=False)
    process = context.Process(target=measured, args=(str(path), str(out), compute, send))
    process.start()
    result = receive.recv()
    process.join()
    return result


def emg(sizes: list[float], folder: Path) -> None:
    per_gib = []
    for gib in sizes:
        if shutil.disk_usage(folder).free < 2 * gib * 2**30 + 2**30:
            raise SystemExit(f"{folder}: too little free space for a file of {gib} GiB")
        with tempfile.TemporaryDirectory(dir=folder) as place:
            path, out = Path(place) / "emg.h5", Path(place) / "out.zarr"
            write_emg(path, gib)
            base, _ = in_new_process(path, out, compute=False)
            base, _ = min((base, 0.0), in_new_process(path, out, compute=False))
            full, peak = in_new_process(path, out, compute=True)
        per_gib.append(full / gib)
        print(
            f"{gib:g} GiB: envelope {full:.1f} s = {full / base:.2f} x reading and writing ({base:.1f} s); "
            f"peak memory {peak:.2f} GiB; {full / gib:.2f} s/GiB, {per_gib[-1] / per_gib[0]:.2f} x the first",
            flush=True,
        )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("what", choices=["spikes", "emg"])
    parser.add_argument("--gib", type=float, nargs="+", default=[0.5, 1.0, 2.0, 4.0])
    parser.add_argument("--folder", type=Path, default=Path(tempfile.gettempdir()))
    options = parser.parse_args()
    print(f"{os.cpu_count()} cores")
    spikes() if options.what == "spikes" else emg(options.gib, options.folder)
