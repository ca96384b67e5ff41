# Copyright 2026 hralign_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""The command: read the options, make all checks, show what they found."""

from collections.abc import Mapping
from contextlib import closing, nullcontext
from dataclasses import dataclass, field
import json
import os
from pathlib import Path
import re
import sys
from typing import Any, TYPE_CHECKING

from hralign_ros import __version__
from hralign_ros.doctor import computer, software
from hralign_ros.doctor.bundle import bundle_findings
from hralign_ros.doctor.cameras import Camera, camera_findings
from hralign_ros.doctor.findings import (
    as_document,
    as_text,
    count,
    error,
    Finding,
    guarded,
    Level,
    ok,
    Section,
    skipped,
    warn,
)
from hralign_ros.doctor.likeness import likeness_finding
from hralign_ros.doctor.likeness import NAME as LIKENESS
from hralign_ros.doctor.synchronisation import pairing_finding
from hralign_ros.runtime.errors import HralignError
from hralign_ros.runtime.parameter_file import read_parameters

if TYPE_CHECKING:
    from hralign_ros.doctor.listening import Listener, Settings


class OptionError(HralignError):
    """An option of the command cannot be used."""


@dataclass(frozen=True)
class Options:
    """
    What the command was asked.

    :param given: the encoder's parameters that are not the defaults, by full name.
    :param source: where they come from, in words.
    """

    given: Mapping[str, Any] = field(default_factory=dict)
    source: str = 'the defaults'
    namespace: str = '/'
    seconds: float = 5.0
    json: Path | None = None
    name: str = 'encoder'


def read_options(
    *, bundle: Path | None, device: str | None, topics: Mapping[str, str],
    params_file: Path | None, node: str, seconds: float, json_file: Path | None,
) -> Options:
    """
    Put together the parameters that the encoder would be started with.

    :raises HralignError: an option cannot be used, or the parameter file.
    """
    if not 0.0 < seconds <= 600.0:
        raise OptionError(f'--seconds is {seconds:g}; allowed is up to 600')
    if not re.fullmatch(r'(/[A-Za-z_]\w*)+', node):
        raise OptionError(f"--node is '{node}'; needed is a name with its namespace, such "
                          'as /left/encoder')
    namespace, _, name = node.rpartition('/')
    given = read_parameters(params_file, node) if params_file else {}
    given |= {key: str(value) for key, value in (('bundle', bundle), ('provider', device))
              if value is not None}
    for view, topic in topics.items():
        views = given.get('views', ['wrist', 'third_person'])
        if view not in views:
            raise OptionError(f"--view: there is no view '{view}', only {', '.join(views)}; "
                              'other views are named by `views` in a --params-file')
        given[f'{view}.topic'] = topic
    source = str(params_file) if params_file else 'the defaults'
    return Options(given, source, namespace or '/', seconds, json_file, name)


def doctor(options: Options) -> int:
    """Make all checks and show them; return 1 where any is an ERROR, 130 after Ctrl-C."""
    try:
        sections = examine(options)
    except KeyboardInterrupt:
        return 130
    print(as_text(sections, colours=sys.stdout.isatty() and not os.environ.get('NO_COLOR')),
          end='')
    if options.json:
        document = {'hralign_ros': __version__, **as_document(sections)}
        try:
            options.json.write_text(json.dumps(document, indent=2) + '\n', 'utf-8')
        except OSError as problem:
            raise OptionError(
                f'--json: {options.json} cannot be written ({problem.strerror})') from problem
    return 1 if count(sections, Level.ERROR) else 0


def examine(options: Options) -> list[Section]:
    """Make all checks, as far as there is a ROS to make them with."""
    # First: what follows loads the computer itself.
    load = os.getloadavg()[0]
    listener, problem = _listener(options)
    with closing(listener) if listener else nullcontext():
        return _examine(options, listener, problem, load)


def _listener(options: Options) -> tuple['Listener | None', Exception | None]:
    """Make the node that listens; or tell why there is none."""
    if software.domain_finding(os.environ).level is Level.ERROR:
        # Fast DDS ends the whole process over it.
        return None, OptionError('not started: ROS_DOMAIN_ID cannot be used')
    try:
        from hralign_ros.doctor.listening import Listener

        return Listener(options.namespace, options.given, options.name), None
    except Exception as problem:  # a missing rclpy, a wrong Python, a bad ROS_DOMAIN_ID
        return None, problem


def _examine(
    options: Options, listener: 'Listener | None', problem: Exception | None, load: float,
) -> list[Section]:
    settings, parameter_findings = _settings(options, listener)
    values = settings.values if settings else {}
    choice = software.Choice(**{
        name: value for name, value in (values or options.given).items()
        if name in software.Choice.__dataclass_fields__})
    sections = [
        Section('Python and ROS', _ros_findings(listener, problem)),
        Section('Parameters', parameter_findings),
        Section('onnxruntime', guarded('onnxruntime', software.onnxruntime_findings, choice)),
        Section('Bundle', guarded('bundle', bundle_findings, choice, values))]
    if listener is None:
        sections += [Section(title, [skipped(name, 'rclpy cannot be used')]) for title, name in (
            ('Transport', 'profile'), ('Cameras', 'all'), ('Encoder', 'encoder'))]
    else:
        sections += _live_sections(options, listener, settings)
    sections.append(Section('Computer', guarded(
        'computer', computer.computer_findings, load, choice.threads)))
    return sections


def _settings(
    options: Options, listener: 'Listener | None',
) -> tuple['Settings | None', list[Finding]]:
    """Check the encoder's parameters as the encoder does."""
    if listener is None:
        return None, [skipped('parameters', 'rclpy cannot be used')]
    try:
        settings = listener.settings()
    except HralignError as problem:
        return None, [error('parameters', f'{options.source}: {problem}',
                            'The encoder would refuse to start: change this parameter')]
    unknown = listener.unknown_parameters()
    if unknown:
        return settings, [warn(
            'parameters', f'{options.source}: the encoder has no parameter {", ".join(unknown)}, '
            'and ignores it', 'Compare the names with config/encoder.yaml')]
    return settings, [ok('parameters', f'of {options.source}, fit together')]


def _ros_findings(listener: 'Listener | None', problem: Exception | None) -> list[Finding]:
    environment = os.environ
    findings = [software.python_finding(sys.version_info[:3]),
                software.rclpy_finding(problem, environment),
                software.distribution_finding(environment)]
    if listener is not None:
        findings += guarded('middleware', software.rmw_finding, listener.middleware, environment)
    findings += [software.domain_finding(environment), software.discovery_finding(environment)]
    if listener is None:
        return [*findings, skipped('hralign_msgs', 'rclpy cannot be used')]
    from hralign_ros.doctor.listening import messages_finding

    return [*findings, *guarded('hralign_msgs', messages_finding)]


def _live_sections(
    options: Options, listener: 'Listener', settings: 'Settings | None',
) -> list[Section]:
    """Listen to the cameras and query the other nodes."""
    heard: list[Camera] = []
    if settings is None:
        camera_sections = [Section('Cameras', [skipped('all', 'the parameters cannot be used')])]
    else:
        print(f'listening to {", ".join(settings.views)} for {options.seconds:g} s ...',
              file=sys.stderr, flush=True)
        heard, source = listener.listen(settings, options.seconds), settings['stamp_source']
        camera_sections = [Section(f'Camera {camera.view}', guarded(
            'camera', camera_findings, camera, [other for other in heard if other is not camera],
            settings.pairing, stamp_source=source, stuck_after=settings.stuck_after))
            for camera in heard]
        camera_sections.append(Section('Between cameras', guarded(
            'pairing', pairing_finding, heard, settings.pairing, stamp_source=source)))
        camera_sections.append(Section('Images', guarded(
            LIKENESS, likeness_finding,
            {c.view: c.newest for c in heard if c.newest is not None}, settings.values,
            {name: view.geometry for name, view in settings.views.items()},
            [name for name, view in settings.views.items() if view.required])))
    largest = max((m.size for c in heard if c.transport == 'raw' for m in c.received), default=0)
    transport = guarded(
        'transport', computer.transport_findings, listener.middleware, os.environ, largest=largest,
        raw=not heard or any(c.transport == 'raw' for c in heard))
    return [Section('Transport', transport), *camera_sections,
            Section('Encoder', guarded('encoder', listener.encoder_finding))]
