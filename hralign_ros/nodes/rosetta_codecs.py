# Copyright 2026 hralign_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""
Decoders of our messages for rosetta, which imports this module by the group rosetta.codecs.

Rosetta refuses every contract where a module of that group fails, so this needs nothing but numpy
and rosetta, and of rosetta nothing that only some releases have. `select:` names the numbers, as
values_by_name has them; `hralign bundle contract` writes it.
"""

from typing import Any

from hralign_ros.nodes.values_by_name import embedding_values, result_values
import numpy as np
from numpy.typing import NDArray
from rosetta.frames.codecs import register_decoder


@register_decoder('hralign_msgs/msg/TaskEmbedding', dtype='float32')
def decode_embedding(message: Any, spec: Any) -> NDArray[np.float32]:
    """
    Take the selected elements; a message that lacks a selected view is refused.

    :returns: float32 [len(spec.names)].
    """
    return embedding_values(message, spec.names)


@register_decoder('hralign_msgs/msg/SuccessProbability', dtype='float32')
def decode_success(message: Any, spec: Any) -> NDArray[np.float32]:
    """
    Take the selected fields; one that is not known is refused, unless its flag is selected, too.

    :returns: float32 [len(spec.names)].
    """
    return result_values(message, spec.names)
