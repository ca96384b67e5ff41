# Copyright 2026 hralign_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""
Record the episodes of an encoder, one bag each, and take labels for them.

A process of its own, which stands back behind the encoder: it subscribes, and all that takes time
is done on the recorder's thread. What is written and labelled, runtime/episode_recorder.py says.
"""

from array import array
from collections.abc import Callable
from contextlib import suppress
import ctypes
from functools import partial
import os
from pathlib import Path
import sys
import time

import cv2
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from hralign_ros.nodes import image_subscriptions, recorder_parameters
from hralign_ros.nodes import parameters as encoder_parameters
from hralign_ros.nodes.conversions import (
    MessageInfo,
    ns_to_stamp,
    received_at,
    stamp_to_ns,
)
from hralign_ros.nodes.diagnostics import ERROR, OK, status, WARN
from hralign_ros.nodes.interfaces import (
    EncoderInfo,
    LabelEpisode,
    SuccessProbability,
    TaskEmbedding,
)
from hralign_ros.nodes.message_types import definition, message_type, type_name
from hralign_ros.nodes.network import Network
from hralign_ros.nodes.process import run_node
from hralign_ros.nodes.rclpy_compatibility import (
    LOGGER_SERVICE,
    parameter_overrides,
    SubscriptionEventCallbacks,
)
from hralign_ros.runtime.bags import import_mcap, Topic
from hralign_ros.runtime.decision import Decision
from hralign_ros.runtime.episode_recorder import (
    DISK,
    EpisodeRecorder,
    Heard,
    INTERNAL,
    Message,
    Recorded,
    Thinning,
)
from hralign_ros.runtime.errors import DataError, FrameError
from hralign_ros.runtime.faults import Faults
from hralign_ros.runtime.labels import DISCARD, FAILURE, SUCCESS
from hralign_ros.runtime.recordings import header_stamp, Recordings
import numpy as np
from rclpy.clock import Clock, ClockType
from rclpy.node import Node
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy
from rclpy.serialization import deserialize_message, serialize_message
from sensor_msgs.msg import CompressedImage
from sensor_msgs.msg import Image as ImageMessage
from std_srvs.srv import Trigger

_OUTCOMES = {LabelEpisode.Request.OUTCOME_SUCCESS: SUCCESS,
             LabelEpisode.Request.OUTCOME_FAILURE: FAILURE,
             LabelEpisode.Request.OUTCOME_DISCARD: DISCARD}
# What image_transport calls JPEG made of an rgb8 image.
_FORMAT = 'rgb8; jpeg compressed bgr8'
# Messages of one topic that may wait for the executor; of images few, where few are recorded.
_DEPTH, _FEW = 100, 3
_LATCHED = QoSProfile(depth=1, reliability=ReliabilityPolicy.RELIABLE,
                      durability=DurabilityPolicy.TRANSIENT_LOCAL)
# Each event of a subscription is looked at whenever a message comes; Network asks once a second.
_NO_EVENTS = SubscriptionEventCallbacks(use_default_callbacks=False)
_RELIABLE = QoSProfile(depth=_DEPTH, reliability=ReliabilityPolicy.RELIABLE)
# A camera that has sent nothing for so long is named [s].
_SILENT_S = 2.0
# Diagnostics go out this often, and at once when a level changes [s].
_REPORT_S = 1.0
# Of malloc.h.
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3
_LOOK_S = 0.2


class Recorder(Node):
    """
    Subscribe, offer labels, and tell how it goes.

    :raises ParameterError: a parameter has a value that cannot be used.
    :raises DataError: mcap is not installed; the folder cannot be used.
    """

    def __init__(self) -> None:
        super().__init__('recorder', **LOGGER_SERVICE)
        self._settings = settings = recorder_parameters.declare(self)
        # The encoder's names are in a parameter file for both.
        views = settings['views']
        unknown = encoder_parameters.unknown_names(
            parameter_overrides(self),
            {**encoder_parameters.table(views), **recorder_parameters.table(views)})
        if unknown:
            self.get_logger().warning(
                'parameters that this node does not have, and ignores: ' + ', '.join(unknown))
        import_mcap('writer')
        stand_back(settings['niceness'])
        keep_memory()
        cv2.setNumThreads(1)
        self._faults = Faults(
            on_begin=lambda key, text: self.get_logger().warning(text),
            on_end=lambda key: self.get_logger().info(f'recovered: {key}'))
        self._network = Network(self, self._faults)
        recordings = Recordings(
            settings.folder, max_bytes=round(settings['max_gb'] * 1e9),
            min_free=round(settings['min_free_gb'] * 1e9))
        self._recordings = recordings
        self._recorder = EpisodeRecorder(
            recordings, settings.rules, self._faults, self.get_logger().info)
        self._bags = recordings.bags()
        cut_off = [bag.path.name for bag in self._bags if bag.partial]
        if cut_off:
            self.get_logger().warning(
                f'recordings that were cut off, and are left as they are: {", ".join(cut_off)}')
        self._sim_time = bool(self.get_parameter('use_sim_time').value)
        self._thinning = {view: Thinning(settings['rate_hz']) for view in settings.views}
        self._image_topics: dict[str, Topic] = {}
        # When an image came last, by view, on a clock of our own [s].
        self._came = dict.fromkeys(settings.views, time.monotonic())
        for name, view in settings.views.items():
            self._subscribe_camera(name, view)
        encoder = settings['encoder']
        self._success_topic = self._subscribe(
            f'{encoder}/success', SuccessProbability, _RELIABLE, heard=self._on_success)
        self._subscribe(f'{encoder}/info', EncoderInfo, _LATCHED)
        if settings['record_embedding']:
            self._subscribe(f'{encoder}/embedding', TaskEmbedding, _RELIABLE)
        # Topics whose type is not known yet: nobody publishes them.
        self._waiting = {self.resolve_topic_name(topic) for topic in settings.topics}
        self._diagnostics = self.create_publisher(DiagnosticArray, '/diagnostics', 1)
        self._last_levels: tuple[bytes, ...] = ()
        self._last_report = 0.0
        self.create_service(LabelEpisode, '~/label_episode', self._on_label)
        for outcome in (SUCCESS, FAILURE):
            self.create_service(
                Trigger, f'~/label_{outcome}', partial(self._on_trigger, outcome))
        # Also while simulated time does not advance.
        self.create_timer(_LOOK_S, self._look, clock=Clock(clock_type=ClockType.STEADY_TIME))
        self._recorder.start()
        self.get_logger().info(f'recording into {settings.folder.resolve()}')

    # What comes in.

    def _subscribe_camera(self, name: str, view: recorder_parameters.View) -> None:
        resolved = self.resolve_topic_name(view.topic)
        kind, topic, qos = image_subscriptions.camera_topic(
            resolved, view.transport, view.reliability,
            depth=_FEW if self._settings['rate_hz'] else _DEPTH)
        self._network.listen(name, topic, qos)
        self._image_topics[name] = Topic(
            f'{resolved}/compressed', type_name(CompressedImage),
            definition(type_name(CompressedImage)))
        # Serialised: most images are left out, and need not be unpacked for that.
        self.create_subscription(
            kind, view.topic if topic == resolved else topic,
            partial(self._on_image, name, kind is CompressedImage), qos, raw=True,
            event_callbacks=_NO_EVENTS)

    def _subscribe(
        self, name: str, kind: type, qos: QoSProfile, heard: Callable[[bytes], None] | None = None,
    ) -> str:
        """Record a topic as it comes, without a look into it."""
        latched = qos.durability == DurabilityPolicy.TRANSIENT_LOCAL
        topic = Topic(self.resolve_topic_name(name), type_name(kind), definition(type_name(kind)),
                      latched)

        def take(data: bytes, info: MessageInfo) -> None:
            if heard is not None:
                heard(data)
            received = received_at(info)
            self._recorder.offer(Message(topic, lambda: data, received, received, len(data)))

        callback: Callable[..., None] = take
        self.create_subscription(kind, name, callback, qos, raw=True, event_callbacks=_NO_EVENTS)
        return topic.name

    def _on_success(self, data: bytes) -> None:
        message = deserialize_message(data, SuccessProbability)
        self._recorder.offer(Heard(stamp_to_ns(message.episode_id), Decision(message.decision),
                                   stamp_to_ns(message.header.stamp)))

    def _on_image(self, view: str, ready: bool, data: bytes, info: MessageInfo) -> None:
        received, stamp = received_at(info), header_stamp(data)
        self._came[view] = time.monotonic()
        arrival = self._settings['stamp_source'] == 'arrival'
        self._faults.note(f'{view} stamp', '' if stamp or arrival else (
            f'view {view}: its stamps are 0, and it is not recorded; set stamp_source to arrival, '
            'here and for the encoder'))
        if arrival:
            stamp = int(self.get_clock().now().nanoseconds)
        if not stamp or not self._thinning[view].takes(stamp):
            return
        # Ids of episodes are system time also where the clock is simulated.
        taken = received if arrival or self._sim_time else stamp
        self._recorder.offer(Message(
            self._image_topics[view],
            (lambda: data) if ready else partial(as_jpeg, data, self._settings['jpeg_quality']),
            received, taken, len(data), view, stamp))

    def _find_topics(self) -> None:
        """Subscribe to further topics once somebody publishes them, with a QoS that all offer."""
        for topic in sorted(self._waiting):
            offers = self.get_publishers_info_by_topic(topic)
            if not offers:
                continue
            self._waiting.discard(topic)
            profiles = [offer.qos_profile for offer in offers]
            qos = QoSProfile(
                depth=_DEPTH,
                reliability=ReliabilityPolicy.RELIABLE if all(
                    one.reliability == ReliabilityPolicy.RELIABLE for one in profiles)
                else ReliabilityPolicy.BEST_EFFORT,
                durability=DurabilityPolicy.TRANSIENT_LOCAL if all(
                    one.durability == DurabilityPolicy.TRANSIENT_LOCAL for one in profiles)
                else DurabilityPolicy.VOLATILE)
            try:
                self._subscribe(topic, message_type(offers[0].topic_type), qos)
            except DataError as error:
                self.get_logger().error(f'{topic} is not recorded: {error}')

    # Labels.

    def _on_label(
        self, request: LabelEpisode.Request, response: LabelEpisode.Response,
    ) -> LabelEpisode.Response:
        outcome = _OUTCOMES.get(request.outcome)
        try:
            if outcome is None:
                raise DataError(f'outcome is {request.outcome}; allowed: 1 (success), '
                                '2 (failure), 3 (discard)')
            recorded = self._recorder.label(
                stamp_to_ns(request.episode_id), outcome, by=request.by or
                self._settings['label_by'], success_stamp=stamp_to_ns(request.success_time),
                note=request.note)
        except DataError as error:
            response.message = f'refused: {error}'
            self.get_logger().warning(f'label refused: {error}')
            return response
        response.accepted = True
        response.message = self._labelled(recorded, outcome)
        response.episode_id = ns_to_stamp(recorded.episode_id)
        response.episode = recorded.name
        return response

    def _on_trigger(
        self, outcome: str, request: Trigger.Request, response: Trigger.Response,
    ) -> Trigger.Response:
        try:
            response.message = self._labelled(self._recorder.label(
                0, outcome, by=self._settings['label_by']), outcome)
            response.success = True
        except DataError as error:
            response.message = f'refused: {error}'
            self.get_logger().warning(f'label refused: {error}')
        return response

    def _labelled(self, recorded: Recorded, outcome: str) -> str:
        text = f'{recorded.name} is labelled {outcome}'
        self.get_logger().info(text)
        return text

    # What is told.

    def _look(self) -> None:
        """Look around once a second, and tell at once when a level changes."""
        now = time.monotonic()
        due = now - self._last_report >= _REPORT_S
        if due:
            self._find_topics()
            self._network.check()
            self._bags = self._recordings.bags()
            heard = self._recorder.state().heard
            for view, came in self._came.items():
                self._faults.note(f'{view} silent', (
                    f'view {view}: no image comes on {self._network.topics[view]}'
                    if heard and now - came > _SILENT_S else ''))
        self._faults.settle()
        statuses = self._statuses()
        levels = tuple(one.level for one in statuses)
        if due or levels != self._last_levels:
            self._last_levels, self._last_report = levels, now
            message = DiagnosticArray(status=statuses)
            message.header.stamp = self.get_clock().now().to_msg()
            self._diagnostics.publish(message)

    def _statuses(self) -> list[DiagnosticStatus]:
        node, faults = self.get_fully_qualified_name(), self._faults.lasting()
        state = self._recorder.state()
        full = faults.pop(DISK, '')
        hard = INTERNAL in faults
        text = '; '.join(text.strip().splitlines()[-1] for text in faults.values())
        if state.episode:
            doing = f'recording {state.episode}'
        elif state.heard:
            doing = 'waiting for the next episode, or for its first image'
        else:
            doing = (f'nothing is recorded: no encoder publishes {self._success_topic}; start or '
                     'activate it, or set the parameter encoder')
        level = ERROR if hard else WARN if faults or not state.heard else OK
        images = {f'images_{view}': state.images.get(view, 0) for view in self._settings.views}
        bags = self._bags
        used = sum(bag.size for bag in bags) / 1e9
        limit = self._settings['max_gb']
        return [
            status(node, 'recording', level, text or doing, {
                'episode': state.episode, **images, 'megabytes': state.written / 1e6,
                'episodes_recorded': state.finished, 'dropped': state.dropped,
                'waiting_for': ', '.join(sorted(self._waiting))}),
            status(node, 'disk', ERROR if full else OK,
                   full or f'{used:.2f} GB' + (f' of {limit:g}' if limit else ''), {
                       'folder': self._settings.folder, 'bags': len(bags),
                       'cut_off': sum(bag.partial and bag.name != state.episode for bag in bags),
                       'gigabytes': used, 'max_gb': limit})]

    def destroy_node(self) -> None:
        """Finish the bag before the node goes."""
        if not self._recorder.stop():
            self.get_logger().error('the disk does not answer; the last bag stays partial')
        self._recordings.close()
        super().destroy_node()


def stand_back(niceness: int) -> None:
    """Lower the priority of this process by so much: of all threads that it has, and will have."""
    lower = min(os.getpriority(os.PRIO_PROCESS, 0) + niceness, 19)
    for thread in os.listdir('/proc/self/task'):
        with suppress(ProcessLookupError):
            os.setpriority(os.PRIO_PROCESS, int(thread), lower)
    # Where the system shares the processor out by session, this counts if the session is ours.
    if os.getsid(0) == os.getpid():
        with suppress(OSError):
            Path('/proc/self/autogroup').write_text(str(niceness))


def keep_memory() -> None:
    """
    Have glibc keep memory that is freed: an image comes into what the last one has left.

    Otherwise each image is new pages, which takes more than half of the time to receive it.
    """
    mallopt = getattr(ctypes.CDLL(None), 'mallopt', None)
    if mallopt is not None:
        mallopt(_M_MMAP_THRESHOLD, 32 << 20)
        mallopt(_M_TRIM_THRESHOLD, 128 << 20)


def as_jpeg(data: bytes, quality: int) -> bytes:
    """
    Make a serialised CompressedImage of a serialised Image.

    :raises FrameError: the image cannot be decoded or encoded.
    """
    message = deserialize_message(data, ImageMessage)
    image, _ = image_subscriptions.decode(message)
    try:
        done, jpeg = cv2.imencode('.jpg', cv2.cvtColor(image, cv2.COLOR_RGB2BGR),
                                  [cv2.IMWRITE_JPEG_QUALITY, quality])
    except cv2.error as error:
        raise FrameError('corrupt_image', f'OpenCV makes no JPEG of it: {error}') from error
    if not done:
        raise FrameError('corrupt_image', 'OpenCV makes no JPEG of it')
    return bytes(serialize_message(CompressedImage(
        header=message.header, format=_FORMAT,
        data=array('B', np.asarray(jpeg, np.uint8).tobytes()))))


def main(arguments: list[str] | None = None) -> int:
    """Run the node as a process."""
    return run_node('recorder', Recorder, arguments)


if __name__ == '__main__':
    sys.exit(main())
