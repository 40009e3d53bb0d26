"""TensorBoard's event files, one for each start of a trial, written by the driver.

Ray's own `TBXLoggerCallback` writes where Tune keeps its trials, which here is a temporary
folder, logs whatever Tune reports, and counts steps by reports; a `SummaryWriter` keeps a
thread and an open file for each trial, and importing tensorboardX loads torch (two seconds).
So the messages are TensorBoard's own, encoded here, and appended when the recorder writes.
"""

from __future__ import annotations

import io
import time
from typing import TYPE_CHECKING

from tensorboard.compat.proto.event_pb2 import Event
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.plugins.hparams import metadata
from tensorboard.plugins.hparams.api_pb2 import Status
from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData, SessionEndInfo
from tensorboard.plugins.hparams.summary_v2 import hparams_pb
from tensorboard.summary.writer.record_writer import RecordWriter

from modicum.storage import StorageFolder
from modicum.tracking import metrics_of, settings_of_trial, step_of

if TYPE_CHECKING:
    from modicum.run_folder.trial_record import TrialState

LOGS = "tensorboard"


class TensorBoard:
    """A log directory in the run folder, in which every trial is a run of TensorBoard's.

    On this machine's filesystem events are appended while a trial runs; an object store, where
    nothing can be appended, gets a trial's log as a whole when it has ended.

    Args:
        folder: The run folder.
    """

    def __init__(self, folder: StorageFolder) -> None:
        self._folder = folder
        self._present = set(folder.folders(LOGS))
        self._pending: dict[str, bytes] = {}
        self._files: dict[str, str] = {}

    def start(self, state: TrialState) -> None:
        """Begin a trial's log; an earlier one of the same trial is void."""
        trial_id = state.plan.id
        if trial_id in self._present:
            self._folder.remove_folder(LOGS, trial_id)
            self._present.remove(trial_id)
        self._files[trial_id] = f"events.out.tfevents.{int(time.time()):010d}.{state.attempt:04d}"
        self._pending[trial_id] = _head(state)

    def log(self, state: TrialState, index: int, step: int) -> None:
        """Keep a record until the next `flush`."""
        self._pending[state.plan.id] += _scalars(state, index, step)

    def flush(self, state: TrialState) -> None:
        """Append what has come since the last time, where that can be done."""
        if self._folder.local is not None and self._pending.get(state.plan.id):
            self._write(state)

    def end(self, state: TrialState) -> None:
        """Complete a trial's log."""
        self._pending[state.plan.id] += _tail(state)
        self._write(state)
        del self._files[state.plan.id], self._pending[state.plan.id]

    def reuse(self, state: TrialState) -> None:
        """Make a log for a trial that ran without one."""
        if state.plan.id in self._present:
            return
        self.start(state)
        for index in range(len(state.rows)):
            self.log(state, index, step_of(state.rows, index))
        self.end(state)

    def close(self) -> None:
        """Nothing: no file stays open."""

    def _write(self, state: TrialState) -> None:
        trial_id = state.plan.id
        write = self._folder.append_bytes if self._folder.local else self._folder.write_bytes
        write(self._pending[trial_id], LOGS, trial_id, self._files[trial_id])
        self._present.add(trial_id)
        self._pending[trial_id] = b""


def _head(state: TrialState) -> bytes:
    started = state.started or 0.0
    settings = {
        name: value if isinstance(value, bool | int | float) else str(value)
        for name, value in settings_of_trial(state).items()
    }
    start = hparams_pb(settings, trial_id=state.plan.id, start_time_secs=started)
    return _encoded(
        Event(wall_time=started, file_version="brain.Event:2"),
        Event(wall_time=started, summary=start),
    )


def _scalars(state: TrialState, index: int, step: int) -> bytes:
    row = state.rows[index]
    values = [
        Summary.Value(tag=name, simple_value=value) for name, value in metrics_of(row).items()
    ]
    wall_time = (state.started or 0.0) + row["seconds"]
    return _encoded(Event(wall_time=wall_time, step=step, summary=Summary(value=values)))


def _tail(state: TrialState) -> bytes:
    ended = state.ended or 0.0
    status = {
        "finished": Status.STATUS_SUCCESS,
        "failed": Status.STATUS_FAILURE,
    }.get(state.status, Status.STATUS_UNKNOWN)
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
