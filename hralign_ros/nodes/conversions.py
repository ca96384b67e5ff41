# Copyright 2026 hralign_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""Between ROS messages and the runtime's arrays and results."""

from array import array
from collections.abc import Mapping
import time
from typing import Any, TypeAlias

from builtin_interfaces.msg import Duration, Time
from hralign_ros.nodes.interfaces import (
    EmbeddingPart,
    EncoderInfo,
    SuccessProbability,
    TaskEmbedding,
    TaskInfo,
)
from hralign_ros.runtime.bundle import SCHEMA_VERSION
from hralign_ros.runtime.encoder import Encoder
from hralign_ros.runtime.identity import Identity
from hralign_ros.runtime.images import Image, ViewGeometry
from hralign_ros.runtime.parts import EmbeddingPart as Part
from hralign_ros.runtime.pipeline import Result
from hralign_ros.runtime.policy import Layout
from hralign_ros.runtime.policy_loop import Seen
from hralign_ros.runtime.tasks import Task
import numpy as np
from sensor_msgs.msg import Image as ImageMessage

_SECOND = 1_000_000_000
# What rclpy tells beside a message, to a callback that takes two arguments.
MessageInfo: TypeAlias = Mapping[str, int]


def stamp_to_ns(stamp: Time) -> int:
    """Turn a stamp into nanoseconds."""
    return int(stamp.sec) * _SECOND + int(stamp.nanosec)


def ns_to_stamp(nanoseconds: int) -> Time:
    """Turn nanoseconds into a stamp."""
    seconds, rest = divmod(int(nanoseconds), _SECOND)
    return Time(sec=seconds, nanosec=rest)


def stamp_text(nanoseconds: int) -> str:
    """Write nanoseconds as messages have them: seconds, a point, nine digits."""
    return '{}.{:09d}'.format(*divmod(int(nanoseconds), _SECOND))


def received_at(info: MessageInfo) -> int:
    """Tell when the middleware received a message, which may be long before it is taken [ns]."""
    return info['received_timestamp'] or time.time_ns()


def sent_at(info: MessageInfo) -> int:
    """Tell when a message was sent, by the clock of its sender's computer [ns]."""
    return info['source_timestamp'] or received_at(info)


def image_message(
    image: Image, stamp: int, frame_id: str, *, encoding: str = 'rgb8',
) -> ImageMessage:
    """
    Make a message.

    :param image: uint8 [H, W, 3] RGB; of another 8-bit encoding: [H, W] or [H, W, channels].
    """
    message = ImageMessage(
        height=image.shape[0], width=image.shape[1], step=image[0].size, encoding=encoding,
        data=array('B', image.tobytes()))
    message.header.stamp = ns_to_stamp(stamp)
    message.header.frame_id = frame_id
    return message


def embedding_message(result: Result, encoder: Encoder) -> TaskEmbedding:
    """Make the embedding's message, without duration and publish time."""
    tick = result.tick
    assert tick is not None
    pooling = {'attention': TaskEmbedding.POOLING_ATTENTION, 'mean': TaskEmbedding.POOLING_MEAN}
    stamps = tick.view_stamps[tick.view_valid]
    message = TaskEmbedding(
        skew=float(stamps.max() - stamps.min()) * 1e-9, status=int(result.status),
        pooling=pooling[tick.pooling], dim=tick.embedding.shape[1],
        part_names=[part.name for part in encoder.parts],
        part_offsets=array('I', [part.offset for part in encoder.parts]),
        configuration_id=ns_to_stamp(encoder.configuration_id),
        embedding_sha256=encoder.identity.sha256, instruction_sha256=result.instruction_sha256,
        # From the bytes: assigning a list or a numpy array takes milliseconds.
        data=array('f', tick.embedding.tobytes()))
    _common(message, result, encoder)
    return message


def success_message(result: Result, encoder: Encoder) -> SuccessProbability:
    """Make the success message, without duration and publish time."""
    message = SuccessProbability(status=int(result.status), decision=int(result.decision))
    _common(message, result, encoder)
    tick = result.tick
    if tick is None:
        return message
    if tick.threshold is not None and tick.alpha is not None:
        message.decision_threshold_valid = True
        message.decision_threshold = float(tick.threshold)
        message.decision_alpha = float(tick.alpha)
    success = tick.success
    for name, value in (('probability', success.probability), ('progress', success.progress),
                        ('raw_score', success.raw_score),
                        ('failure_probability', success.failure)):
        if value is not None:
            setattr(message, name, float(value))
            setattr(message, f'{name.removesuffix("_probability")}_valid', True)
    message.mode_names = list(success.mode_names)
    message.mode_probabilities = array('f', success.modes)
    if success.ood_score is not None and success.ood_threshold is not None:
        message.ood_valid = True
        message.ood_score = float(success.ood_score)
        message.ood_threshold = float(success.ood_threshold)
    message.clip_stamps = [ns_to_stamp(stamp) for stamp in success.clip_stamps]
    return message


def _common(message: Any, result: Result, encoder: Encoder) -> None:
    """Fill the fields that both results share."""
    message.header.stamp = ns_to_stamp(result.stamp)
    message.header.frame_id = result.frame_id
    message.episode_id = ns_to_stamp(result.episode_id)
    message.task = result.task
    message.task_id = result.task_id
    message.bundle_sha256 = encoder.bundle.sha256
    tick, message.view_names = result.tick, list(encoder.manifest.views)
    stamps = tick.view_stamps if tick else [0] * len(message.view_names)
    message.view_valid = [bool(valid) for valid in tick.view_valid] if tick \
        else [False] * len(stamps)
    message.view_stamps = [ns_to_stamp(stamp) for stamp in stamps]
    message.view_ages = array('f', [
        (tick.stamp - int(stamp)) * 1e-9 if tick and valid else 0.0
        for stamp, valid in zip(stamps, message.view_valid, strict=True)])


def duration_message(nanoseconds: int) -> Duration:
    """Turn nanoseconds into a Duration."""
    seconds, rest = divmod(int(nanoseconds), _SECOND)
    return Duration(sec=seconds, nanosec=rest)


def info_message(encoder: Encoder, *, warm_up: float, version: str) -> EncoderInfo:
    """Say what is loaded and where it runs, without the stamp."""
    manifest, hardware = encoder.manifest, encoder.hardware
    return EncoderInfo(
        node_version=version, configuration_id=ns_to_stamp(encoder.configuration_id),
        bundle_path=str(encoder.bundle.path.resolve()),
        bundle_name=manifest.name, bundle_sha256=encoder.bundle.sha256,
        bundle_schema_version=SCHEMA_VERSION,
        backbone=manifest.backbone.name, adapter=manifest.adapter.name,
        text_encoder=manifest.text.encoder,
        licenses=[f'{part}: {text}' for part, text in manifest.licenses.items()],
        embedding_sha256=encoder.identity.sha256, ingredients=encoder.identity.lines,
        precision=encoder.precision, precision_cosine=encoder.precision_cosine or 0.0,
        pooling=encoder.pooling,
        view_rotations=array('I', [one.rotation for one in encoder.geometry.values()]),
        view_crops=array('d', [side for one in encoder.geometry.values() for side in one.crop]),
        provider_requested=hardware.requested, provider=hardware.provider,
        onnxruntime_version=encoder.onnxruntime_version, warm_up=float(warm_up),
        view_names=list(manifest.views), reference_view=manifest.reference_view,
        dim=sum(part.size for part in encoder.parts), tokens_per_frame=manifest.tokens.count,
        parts=[EmbeddingPart(
            name=part.name, offset=part.offset, shape=array('I', part.shape), frames=part.frames,
            unit_norm=part.unit_norm, description=part.description) for part in encoder.parts],
        clip_length=manifest.clip.length, token_grid=list(manifest.tokens.grid),
        robots=sorted({*manifest.robots, *(task.robot for task in encoder.tasks.tasks
                                           if task.robot)}),
        alphas=array('f', encoder.tasks.alphas),
        tasks=[_task_info(task, manifest.views) for task in encoder.tasks.tasks])


def _task_info(task: Task, views: tuple[str, ...]) -> TaskInfo:
    """Say what the bundle knows about a task while all views are there."""
    calibration = task.calibration(views)
    message = TaskInfo(task_id=task.task_id, name=task.name, verdict=task.verdict(views),
                       failure_threshold=task.failure_threshold(views),
                       failure_alpha=task.failure_rate(views) or 0.0)
    if calibration is not None:
        message.calibrated = True
        message.alphas = array('f', calibration.rates)
        message.attempts_failed = calibration.failed
        message.attempts_succeeded = calibration.succeeded
    return message


def layout_of(info: EncoderInfo) -> Layout:
    """Read what an encoder says its embeddings consist of."""
    return Layout(
        info.bundle_sha256, tuple(info.view_names), tuple(
            Part(part.name, int(part.offset), tuple(int(side) for side in part.shape),
                 int(part.frames), bool(part.unit_norm), part.description)
            for part in info.parts), info.bundle_path,
        Identity.from_lines(info.embedding_sha256, info.ingredients),
        precision=info.precision, precision_cosine=float(info.precision_cosine) or None,
        pooling=info.pooling, geometry=_geometry_of(info),
        configuration_id=stamp_to_ns(info.configuration_id))


def _geometry_of(info: EncoderInfo) -> dict[str, ViewGeometry]:
    """Read how images of each view are turned and cropped; {}: it contradicts itself."""
    crops = [float(side) for side in info.view_crops]
    try:
        return {view: ViewGeometry(int(rotation), (
            crops[4 * row], crops[4 * row + 1], crops[4 * row + 2], crops[4 * row + 3]))
            for row, (view, rotation) in enumerate(
                zip(info.view_names, info.view_rotations, strict=True))}
    except (ValueError, IndexError):
        return {}


def seen_of(message: TaskEmbedding) -> Seen:
    """
    Read an embedding.

    :raises ValueError: its fields contradict each other.
    """
    views = list(message.view_names)
    for name in ('view_valid', 'view_stamps'):
        if len(getattr(message, name)) != len(views):
            raise ValueError(f'{name} has {len(getattr(message, name))} entries for {len(views)} '
                             'views')
    if len(message.data) != len(views) * message.dim:
        raise ValueError(f'{len(message.data)} numbers for {len(views)} views of {message.dim}')
    return Seen(
        stamp=stamp_to_ns(message.header.stamp), episode_id=stamp_to_ns(message.episode_id),
        task=message.task, bundle_sha256=message.bundle_sha256,
        embedding_sha256=message.embedding_sha256,
        instruction_sha256=message.instruction_sha256, views=views,
        view_valid=list(message.view_valid),
        view_stamps=[stamp_to_ns(stamp) for stamp in message.view_stamps],
        part_names=list(message.part_names),
        part_offsets=[int(offset) for offset in message.part_offsets],
        embedding=np.frombuffer(message.data, np.float32).reshape(len(views), message.dim),
        attends=message.pooling == TaskEmbedding.POOLING_ATTENTION,
        configuration_id=stamp_to_ns(message.configuration_id))
