# Copyright 2026 hralign_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""What a person says of an episode, and how its row of the manifest says it."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from getpass import getuser

from hralign_ros.data.labels import BY
from hralign_ros.data.manifest import DataError, DISCARDED, Episode
from hralign_ros.runtime.labels import check_by, DISCARD, FAILURE, LabelError, SUCCESS
from hralign_ros.runtime.video import EDGE_S

UNLABELLED = ''
OUTCOMES = SUCCESS, FAILURE, DISCARD, UNLABELLED


@dataclass(frozen=True)
class Label:
    """
    How an episode ended.

    :param outcome: one of OUTCOMES.
    :param time_s: of a success: when it was accomplished, on the clock of the episode's time_s;
        None: not known.
    :param by: who says so: human:<name> or model; '': not known.
    """

    outcome: str = UNLABELLED
    time_s: float | None = None
    by: str = ''


def human(name: str = '') -> str:
    """
    Make of a name what stands beside its labels; without one, of the login name.

    :raises DataError: it is empty, too long, or has several lines.
    """
    if not name:
        try:
            name = getuser()
        except (KeyError, OSError, ImportError):  # a container's user may have none
            name = ''
    by = f'human:{name.strip()}'
    try:
        check_by(by)
    except LabelError as error:
        raise DataError(f'{error}: --name NAME') from error
    return by


def label_of(episode: Episode) -> Label:
    """Read the label off a row of the manifest; without its flags there is no time."""
    by = next((tag.removeprefix(BY) for tag in episode.tags if tag.startswith(BY)), '')
    if episode.discarded:
        return Label(DISCARD, by=by)
    if episode.success is None:
        return Label()
    if not episode.success:
        return Label(FAILURE, by=by)
    if episode.success_s is not None:
        return Label(SUCCESS, episode.success_s, by)
    time = next((time for time, done in zip(
        episode.time_s, episode.success_flags, strict=False) if done), None)
    return Label(SUCCESS, time, by)


def labelled(episode: Episode, label: Label, frames_s: Sequence[float] = ()) -> Episode:
    """
    Put a label into a row of the manifest, in place of the one that it has.

    A success without a time has no flags: which frames show it is not known. An episode that is
    discarded has neither an outcome nor flags, so that nothing learns from it.

    :param frames_s: [F] of its frames, on the clock of its own times, where it has none.
    :raises DataError: an outcome that there is not, or a time that is not one of a success.
    """
    if label.outcome not in OUTCOMES or (label.time_s is not None and label.outcome != SUCCESS):
        raise DataError(f"'{label.outcome}' at {label.time_s} is no label; allowed are "
                        f'{", ".join(filter(None, OUTCOMES))} or nothing, and a time of a success')
    times = list(episode.time_s) or list(frames_s)
    flags: list[bool] = []
    if label.outcome == FAILURE:
        flags = [False] * len(times)
    elif label.time_s is not None:
        # A view may have frames after the last one that the row has numbers for.
        first = min(label.time_s - EDGE_S, max(times, default=0.0))
        flags = [time >= first for time in times]
    tags = [tag for tag in episode.tags if tag != DISCARDED and not tag.startswith(BY)]
    tags += [DISCARDED] if label.outcome == DISCARD else []
    tags += [BY + label.by] if label.by and label.outcome else []
    success = {SUCCESS: True, FAILURE: False}.get(label.outcome)
    return replace(
        episode, success=success, success_s=label.time_s, success_flags=flags, tags=tags,
        time_s=times,
        # What the simulator knew of the course of an attempt goes with its own flags.
        progress=episode.progress if flags == list(episode.success_flags) else (),
        failure='' if success else episode.failure,
        fault_s=None if success else episode.fault_s)
