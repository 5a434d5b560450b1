"""nwbinspector's findings about a file, added to our own."""

from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

from colatent.config.location import is_url, shown
from colatent.errors import InputError
from colatent.ingest.findings import Findings
from colatent.ingest.nwb.file import open_nwb

# CRITICAL for a public archive, but irrelevant to the data: a file without a subject can be analysed.
_METADATA = "check_subject"
# covered by our own checks `unsorted-spikes` and `duplicate-spikes`, and by the key `transpose`
_OURS = (
    "check_ascending_spike_times",
    "check_data_orientation",
    "check_roi_response_series_dims",
    "check_electrical_series_dims",
)


def check_best_practice(
    nwb: str | Path, findings: Findings, used: Collection[str], allow_external: bool = False
) -> None:
    """Record what nwbinspector says; its CRITICAL findings about data follow the action of `inspector`.

    Args:
        nwb: a file, or a URL, that `open_nwb` accepts.
        findings: collects the messages, one row for each kind of message.
        used: paths of the objects that are read: what is CRITICAL in others does no harm.
        allow_external: whether links may lead to other files.

    Raises:
        InputError: a CRITICAL finding, unless `inspector` is set to warn.
    """
    from nwbinspector import Importance, inspect_nwbfile

    messages = _inspect_remote(nwb, allow_external) if is_url(nwb) else inspect_nwbfile(nwbfile_path=str(nwb))
    kinds: dict[tuple[str, bool], list[Any]] = {}
    for message in messages:
        name = message.check_function_name or "validation"
        if message.importance is Importance.ERROR:  # its message is a traceback
            name, message.message = "reader", message.message.strip().splitlines()[-1]
            # If it was raised inside h5py, h5py's lock stays held, and every other thread waits for ever.
            if message.message.startswith("RecursionError"):
                raise InputError(
                    f"{shown(nwb)}: its groups contain one another without end, as with a link to a group "
                    "that contains the link; remove it"
                )
        critical = message.importance is Importance.CRITICAL and not name.startswith((_METADATA, *_OURS))
        critical &= _concerns(message.location, used)
        kinds.setdefault((name, critical), []).append(message)
    for (name, critical), same in kinds.items():
        first = same[0]
        where = (first.location or "/").strip("/") or "the file"
        sentence = f"nwbinspector's {name}, first at {where}: {first.message.strip()}"
        check = "inspector" if critical else "best-practice"
        findings.add(check, sentence, count=len(same))


def _concerns(location: str | None, used: Collection[str]) -> bool:
    """Whether a place in a file is part of what is used, holds it, or is not known."""
    place = (location or "/").rstrip("/") + "/"
    return any(f"{path}/".startswith(place) or place.startswith(f"{path}/") for path in used)


def _inspect_remote(nwb: str | Path, allow_external: bool) -> Iterator[Any]:
    """Yield what nwbinspector finds in a file that has no path."""
    import pynwb
    from nwbinspector import Importance, InspectorMessage, inspect_nwbfile_object

    with open_nwb(nwb, allow_external) as file:
        try:
            with pynwb.NWBHDF5IO(file=file, mode="r", load_namespaces=True) as io:
                content = io.read()
                for error in pynwb.validate(io=io):
                    yield InspectorMessage(
                        message=error.reason,
                        importance=Importance.PYNWB_VALIDATION,
                        check_function_name=error.name,
                        location=error.location,
                    )
                yield from inspect_nwbfile_object(nwbfile_object=content)
        except Exception as error:
            yield InspectorMessage(
                message=f"{type(error).__name__}: {error}",
                importance=Importance.ERROR,
                check_function_name="reader",
            )
