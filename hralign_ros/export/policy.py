# Copyright 2026 hralign_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""Write a trained policy as the folder that the runtime loads."""

from hashlib import sha256
from pathlib import Path

from hralign_ros.models.onnx_export import torch_graph
from hralign_ros.models.policy import PolicyGraph
from hralign_ros.runtime.policy import GRAPH, MANIFEST, PolicySpec, SCHEMA_VERSION
from hralign_ros.runtime.schema import to_document
from hralign_ros.training.checkpoints import TrainingError
from hralign_ros.training.policy_run import TrainedPolicy
import torch
import yaml


def write_policy(policy: TrainedPolicy, folder: Path) -> Path:
    """
    Write policy.onnx and policy.yaml.

    :returns: the folder.
    :raises TrainingError: it cannot be written.
    """
    graph = PolicyGraph(policy.network).eval()
    example = {'embedding': torch.zeros(policy.network.embedding.shape[1:]),
               'proprio': torch.zeros(policy.network.proprio.shape[1:])}
    model = torch_graph(graph, [example[name] for name in graph.inputs], inputs=graph.inputs,
                        outputs=['actions'])
    spec = PolicySpec(
        task=policy.task, graph_sha256=sha256(model).hexdigest(), views=policy.views,
        parts=policy.parts, proprio=policy.proprio, actions=policy.actions,
        chunk=policy.network.chunk, execute=policy.execute, period_s=policy.period_s,
        bundle_sha256=policy.bundle_sha256, embedding=policy.embedding,
        training=policy.training)
    text = yaml.safe_dump({'schema_version': SCHEMA_VERSION, **to_document(spec)},
                          sort_keys=False)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, content in ((GRAPH, model), (MANIFEST, text.encode())):
            scratch = folder / f'.{name}.tmp'
            scratch.write_bytes(content)
            scratch.replace(folder / name)
    except OSError as error:
        raise TrainingError(f'{folder}: no policy can be written there: {error}') from error
    return folder
