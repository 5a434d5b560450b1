"""Named arrays in one safetensors file: a JSON header, then plain numbers. Reading it executes no code."""

from collections.abc import Mapping
from os import PathLike
from pathlib import Path

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load, save

from colatent.errors import InputError

SUFFIX = ".safetensors"


def save_arrays(file: str | PathLike[str], arrays: Mapping[str, np.ndarray]) -> None:
    """Write arrays of numbers or booleans, of any shape; the same arrays give the same bytes."""
    # the library takes an array's memory as it lies; np.ascontiguousarray would make a scalar a vector
    Path(file).write_bytes(save({name: np.asarray(a, order="C") for name, a in arrays.items()}))


def load_arrays(file: str | PathLike[str]) -> dict[str, np.ndarray]:
    """Return the arrays of ``save_arrays``, by name.

    Raises:
        InputError: the file cannot be read, or is no such file.
    """
    try:
        arrays = load(Path(file).read_bytes())
    except OSError as error:
        raise InputError(f"{file}: it cannot be read ({error.strerror or error})") from error
    # beside its own error, the library lets pass: a dtype that NumPy lacks, a shape that it refuses
    except (SafetensorError, KeyError, ValueError) as error:
        raise InputError(f"{file}: no safetensors file, or a damaged one") from error
    return dict(sorted(arrays.items()))
