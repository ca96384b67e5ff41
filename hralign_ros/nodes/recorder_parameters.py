# Copyright 2026 hralign_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""
Every parameter of the recorder node, declared in one table.

config/recorder.yaml and the table in docs/reference/parameters.md follow from it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hralign_ros.nodes import parameters
from hralign_ros.nodes.parameters import DEFAULT_VIEWS, of_view, Parameter, ParameterError
from hralign_ros.runtime.episode_recorder import Rules
from hralign_ros.runtime.labels import check_by, LabelError
from rclpy.node import Node

NODE_PARAMETERS = (
    Parameter('folder', '~/hralign_recordings',
              'Folder that bags and labels.csv are written to; one for each recorder.'),
    Parameter('encoder', 'encoder', 'Name of the encoder whose episodes are recorded.'),
    Parameter('views', list(DEFAULT_VIEWS), 'Names of the cameras to record.'),
    Parameter('rate_hz', 5.0, 'Images a second of each camera, at most; 0: all of them.',
              0.0, 1000.0),
    Parameter('jpeg_quality', 95, 'Of raw images that are encoded here.', 1, 100),
    Parameter('topics', ['joint_states'],
              'Further topics to record, of any type, all of their messages; empty names are left '
              'out.'),
    Parameter('record_embedding', False, 'Record ~/embedding of the encoder, too.'),
    Parameter('stamp_source', 'header',
              'Which time decides to which episode an image belongs, and counts for labels: the '
              "header stamp, or the time of arrival. Recorded are the camera's own stamps.",
              choices=('header', 'arrival')),
    Parameter('max_gb', 50.0,
              'What all bags in the folder may take [GB]; the oldest without a label goes first, '
              'labelled ones never go. 0: no limit.', 0.0, 100_000.0),
    Parameter('min_free_gb', 1.0,
              'What remains free on the disk [GB]; with less nothing is recorded.',
              0.0, 100_000.0),
    Parameter('max_episode_s', 600.0,
              'The recording of an episode ends after so long [s]; 0: never.', 0.0, 86400.0),
    Parameter('silent_after_s', 5.0,
              'The recording ends when the encoder has been silent for so long [s].',
              1.0, 3600.0),
    Parameter('label_by', 'human:operator',
              'Who gives the labels that name nobody: human:<name> or model.'),
    Parameter('label_by_model', False,
              "At the end of an episode, label it with the encoder's decision, where that is "
              'SUCCESS or FAILURE and no human has labelled it.'),
    Parameter('niceness', 10,
              'By how much the priority of the process is lowered: others come first on a busy '
              'processor.', 0, 19),
)
# Of the encoder's parameters of a view, those that a recorder needs as well.
VIEW_PARAMETERS = tuple(row for row in parameters.VIEW_PARAMETERS
                        if row.name in ('topic', 'transport', 'reliability'))


@dataclass(frozen=True)
class View:
    """One camera."""

    topic: str
    transport: str
    reliability: str


@dataclass(frozen=True)
class Settings:
    """The recorder's parameters, checked one by one and together."""

    values: Mapping[str, Any]
    views: Mapping[str, View]
    folder: Path
    topics: Sequence[str]
    rules: Rules

    @classmethod
    def read(cls, values: Mapping[str, Any]) -> 'Settings':
        """
        Check values by full name and arrange them.

        :raises ParameterError: a value cannot be used.
        """
        parameters.check_views(values['views'])
        for name, parameter in table(values['views']).items():
            parameter.check(values[name])
        topics = [topic for topic in values['topics'] if topic]
        views = {view: View(*(values[f'{view}.{row.name}'] for row in VIEW_PARAMETERS))
                 for view in values['views']}
        for name, topic in (*(('topics', topic) for topic in topics),
                            *((f'{view}.topic', one.topic) for view, one in views.items()),
                            ('encoder', f'{values["encoder"]}/success')):
            parameters.check_topic(name, topic)
        if not values['folder']:
            raise ParameterError('parameter folder is empty; needed is a folder to record into')
        try:
            check_by(values['label_by'])
        except LabelError as error:
            raise ParameterError(f'parameter label_by: {error}') from error
        return cls(
            values=dict(values), views=views, folder=Path(values['folder']).expanduser(),
            topics=topics, rules=Rules(
                max_episode=round(values['max_episode_s'] * 1e9),
                silent_after=round(values['silent_after_s'] * 1e9),
                label_by_model=values['label_by_model']))

    def __getitem__(self, name: str) -> Any:
        return self.values[name]


def table(views: Sequence[str] = DEFAULT_VIEWS) -> dict[str, Parameter]:
    """List all parameters by full name."""
    rows = [*NODE_PARAMETERS, *(row for view in views for row in of_view(view, VIEW_PARAMETERS))]
    return {row.name: row for row in rows}


def declare(node: Node) -> Settings:
    """
    Declare all parameters and read them.

    :raises ParameterError: a value cannot be used.
    """
    values = parameters.declared(node, NODE_PARAMETERS)
    parameters.check_views(values['views'])
    for view in values['views']:
        values |= parameters.declared(node, of_view(view, VIEW_PARAMETERS))
    return Settings.read(values)
