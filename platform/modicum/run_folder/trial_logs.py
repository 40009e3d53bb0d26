"""The logs of trials in the run folder: `trials/<id>/log.txt`."""

from __future__ import annotations

import tempfile
from pathlib import Path

from modicum.run_folder.trial_record import TRIALS
from modicum.storage import StorageFolder

LOG = "log.txt"


class TrialLogs:
    """The logs of a run folder's trials, appended to.

    Object stores cannot append. There a log is collected in a temporary file, and written whole by
    `save`.

    Args:
        folder: The run folder.
    """

    def __init__(self, folder: StorageFolder) -> None:
        self._folder = folder
        self._aside: tempfile.TemporaryDirectory[str] | None = None
        self._unsaved: set[str] = set()

    def remove(self, trial_id: str) -> None:
        """Delete the log of a trial.

        Raises:
            StorageError: The folder cannot be written.
        """
        self._folder.remove(TRIALS, trial_id, LOG)

    def append(self, trial_id: str, content: bytes) -> None:
        """Append to the log of a trial.

        Raises:
            StorageError: The folder cannot be written.
        """
        if not content:
            return
        if self._folder.local is not None:
            self._folder.append_bytes(content, TRIALS, trial_id, LOG)
            return
        self._aside = self._aside or tempfile.TemporaryDirectory(prefix="modicum-logs-")
        file = Path(self._aside.name, trial_id, LOG)
        if not file.exists():
            file.parent.mkdir()
            if self._folder.exists(TRIALS, trial_id, LOG):
                file.write_bytes(self._folder.read_bytes(TRIALS, trial_id, LOG))
        with file.open("ab") as log:
            log.write(content)
        self._unsaved.add(trial_id)

    def save(self, trial_id: str) -> None:
        """Write the log of a trial whose folder is on an object store, if there is more of it.

        Raises:
            StorageError: The folder cannot be written.
        """
        if trial_id in self._unsaved:
            assert self._aside is not None
            self._folder.copy_in(Path(self._aside.name, trial_id), TRIALS, trial_id)
            self._unsaved.remove(trial_id)


def log_file(root: Path, inode: int, trial_id: str) -> Path | None:
    """Log file of a trial, for the process that runs it.

    Args:
        root: The run folder, as a path on the driver's machine.
        inode: Inode of that folder on the driver's machine.
        trial_id: The trial.

    Returns:
        None where this machine does not see the run folder.
    """
    try:
        seen = root.stat().st_ino == inode
    except OSError:
        seen = False
    return root / TRIALS / trial_id / LOG if seen else None


def log_end(folder: StorageFolder, trial_id: str, most: int) -> str:
    """End of a trial's log, followed by the end of a failed trial's traceback.

    Args:
        folder: The run folder.
        trial_id: Identity of the trial.
        most: Largest number of bytes of either file.

    Raises:
        InputError: A link leads out of the run folder.
    """
    ends = [folder.read_tail(most, TRIALS, trial_id, name) for name in (LOG, "error.txt")]
    return "\n".join(end.decode("utf-8", "replace") for end in ends if end)
