# Copyright 2026 hralign_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""Make attempts in a lab: one place, fixed cameras, an arm that nothing was trained on."""

from pathlib import Path

from hralign_ros.data.manifest import DataError
from hralign_ros.runtime.report import Report
from hralign_ros.simulation.appearance import LAB, make_appearance
from hralign_ros.simulation.plan import plan_lab
from hralign_ros.simulation.simulate import find_hand, finish, make_all, make_folders


def simulate_lab(
    output: Path, *, lab: str = 'lab-1', arm: str = 'kinova3', tasks: tuple[str, ...] = (),
    successes: int = 10, failures: int = 10, first_seed: int = 0, workers: int = 1,
    hand: Path | None = None, resume: bool = False, report: Report = print,
) -> Path:
    """
    Make attempts in a lab, or complete or extend what is there.

    Each seed gives at most one success and one failure of a task, so sets with other seeds have no
    attempt in common.

    :param lab: lab-<number>, or that with a change, see make_appearance.
    :param tasks: only these; () for all.
    :param successes: for each task.
    :param failures: for each task.
    :param first_seed: of both; seeds go up from there.
    :param hand: glTF file of the hand; None: what HRALIGN_HAND_MODEL names.
    :param resume: there may be attempts already; those that are missing are made.
    :returns: the manifest file.
    :raises DataError: unknown lab, arm or task, nothing to make, no hand model, or there are
        attempts that are not to be completed.
    """
    from hralign_ros.simulation.lab_world import ARMS, TASKS

    known = tuple(task.task_id for task in TASKS)
    unknown = set(tasks) - set(known)
    if unknown:
        raise DataError(f'no task {", ".join(sorted(unknown))} in a lab; known: '
                        f'{", ".join(known)}')
    if arm not in ARMS:
        raise DataError(f"arm '{arm}'; allowed in a lab: {', '.join(ARMS)}")
    kind, _, number = lab.partition('@')[0].rpartition('-')
    if kind != LAB or not number.isdecimal():
        raise DataError(f"lab '{lab}'; allowed: {LAB}-<number>, for example {LAB}-1, or "
                        f'{LAB}-1@10deg')
    make_appearance(lab)
    if min(successes, failures, first_seed) < 0 or successes + failures == 0:
        raise DataError(f'{successes} successes and {failures} failures from seed {first_seed}: '
                        'none may be negative, and one attempt is needed')
    mesh_file = find_hand(hand)
    output = Path(output)
    make_folders(output, resume=resume)
    chunks = plan_lab(tasks or known, arm, lab, successes=successes, failures=failures,
                      first_seed=first_seed)
    make_all(output, chunks, mesh_file, workers, report)
    return finish(output, None, report)
