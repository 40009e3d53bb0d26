"""Requests to stop a running study or a trial: small files in the run folder's `control/`.

Anybody may be able to write there. A request therefore holds an action and a trial's id, no path
and no code. Other files are dropped, with a note in the study's status.
"""

from __future__ import annotations

import re
import secrets
import threading
from dataclasses import dataclass, field
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from modicum.storage import StorageFolder

CONTROL = "control"
# Ids of trials have twelve hexadecimal digits, names of requests thirty-two.
TRIAL_PATTERN = r"[0-9a-f]{12}"
_FILE_NAME = re.compile(r"([0-9a-f]{32})\.json")
_LARGEST = 512  # bytes
_MOST_AT_ONCE = 100

Action = Literal["stop_trial", "stop_study"]


class StopRequest(BaseModel):
    """The contents of a request: `{"action": "stop_trial", "trial": "0123456789ab"}`."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    action: Action
    trial: str | None = Field(None, pattern=f"^{TRIAL_PATTERN}$")

    @classmethod
    def of(cls, trial: str | None) -> StopRequest:
        """The request to stop a trial, or with None the study.

        Raises:
            ValidationError: The text is not an id of a trial.
        """
        return cls(action="stop_study" if trial is None else "stop_trial", trial=trial)

    @model_validator(mode="after")
    def _names_a_trial(self) -> StopRequest:
        if (self.action == "stop_trial") != (self.trial is not None):
            raise ValueError("a trial's stop names the trial, the study's does not")
        return self


class StopRequests:
    """All requests that a study has taken; the driver's threads write, its runner reads.

    Attributes:
        study: Whether the whole study is to stop.
    """

    def __init__(self) -> None:
        self.study = False
        self._trials: frozenset[str] = frozenset()
        self._writing = threading.Lock()

    def __reduce__(self) -> tuple[Any, ...]:
        """Requests stay in their driver: Tune, which pickles its callbacks, keeps None."""
        return type(None), ()

    def __deepcopy__(self, memo: object) -> StopRequests:
        return self

    def add(self, request: StopRequest) -> None:
        """Take a request."""
        with self._writing:
            if request.trial is None:
                self.study = True
            else:
                self._trials |= {request.trial}

    def stops(self, trial_id: str) -> bool:
        """Tell whether a trial is to stop, alone or with the study."""
        return self.study or trial_id in self._trials


@dataclass
class Poll:
    """The files that were found in `control/` at one time.

    Attributes:
        requests: Requests by the name that their sender gave them.
        dropped: A sentence for each file that is not a request.
    """

    requests: dict[str, StopRequest] = field(default_factory=dict)
    dropped: list[str] = field(default_factory=list)


class ControlFolder:
    """The driver's view of a run folder's `control/`."""

    def __init__(self, folder: StorageFolder) -> None:
        self._folder = folder
        self._seen: set[str] = set()

    def clear(self) -> None:
        """Remove requests to an earlier run."""
        while (found := self.poll()).requests or found.dropped:
            pass

    def poll(self) -> Poll:
        """Take the requests in the folder, and delete their files."""
        from pyarrow import fs

        found = Poll()
        # Through a link, another folder's files would be deleted.
        if self._is_link():
            self._drop_once("", f"{CONTROL} is a link and is not read", found)
            return found
        selector = fs.FileSelector(self._folder.path(CONTROL), allow_not_found=True)
        entries = {}
        for info in self._folder.filesystem.get_file_info(selector):
            try:
                entries[str(info.base_name)] = info
            except UnicodeDecodeError:
                self._drop_once("/", f"{CONTROL} has a file whose name is no text", found)
        # A file is written under a temporary name.
        waiting = [
            name for name in sorted(entries) if name not in self._seen and not name.endswith(".tmp")
        ]
        for name in waiting[:_MOST_AT_ONCE]:
            info = entries[name]
            match = _FILE_NAME.fullmatch(name)
            if match is None:
                found.dropped.append(f"{_quoted(name)} is no name of a request")
            elif self._is_link(name):
                found.dropped.append(f"{_quoted(name)} is a link")
            elif info.type != fs.FileType.File or info.size > _LARGEST:
                found.dropped.append(f"{_quoted(name)} is no file of at most {_LARGEST} bytes")
            else:
                self._read(name, match[1], found)
            self._remove(name, info.type == fs.FileType.File)
        return found

    def _is_link(self, *parts: str) -> bool:
        """Tell whether `control/`, or a member of it, is a symbolic link."""
        local = self._folder.local
        return local is not None and local.joinpath(CONTROL, *parts).is_symlink()

    def _drop_once(self, name: str, note: str, found: Poll) -> None:
        if name not in self._seen:
            self._seen.add(name)
            found.dropped.append(note)

    def _read(self, name: str, key: str, found: Poll) -> None:
        place = self._folder.path(CONTROL, name)
        try:
            with self._folder.filesystem.open_input_stream(place) as stream:
                content = bytes(stream.read(_LARGEST + 1))
            found.requests[key] = StopRequest.model_validate_json(content)
        except OSError:
            found.dropped.append(f"{_quoted(name)} cannot be read")
        except ValidationError:
            # The contents may be anything, so they are not quoted.
            found.dropped.append(f"{_quoted(name)} does not hold a request")

    def _remove(self, name: str, is_file: bool) -> None:
        # A file that cannot be deleted is remembered, so that it counts once.
        self._seen.add(name)
        if not is_file:
            return
        try:
            self._folder.filesystem.delete_file(self._folder.path(CONTROL, name))
        except OSError:
            return
        self._seen.discard(name)


def send_request(folder: StorageFolder, request: StopRequest) -> str:
    """Leave a request for the driver; return its name, which the status lists once it is taken.

    Raises:
        OSError: The folder cannot be written.
    """
    key = secrets.token_hex(16)
    content = request.model_dump_json(exclude_none=True)
    folder.write_text(content, CONTROL, f"{key}.json")
    return key


def _quoted(name: str) -> str:
    return repr(name[:60])
