"""Poses: the keypoints of an ndx-pose PoseEstimation."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

import h5py
import numpy as np
from numpy.typing import NDArray

from colatent.config import PoseModality
from colatent.ingest.findings import Findings
from colatent.ingest.modalities.base import Candidate, ChannelInFile, FileGroups, Reader
from colatent.ingest.modalities.continuous import describe_series, drops, tell_dropped
from colatent.ingest.nwb.file import dataset, find, name_of, neurodata_type, wrong
from colatent.ingest.signals.clocks import kept_rows
from colatent.ingest.signals.series import is_series, kept_columns, open_series, require_series

if TYPE_CHECKING:
    from colatent.ingest.signals.resample import Reading
    from colatent.ingest.signals.source import SeriesSource


def select_keypoints(file: h5py.File, config: PoseModality) -> list[ChannelInFile]:
    """Return the coordinates of the keypoints that are kept."""
    nodes = [require_series(node) for node in keypoints(find(file, config.source), config.keypoints)]
    return [(node, int(c)) for node in nodes for c in kept_columns(node, None)]


def _keypoints_in(pose: h5py.Group) -> list[h5py.Group]:
    """Return the series of keypoints, without videos, which lie beside them."""
    return [c for c in pose.values() if is_series(c) and neurodata_type(c) != "ImageSeries"]


def keypoints(pose: h5py.Group, names: list[str] | None) -> list[h5py.Group]:
    """Return the series of a PoseEstimation's keypoints, all or those named."""
    is_pose = isinstance(pose, h5py.Group) and neurodata_type(pose) in ("", "PoseEstimation")
    known = _keypoints_in(pose) if is_pose else []
    listing = ", ".join(name_of(child) for child in known)
    if not known:
        raise wrong(pose, "there are no keypoints in it", "give the path of a PoseEstimation")
    wanted = known if names is None else [child for child in known if name_of(child) in names]
    if names is not None and len(wanted) != len(names):
        raise wrong(pose, f"not all of the keypoints {names} are there", f"they are: {listing}")
    for child in wanted:
        if "confidence" not in child:
            continue
        confidence = dataset(child, "confidence")
        if confidence.dtype.kind not in "biuf":
            raise wrong(confidence, f"it holds {confidence.dtype}, not numbers", "repair the file")
        n_frames = require_series(child)["data"].shape[0]
        if confidence.shape not in ((n_frames,), (n_frames, 1)):
            raise wrong(child, "confidence and data differ in length", "repair the file")
    return wanted


def open_pose(
    file: h5py.File, modality: str, config: PoseModality, findings: Findings, reading: "Reading"
) -> "SeriesSource":
    """Open the keypoints of an ndx-pose PoseEstimation; frames of low confidence are missing.

    Args:
        file: the NWB file.
        modality: name of the modality.
        config: which pose, and which of its keypoints.
        findings: collects samples that were dropped; series are checked once they are on bins.
        reading: bounds of memory and threads.

    Raises:
        InputError: no such path, or no such keypoint.
    """
    from colatent.ingest.signals.source import SeriesSource  # dask, which checking a file does not need

    nodes = keypoints(find(file, config.source), config.keypoints)
    series = []
    for node in nodes:
        keypoint = open_series(node, None, config.max_gap, drop_times=drops(findings))
        tell_dropped([keypoint], modality, findings)
        read = keypoint.read
        if "confidence" in node:
            read = partial(_confident, read, node["confidence"], keypoint.clock.rows, config.min_confidence)
        attrs = {**keypoint.attrs, "min_confidence": config.min_confidence}
        series.append(replace(keypoint, read=read, attrs=attrs))
    return SeriesSource(modality, series, config.max_gap, reading)


def _confident(
    read: Callable[[int, int], NDArray[np.floating]],
    confidence: h5py.Dataset,
    wanted: NDArray[np.int64] | None,
    least: float,
    first: int,
    last: int,
) -> NDArray[np.floating]:
    """Return rows first to last - 1, NaN where the confidence is too low.

    A missing confidence (NaN), which some tools write throughout, says nothing against a frame.
    """
    rows = read(first, last)
    rows[kept_rows(confidence, wanted, first, last).ravel() < least] = np.nan
    return rows


def list_poses(contents: FileGroups) -> Iterator[Candidate]:
    """Yield each pose, described by its first keypoint."""
    for path, pose in contents.of_type("PoseEstimation"):
        settings = PoseModality(kind="pose", source=path)
        points = _keypoints_in(pose)
        if not points:
            yield Candidate(settings, problem="no keypoints")
            continue
        first = describe_series(str(points[0].name).strip("/"), points[0])
        names = ", ".join(map(name_of, points))
        yield replace(
            first,
            settings=settings,
            shape=f"{len(points)} keypoints: {names}; {first.shape}",
            channels=len(points) * first.channels,
            extent=None,  # the keypoints may have clocks of their own
            joins=False,
        )


READER = Reader(select_keypoints, open_pose, list_poses)
