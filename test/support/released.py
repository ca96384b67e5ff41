# Copyright 2026 hralign_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""Files of weights as the authors of HR-Align name them."""

_LAYERS = {'down': 'D_fc1', 'map': 'D_mapping', 'up': 'D_fc2'}


def release_state(backbone_state, adapters_state):
    """Name the tensors of a ResNet and of its adapters as AdaptedR3M.pyth does."""
    state = {f'convnet.{key}': value for key, value in backbone_state.items()}
    for key, value in adapters_state.items():
        adapter, layer, kind = key.split('.')
        state[f'convnet.{adapter}.{_LAYERS[layer]}.{kind}'] = value
    return state
