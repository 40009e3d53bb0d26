"""The trackers of a study."""

from __future__ import annotations

from modicum.errors import InputError, reason_of
from modicum.planning.spec import StudySpec
from modicum.storage import StorageFolder
from modicum.tracking.listener import Tracking
from modicum.tracking.tracker import Tracker


def make_tracking(spec: StudySpec, folder: StorageFolder, *, tensorboard: bool) -> Tracking:
    """Set up the trackers that a study names.

    Args:
        spec: The study's fields.
        folder: Run folder of the study.
        tensorboard: False to write no TensorBoard logs, whatever the study says.

    Raises:
        InputError: A service cannot be reached, or its package is missing.
    """
    wanted, trackers = spec.tracking, list[Tracker]()
    if tensorboard and wanted.tensorboard:
        from modicum.tracking.tensorboard import TensorBoard

        trackers.append(TensorBoard(folder))
    for name, options in (("mlflow", wanted.mlflow), ("wandb", wanted.wandb)):
        if options is None:
            continue
        # The packages raise many kinds of exceptions, none of which names the field.
        try:
            from modicum.tracking import services

            made = getattr(services, name)(options, spec.name, folder)
        except ImportError as error:
            raise InputError(
                f"tracking.{name}: its package is missing ({reason_of(error)}); "
                "pip install modicum[tracking] brings it"
            ) from error
        except Exception as error:
            raise InputError(f"tracking.{name}: {reason_of(error)}") from error
        trackers.append(made)
    return Tracking(trackers)
