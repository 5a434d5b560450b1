"""nwbinspector's findings about a file, among the others."""

from pathlib import Path

from colatent.ingest.findings import Findings

# CRITICAL for a public archive, without bearing on the data: a file without a subject is analysed.
_METADATA = "check_subject"


def check_best_practice(nwb: Path, findings: Findings) -> None:
    """Record what nwbinspector says; its CRITICAL findings about data follow the action of `inspector`.

    Args:
        nwb: a file that `open_nwb` accepts.
        findings: collects the messages, one row for each kind of message.

    Raises:
        InputError: a CRITICAL finding, unless `inspector` is set to warn.
    """
    from nwbinspector import Importance, InspectorMessage, inspect_nwbfile

    kinds: dict[tuple[str, bool], list[InspectorMessage]] = {}
    for message in inspect_nwbfile(nwbfile_path=str(nwb)):
        name = message.check_function_name or "validation"
        critical = message.importance is Importance.CRITICAL and not name.startswith(_METADATA)
        kinds.setdefault((name, critical), []).append(message)
    for (name, critical), messages in kinds.items():
        first = messages[0]
        where = (first.location or "/").strip("/") or "the file"
        sentence = f"nwbinspector's {name}, first at {where}: {first.message.strip()}"
        check = "inspector" if critical else "best-practice"
        findings.add(check, sentence, count=len(messages))
