# Copyright 2026 hralign_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""What the serialised messages of a bag say, without ROS."""

from collections.abc import Iterable, Mapping
from typing import Any

from hralign_ros.data.bag_files import import_bag_package, RawMessage
from hralign_ros.runtime.errors import DataError, first_line
from hralign_ros.runtime.resources import find_share


class MessageTypes:
    """
    From serialised messages to objects, by rosbags.

    Definitions come from the bag, from ROS (Jazzy's are those of all releases for what is read
    here), and for our own messages from this package.
    """

    def __init__(self) -> None:
        self._typesys = import_bag_package('rosbags.typesys')
        self._standard = self._typesys.get_typestore(self._typesys.Stores.ROS2_JAZZY)
        # A kind may be defined differently in another bag.
        self._stores: dict[tuple[str, str], Any] = {}

    def decode(self, message: RawMessage) -> Any:
        """
        Deserialise a message.

        :raises DataError: its kind is not known, or its data are not of that kind.
        """
        kind = message.kind
        key = kind, message.definition
        if key not in self._stores:
            self._stores[key] = self._standard if kind in self._standard.types \
                else self._store(kind, message.definition)
        try:
            return self._stores[key].deserialize_cdr(message.data, kind)
        except Exception as error:  # whatever damaged data lead to
            raise DataError(f'{message.topic}: a message is no {kind} '
                            f'({first_line(error)})') from error

    def _store(self, kind: str, definition: str) -> Any:
        texts: Iterable[tuple[str, str]] = [(definition, kind)]
        if not definition:
            texts = _own_definitions().items() if kind.startswith('hralign_msgs/') else []
            texts = [(text, name) for name, text in texts]
        types: dict[str, Any] = {}
        try:
            for text, name in texts:
                idl = text.lstrip().startswith('=' * 80 + '\nIDL: ')
                types |= self._typesys.get_types_from_idl(text) if idl \
                    else self._typesys.get_types_from_msg(text, name)
            store = self._typesys.get_typestore(self._typesys.Stores.ROS2_JAZZY)
            store.register({name: fields for name, fields in types.items()
                            if name not in store.types})
        except Exception as error:  # of a grammar that is not ours
            raise DataError(f'the definition of {kind} cannot be read '
                            f'({first_line(error)})') from error
        if kind not in store.types:
            raise DataError(f'the bag does not define {kind}, and it is not one of ROS itself; '
                            'record it as MCAP, or with ROS 2 Iron or later')
        return store


def _own_definitions() -> Mapping[str, str]:
    """Read the definitions of our own messages."""
    try:
        folder = find_share('hralign_msgs/msg')
    except FileNotFoundError as error:
        raise DataError(str(error)) from error
    return {f'hralign_msgs/msg/{path.stem}': path.read_text('utf-8')
            for path in sorted(folder.glob('*.msg'))}
