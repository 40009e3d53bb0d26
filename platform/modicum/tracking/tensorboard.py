"""TensorBoard's event files, one for each start of a trial, written by the driver.

Ray's `TBXLoggerCallback` writes into Tune's folder, which here is temporary, logs all of Tune's
reports, and counts steps by reports. A `SummaryWriter` keeps a thread and an open file for each
trial, and importing tensorboardX loads torch (two seconds). So events are encoded here with
TensorBoard's own classes, and appended when the recorder writes.
"""

from __future__ import annotations

import io
import time

from tensorboard.compat.proto.event_pb2 import Event
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.plugins.hparams import metadata
from tensorboard.plugins.hparams.api_pb2 import Status
from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData, SessionEndInfo
from tensorboard.plugins.hparams.summary_v2 import hparams_pb
from tensorboard.summary.writer.record_writer import RecordWriter

from modicum.run_folder.trial_record import TrialRecord
from modicum.storage import StorageFolder
from modicum.tracking.tracker import Tracker, metrics_of, settings_of_trial, step_of

LOGS = "tensorboard"


class TensorBoard(Tracker):
    """A log directory in the run folder, in which every trial is a run.

    On a local filesystem events are appended while a trial runs. An object store, which cannot
    append, gets a trial's log as a whole at the trial's end.

    Args:
        folder: The run folder.
    """

    def __init__(self, folder: StorageFolder) -> None:
        self._folder = folder
        self._present = set(folder.folders(LOGS))
        self._pending: dict[str, bytes] = {}
        self._files: dict[str, str] = {}

    def start(self, trial: TrialRecord) -> None:
        """Begin a trial's log, and delete an earlier log of the trial."""
        if trial.id in self._present:
            self._folder.remove_folder(LOGS, trial.id)
            self._present.remove(trial.id)
        self._files[trial.id] = f"events.out.tfevents.{int(time.time()):010d}.{trial.attempt:04d}"
        self._pending[trial.id] = _head(trial)

    def log(self, trial: TrialRecord, index: int, step: int) -> None:
        """Keep a record until the next `flush`."""
        self._pending[trial.id] += _scalars(trial, index, step)

    def flush(self, trial: TrialRecord) -> None:
        """Append the new records, if the filesystem can append."""
        if self._folder.local is not None and self._pending.get(trial.id):
            self._write(trial)

    def end(self, trial: TrialRecord) -> None:
        """Complete a trial's log."""
        self._pending[trial.id] += _tail(trial)
        self._write(trial)
        del self._files[trial.id], self._pending[trial.id]

    def reuse(self, trial: TrialRecord) -> None:
        """Write the log of a trial from an earlier run, unless it has one."""
        if trial.id in self._present:
            return
        self.start(trial)
        for index in range(len(trial.rows)):
            self.log(trial, index, step_of(trial.rows, index))
        self.end(trial)

    def _write(self, trial: TrialRecord) -> None:
        write = self._folder.append_bytes if self._folder.local else self._folder.write_bytes
        write(self._pending[trial.id], LOGS, trial.id, self._files[trial.id])
        self._present.add(trial.id)
        self._pending[trial.id] = b""


def _head(trial: TrialRecord) -> bytes:
    started = trial.started or 0.0
    settings = {
        name: value if isinstance(value, bool | int | float) else str(value)
        for name, value in settings_of_trial(trial).items()
    }
    start = hparams_pb(settings, trial_id=trial.id, start_time_secs=started)
    return _encoded(
        Event(wall_time=started, file_version="brain.Event:2"),
        Event(wall_time=started, summary=start),
    )


def _scalars(trial: TrialRecord, index: int, step: int) -> bytes:
    row = trial.rows[index]
    values = [
        Summary.Value(tag=name, simple_value=value) for name, value in metrics_of(row).items()
    ]
    wall_time = (trial.started or 0.0) + row["seconds"]
    return _encoded(Event(wall_time=wall_time, step=step, summary=Summary(value=values)))


def _tail(trial: TrialRecord) -> bytes:
    ended = trial.ended or 0.0
    status = {
        "finished": Status.STATUS_SUCCESS,
        "failed": Status.STATUS_FAILURE,
    }.get(trial.status, Status.STATUS_UNKNOWN)
    data = HParamsPluginData(session_end_info=SessionEndInfo(status=status, end_time_secs=ended))
    value = Summary.Value(
        tag=metadata.SESSION_END_INFO_TAG,
        metadata=metadata.create_summary_metadata(data),
        tensor=metadata.NULL_TENSOR,
    )
    return _encoded(Event(wall_time=ended, summary=Summary(value=[value])))


def _encoded(*events: Event) -> bytes:
    stream = io.BytesIO()
    writer = RecordWriter(stream)
    for event in events:
        writer.write(event.SerializeToString())
    return stream.getvalue()
