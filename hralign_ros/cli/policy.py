# Copyright 2026 hralign_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""`hralign policy`: train and evaluate."""

from collections.abc import Sequence
from dataclasses import asdict
import json
from pathlib import Path
from typing import Any, Literal

from hralign_ros.cli.options import changed, compute_on, Device, settings, Workers


@settings('training.policy_options:PolicyOptions')
def train(
    *, data: Path, output: Path, bundle: Path | None = None, task: str = '',
    sample_weights: Path | None = None,
    sample_weights_of: Literal['progress', 'success'] = 'progress',
    features: Path | None = None, workers: Workers = 1, device: Device = 'auto', command: str,
    **changes: Any,
) -> None:
    """
    Train a small policy by behaviour cloning on a bundle's embeddings of demonstrations.

    The embeddings are those that the node would publish. Writes policy.onnx and policy.yaml.

    :param data: demonstrations: a data set with actions
    :param output: folder of the policy
    :param bundle: whose embeddings it learns from; default: the shipped one
    :param task: of the demonstrations, its id or its instruction; default: the only one
    :param sample_weights: hralign_progress.parquet of the LeRobot data set that the
        demonstrations were imported from: frames count as in its RA-BC; default: all alike
    :param sample_weights_of: what of that file counts; a task that was taught, or has a
        shared head, has success alone
    """
    from hralign_ros.export.policy import write_policy
    from hralign_ros.runtime import default_bundle
    from hralign_ros.training.policy_options import PolicyOptions
    from hralign_ros.training.policy_run import train_policy

    compute_on(device)
    print(write_policy(train_policy(
        data, bundle or default_bundle(), changed(PolicyOptions(), changes), task=task,
        weights=sample_weights, weights_of=sample_weights_of, features=features, workers=workers,
        command=command), output))


def evaluate(
    policies: Sequence[Path], /, *, output: Path, bundle: Path | None = None, episodes: int = 40,
    first_seed: int = 100_000, task: str = '', arm: str = '', lab: str = '',
    resume: bool = False,
) -> None:
    """
    Try policies in closed loop on a simulated arm, all from the same starts.

    Prints success rates with 95 % intervals, and compares each with the first on the same starts.
    Runs in the virtual environment that `make sim` makes.

    :param policies: folders of `hralign policy train`
    :param output: folder of the attempts and of report.json
    :param bundle: whose embeddings they learnt from; default: the shipped one
    :param episodes: attempts of each policy
    :param first_seed: of the starts; demonstrations should have others
    :param task: lift or pick-can; default: that of the demonstrations
    :param arm: panda, ur5e, kinova3 or iiwa; default: that of the demonstrations
    :param lab: lab-N, or that with a change, as lab-1@5cm; default: that of the demonstrations
    :param resume: complete what is in --output, or add to it
    """
    from hralign_ros.evaluation.success_rates import compare, rate
    from hralign_ros.runtime import default_bundle
    from hralign_ros.simulation.closed_loop import evaluate_policies
    import robosuite  # noqa: F401  # missing, it is named before any work is done

    rollouts = evaluate_policies(
        policies, output, bundle or default_bundle(), episodes=episodes, first_seed=first_seed,
        task=task, arm=arm, lab=lab, resume=resume)
    found = {folder.resolve().name: {
        (one.task_id, one.arm, one.lab, one.seed): one.success for one in rollouts
        if one.policy == folder.resolve().name} for folder in policies}
    first = next(iter(found))
    report = []
    for name, outcomes in found.items():
        row: dict[str, Any] = {'policy': name, **asdict(rate(sum(outcomes.values()),
                                                             len(outcomes)))}
        line = (f'{name}: {row["successes"]} of {row["n"]} '
                f'[{row["low"]:.2f}, {row["high"]:.2f}]')
        if name != first and set(outcomes) & set(found[first]):
            row['against'] = {'policy': first, **asdict(compare(outcomes, found[first]))}
            line += (f'; against {first} {100 * row["against"]["difference"]:+.0f} points '
                     f'[{100 * row["against"]["low"]:+.0f}, {100 * row["against"]["high"]:+.0f}], '
                     f'p = {row["against"]["p_value"]:.2g}')
        report.append(row)
        print(line)
    path = output / 'report.json'
    path.write_text(json.dumps(report, indent=1) + '\n', encoding='utf-8')
    print(path)
