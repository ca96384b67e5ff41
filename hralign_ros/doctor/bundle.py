# Copyright 2026 hralign_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""What the bundle is, and what it decides with the parameters that are set."""

from collections import Counter
from collections.abc import Mapping
from typing import Any

from hralign_ros.doctor.findings import error, Finding, ok, warn
from hralign_ros.doctor.software import Choice
from hralign_ros.runtime.bundle import Bundle, load_bundle, Manifest, VISUALS
from hralign_ros.runtime.errors import BundleError, SignatureError
from hralign_ros.runtime.identity import Identity
from hralign_ros.runtime.resources import default_bundle
from hralign_ros.runtime.tasks import (
    broken_guarantee,
    FAILURE_DWELL_S,
    load_tasks,
    NEVER,
    TaskTable,
)

# So many tasks are named with their rates.
_MOST_RATES = 3


def bundle_findings(choice: Choice, values: Mapping[str, Any]) -> list[Finding]:
    """
    Verify every file of the bundle as the encoder would, and tell what it is.

    :param values: the encoder's parameters; empty: not known.
    """
    try:
        bundle = load_bundle(
            choice.bundle or default_bundle(), require_signature=choice.require_signature,
            trusted_keys=[path for path in choice.trusted_keys if path])
        total = sum(len(bundle.read(name)) for name in bundle.manifest.files)
    except SignatureError as problem:
        return [error('signature', str(problem), 'Sign the bundle, name the right trusted_keys, '
                      'or set require_signature to false: see docs/how_to/security.md')]
    except BundleError as problem:
        return [error('files', str(problem), 'Copy the bundle again, make it anew with hralign '
                      'export, or name another with --bundle')]
    return [ok('files', f'{bundle.path}: {len(bundle.manifest.files)} files, '
               f'{total / 1e6:.1f} MB, as their hashes say'), *_about(bundle, choice, values)]


def _about(bundle: Bundle, choice: Choice, values: Mapping[str, Any]) -> list[Finding]:
    """Tell what a good bundle is."""
    manifest = bundle.manifest
    identity = Identity.of(manifest)
    findings = [
        ok('name', f'{manifest.name}, {bundle.sha256[:16]}', sha256=bundle.sha256),
        ok('embedding', f'{identity.sha256[:16]}: a policy goes on working on another bundle '
           'with the same', sha256=identity.sha256, ingredients=dict(identity.ingredients))]
    graph = VISUALS.get(choice.precision, '')
    if graph and not bundle.has(graph):
        findings.append(error('precision', f'{choice.precision}, and the bundle has no {graph}',
                              'Set precision to fp32, or export the bundle with that graph'))
    views = list(values.get('views', ()))
    if views and tuple(views) != manifest.views:
        findings.append(error(
            'views', f'the parameter views is {", ".join(views)}, but the bundle has '
            f'{", ".join(manifest.views)}, in this order',
            f'Set views to [{", ".join(manifest.views)}], or take another bundle'))
    else:
        findings.append(ok('views', ', '.join(manifest.views)))
    findings.append(
        ok('success head', 'trained; it looks for what the instruction names in the fine tokens '
           f'of {manifest.reference_view}' if manifest.success.grounded else 'trained')
        if manifest.success.trained else
        warn('success head', 'not trained: every decision will be ABSTAIN',
             'Train and calibrate it: hralign success train, then hralign success calibrate'))
    tasks = load_tasks(bundle)
    alphas = tasks.alphas
    findings += [_shared_head(tasks, manifest, file) for file in manifest.heads]
    if values.get('task') and manifest.success.trained:
        findings.append(_task_finding(tasks, manifest, values))
    if manifest.success.trained and not alphas:
        findings.append(warn(
            'thresholds', 'none is calibrated: every decision will be ABSTAIN',
            'Calibrate it with more attempts, both that fail and that succeed: 19 of each are '
            'needed for an alpha of 0.05'))
    elif values:
        broken = broken_guarantee(values['alpha'] or None, values['dwell_s'], alphas,
                                  manifest.success.dwell_s)
        findings.append(error(
            'thresholds', broken, 'Change that parameter, or calibrate the bundle for it')
            if broken else ok('thresholds', _asked(values)))
    if manifest.success.trained and alphas:
        findings.append(_failure_finding(tasks, manifest, values))
    findings.append(ok('licences', '; '.join(
        f'{part}: {text}' for part, text in manifest.licenses.items())))
    return findings


def _shared_head(tasks: TaskTable, manifest: Manifest, file: str) -> Finding:
    """Count the tasks of a head beside the bundle's own, and those that it decides nothing of."""
    own = [task for task in tasks.tasks if task.head == file]
    undecided = sum(task.threshold(manifest.views, None) is None for task in own)
    return ok('shared head', f'{file} stands beside the success head, with {len(own)} tasks of '
              'its own' + (f'; {undecided} of them have no threshold: their decisions are ABSTAIN'
                           if undecided else ''))


def _task_finding(tasks: TaskTable, manifest: Manifest, values: Mapping[str, Any]) -> Finding:
    """Tell whether success can be decided for the task of the parameters."""
    task = tasks.match(values['task'])
    if task is None:
        such = f", such as '{tasks.tasks[0].name}'" if tasks.tasks else ''
        found = f"'{values['task']}' is none of the {len(tasks.tasks)} tasks of the bundle{such}"
        if values['allow_unknown_tasks']:
            lacking = [one for one in (tasks.fallback, *tasks.others)
                       if one.threshold(manifest.views, values['alpha'] or None) is None]
            if lacking and len(lacking) <= len(tasks.others):
                return warn('task', f'{found}, and whether there is a threshold for it depends on '
                            'which of them is nearest in meaning: for those of '
                            f'{", ".join(one.head or "success.onnx" for one in lacking)} none for '
                            f'{_asked(values)} is calibrated, and decisions will be ABSTAIN',
                            'Say it as the bundle does, or teach it with hralign success teach')
            if lacking:
                return warn('task', f'{found}, and no threshold for {_asked(values)} is '
                            'calibrated for tasks it does not know: decisions will be ABSTAIN',
                            'Take another alpha, or calibrate with validation tasks')
            return ok('task', f'{found}; allow_unknown_tasks is set')
        return warn('task', found, 'Embeddings come all the same; success decisions will be '
                    'ABSTAIN (UNKNOWN_TASK). Say it as the bundle does, teach it with hralign '
                    'success teach, or set allow_unknown_tasks')
    if task.threshold(manifest.views, values['alpha'] or None) is None:
        return warn('task', f"'{task.name}', {_asked(values)}: {task.verdict(manifest.views)}",
                    'Record more attempts at it, and teach them with hralign success teach')
    return ok('task', f"'{task.name}' ({task.task_id})")


def _failure_finding(
    tasks: TaskTable, manifest: Manifest, values: Mapping[str, Any],
) -> Finding:
    """Tell when FAILURE is decided, and the bound on its rate in attempts that succeed."""
    views, name = manifest.views, 'FAILURE'
    task = tasks.match(values['task']) if values.get('task') else None
    asked = values.get('failure_threshold') or None
    dwell_s = values.get('failure_dwell_s', FAILURE_DWELL_S)
    chosen = tasks.tasks if task is None else (task,)
    bound = {one.task_id: rate for one in chosen
             if (rate := one.failure_rate(views, asked, dwell_s)) is not None}
    lost = [one for one in chosen if one.task_id not in bound
            and one.failure_rate(views) is not None
            and one.failure_threshold(views, asked) < NEVER]
    if lost:
        return warn(
            name, f"'{lost[0].name}' was calibrated for a false-alarm rate of "
            f'{lost[0].failure_rate(views):.3g} with failure_threshold '
            f'{lost[0].failure_threshold(views):.3g} and failure_dwell_s {FAILURE_DWELL_S:g}; '
            'with less no rate is guaranteed', 'Set failure_threshold to 0 and failure_dwell_s '
            f'to {FAILURE_DWELL_S:g} or more', rates=bound)
    by_mode = [one for one in chosen if one.failure_threshold(views, asked) < NEVER]
    if not by_mode:
        return ok(name, 'no failure mode decides it: time_out_s alone does', rates=bound)
    said = [f"at a false-alarm rate of {rate:.3g} for '{tasks.of(key).name}'"
            for key, rate in bound.items()]
    if len(bound) > _MOST_RATES:
        said = [f'at a false-alarm rate of {rate:.3g} for {count} of {len(chosen)} tasks'
                for rate, count in sorted(Counter(bound.values()).items())]
    if free := len(by_mode) - len(bound):
        said.append(f'at no rate that is guaranteed for {free} of {len(chosen)} tasks')
    return ok(name, '; '.join(said), rates=bound)


def _asked(values: Mapping[str, Any]) -> str:
    """Say which false-alarm rate the parameters ask for."""
    return f'alpha {values["alpha"]:g}' if values['alpha'] else 'the alpha of each task'
