# Copyright 2026 hralign_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""
The encoder as a lifecycle node.

configure loads, verifies and warms the bundle; activate opens the gates; deactivate closes them;
cleanup frees everything. ~/info and /diagnostics work in every state.
"""

from collections.abc import Callable
from functools import partial
import sys
import time
from typing import Any

from diagnostic_msgs.msg import DiagnosticStatus
from hralign_ros import __version__
from hralign_ros.nodes import conversions, diagnostics, image_subscriptions, parameters
from hralign_ros.nodes.interfaces import (
    EncoderInfo,
    SetTask,
    StartEpisode,
    SuccessProbability,
    TaskEmbedding,
)
from hralign_ros.nodes.mirrors import any_wanted, Mirrors
from hralign_ros.nodes.network import policy_of, TASK
from hralign_ros.nodes.outcomes import Outcomes
from hralign_ros.nodes.process import run_node
from hralign_ros.nodes.rclpy_compatibility import (
    parameter_overrides,
    PublisherEventCallbacks,
    SubscriptionEventCallbacks,
)
from hralign_ros.nodes.supervised import SupervisedNode
from hralign_ros.nodes.wait_for_success import GoalError, SuccessWaiter
from hralign_ros.runtime.encoder import Encoder
from hralign_ros.runtime.errors import HralignError, TaskError
from hralign_ros.runtime.overlay import attention_overlay
from hralign_ros.runtime.pipeline import Callbacks, Pipeline, Result
from hralign_ros.runtime.resources import default_bundle
from hralign_ros.runtime.tasks import same_rate, Task
from hralign_ros.runtime.waiting import refusal
from rclpy.clock import JumpThreshold, TimeJump
from rclpy.duration import Duration
from rclpy.lifecycle import LifecycleState
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import CompressedImage
from sensor_msgs.msg import Image as ImageMessage
from std_msgs.msg import String
from std_srvs.srv import Trigger

RELIABLE = QoSProfile(depth=1, reliability=ReliabilityPolicy.RELIABLE)
LATCHED = QoSProfile(depth=1, reliability=ReliabilityPolicy.RELIABLE,
                     durability=DurabilityPolicy.TRANSIENT_LOCAL)


class EncoderNode(SupervisedNode):
    """
    Publish embeddings and success probabilities for matched camera frames.

    Camera callbacks and services run on the executor's thread; inference and publication of
    results on the pipeline's.
    """

    def __init__(self) -> None:
        super().__init__('encoder')
        self._info = self.create_publisher(EncoderInfo, '~/info', LATCHED)
        self._encoder: Encoder | None = None
        self._settings: parameters.Settings | None = None
        self._pipeline: Pipeline | None = None
        self._mirrors: Mirrors | None = None
        self._outcomes: Outcomes | None = None
        self._results: list[Any] = []
        self._subscriptions_made: list[Any] = []
        parameters.declare(self)
        self._warn_of_unknown(parameters.unknown_names(
            parameter_overrides(self), parameters.table(self.get_parameter('views').value)))
        self.add_pre_set_parameters_callback(
            lambda changed: parameters.convert_changes(self, changed))
        self.add_on_set_parameters_callback(lambda changed: parameters.validate_change(
            self, changed, self._encoder))
        self.add_post_set_parameters_callback(lambda _: self._apply_settings())
        self.create_service(SetTask, '~/set_task', self._on_set_task)
        self.create_service(StartEpisode, '~/start_episode', self._on_start_episode)
        if self.get_parameter('mirrors.reset').value:
            self.create_service(Trigger, '~/reset', self._on_reset)
        if self.get_parameter('mirrors.task').value:
            self.create_subscription(String, '~/task', self._on_task, RELIABLE)
        self._waiter = SuccessWaiter(
            self, self._steady, self._prepare_wait,
            lambda: round(self.get_parameter('wait_for_success.give_up_after_s').value * 1e9))
        self._jump_handle = self.get_clock().create_jump_callback(
            JumpThreshold(min_forward=None, min_backward=Duration(nanoseconds=-1),
                          on_clock_change=True),
            post_callback=self._on_time_jump)

    # Lifecycle.

    def _configure(self) -> None:
        """Load everything; on an error nothing is left behind."""
        started = time.perf_counter()
        self._problem = ''
        settings = parameters.Settings.read(parameters.current(self))
        encoder = Encoder.load(
            settings['bundle'] or default_bundle(), provider=settings['provider'],
            require_gpu=settings['require_gpu'], cuda_graph=settings['cuda_graph'],
            threads=settings['threads'], precision=settings['precision'],
            pooling=settings['pooling'],
            parts=parameters.given_names(settings['embedding_parts']),
            geometry={name: view.geometry for name, view in settings.views.items()},
            trusted_keys=parameters.given_names(settings['trusted_keys']),
            require_signature=settings['require_signature'])
        if tuple(settings.views) != encoder.manifest.views:
            raise parameters.ParameterError(
                f'parameter views is {", ".join(settings.views)}, but the bundle '
                f'{encoder.bundle.path} has {", ".join(encoder.manifest.views)}, in this order')
        parameters.check_guarantee(settings.values, encoder)
        encoder.warm_up()
        self._settings, self._encoder = settings, encoder
        self._pipeline = Pipeline(
            encoder,
            Callbacks(
                decode=lambda view, message: image_subscriptions.decode(message),
                clock=lambda: int(self.get_clock().now().nanoseconds),
                on_result=self._publish, after_result=self._publish_attention,
                on_episode=self._on_episode),
            self._faults,
            required=tuple(n for n, view in settings.views.items() if view.required),
            pairing=settings.pairing, decision=settings.decision,
            stuck_after=settings.stuck_after, task=settings['task'])
        self._make_publishers(encoder)
        for name, view in settings.views.items():
            self._subscribe(name, view)
        warm_up = time.perf_counter() - started
        self._announce(encoder, warm_up)
        self._report(force=True)

    def _make_publishers(self, encoder: Encoder) -> None:
        """Make the managed publishers; they are silent while inactive."""
        def make(kind: type, name: str, qos: QoSProfile = RELIABLE) -> Any:
            topic = self.resolve_topic_name(name)
            self._network.offer(topic, qos)
            # By its own name: a name that is remapped already would be remapped once more.
            return self.create_lifecycle_publisher(
                kind, name, qos, event_callbacks=PublisherEventCallbacks(
                    incompatible_qos=lambda event: self._network.refused(
                        topic, policy_of(event))))

        self._embedding = make(TaskEmbedding, '~/embedding')
        self._success = make(SuccessProbability, '~/success')
        self._attention = {view: make(ImageMessage, f'~/attention/{view}')
                           for view in encoder.manifest.views}
        self._results = [self._embedding, self._success, *self._attention.values()]
        assert self._settings is not None
        if any_wanted(self._settings.values):
            self._mirrors = Mirrors(self._settings.values, make)
            self._results += self._mirrors.publishers.values()
        self._outcomes = Outcomes(self, self._settings.values, make, clock=time.time_ns)
        self._results += self._outcomes.publishers

    def _announce(self, encoder: Encoder, warm_up: float) -> None:
        """Say in the log and in ~/info what is loaded and where it runs."""
        info = conversions.info_message(encoder, warm_up=warm_up, version=__version__)
        info.stamp = self.get_clock().now().to_msg()
        self._info.publish(info)
        hardware = encoder.hardware
        log = self.get_logger()
        log.info(f'loaded {encoder.bundle.path} ({encoder.bundle.sha256[:12]}) in {warm_up:.2f} s')
        log.info(f'signature: good, by the trusted key {encoder.bundle.signed_by[:16]}'
                 if encoder.bundle.signed_by else 'signature: none that was checked')
        log.info(f'provider: asked {hardware.requested}, got {hardware.provider}')
        if hardware.remark:
            log.warning(hardware.remark)
        if not encoder.manifest.success.trained:
            log.warning('this success head is not trained: every decision is ABSTAIN')
        elif not encoder.tasks.alphas:
            log.warning('this bundle has no calibrated threshold: every decision is ABSTAIN. '
                        'Calibrate it with more attempts, both that fail and that succeed')
        assert self._settings is not None
        log.info('parameters: ' + ', '.join(
            f'{name}={value}' for name, value in sorted(self._settings.values.items())))

    def _subscribe(self, name: str, view: parameters.ViewSettings) -> None:
        resolved = self.resolve_topic_name(view.topic)
        kind, topic, qos = image_subscriptions.camera_topic(
            resolved, view.transport, view.reliability)
        self._network.listen(name, topic, qos)
        # By its own name where it can be: of two names that are exchanged by remapping, the one
        # that is resolved already would be exchanged back.
        asked = view.topic if topic == resolved else topic
        self._subscriptions_made.append(self.create_subscription(
            kind, asked, partial(self._on_image, name), qos,
            event_callbacks=SubscriptionEventCallbacks(
                incompatible_qos=lambda event: self._network.unheard(name, policy_of(event)))))

    def _activate(self, state: LifecycleState) -> None:
        """Enable the publishers and start the worker."""
        assert self._pipeline is not None
        self._open_publishers(state)
        self._active = True
        self._pipeline.start()

    def _deactivate(self, state: LifecycleState) -> None:
        """Stop the worker, then disable the publishers."""
        assert self._pipeline is not None
        self._active = False
        self._stop()
        self._shut_publishers(state)

    def _stop(self) -> None:
        self._waiter.end('the node was deactivated or shut down')
        if self._pipeline is not None and not self._pipeline.stop():
            self.get_logger().error(
                'the model has not returned; its thread is left behind. Restart the process')
        if self._mirrors is not None:
            self._mirrors.close()

    def _teardown(self, *, keep_problem: bool = False) -> None:
        """Free what there is; works from any half-made state."""
        self._active = False
        self._stop()
        if self._outcomes is not None:
            self._outcomes.close()
        for subscription in self._subscriptions_made:
            self.destroy_subscription(subscription)
        for publisher in self._results:
            self.destroy_lifecycle_publisher(publisher)
        self._subscriptions_made, self._results = [], []
        self._mirrors = self._outcomes = None
        self._network.forget()
        self._faults.clear()
        self._pipeline = self._encoder = self._settings = None
        if not keep_problem:
            self._problem = ''

    def last_words(self) -> float:
        """
        Stop, and answer whoever waits for success, while the executor still runs.

        :returns: for how long it is to go on, so that the answer arrives [s].
        """
        self._active = False
        self._waiter.end('the node was shut down')
        # Told now: a model that hangs is waited for next.
        left = self._waiter.to_be_fetched()
        self._stop()
        return left

    def destroy_node(self) -> None:
        """Stop the worker before the node goes."""
        self._stop()
        self._waiter.destroy()
        super().destroy_node()

    # What comes in.

    def _on_image(self, view: str, message: ImageMessage | CompressedImage) -> None:
        """Put a frame into its slot; subscriptions are not managed, so the gate is here."""
        if not self._active or self._pipeline is None or self._settings is None:
            return
        if self._settings['stamp_source'] == 'arrival':
            stamp = int(self.get_clock().now().nanoseconds)
        else:
            stamp = conversions.stamp_to_ns(message.header.stamp)
        self._pipeline.offer(view, stamp, message)

    def _on_time_jump(self, jump: TimeJump) -> None:
        """Start anew when the clock goes back or its source changes."""
        if self._pipeline is not None:
            # Two sources of /clock make it jump with every message.
            self.get_logger().warning('the clock jumped back or changed: a new episode begins',
                                      throttle_duration_sec=1.0,
                                      throttle_time_source_type=self._steady)
            self._pipeline.time_jumped()

    def _on_set_task(
        self, request: SetTask.Request, response: SetTask.Response,
    ) -> SetTask.Response:
        if self._pipeline is None or self._encoder is None:
            response.message = 'not configured: configure the node first'
            return response
        try:
            episode = self._pipeline.set_task(request.task)
            nearest = self._encoder.text.nearest(episode.task)
        except HralignError as error:
            kind = 'refused' if isinstance(error, TaskError) else 'failed'
            response.message = f'{kind}: {error}'
            self.get_logger().warning(f'set_task {kind}: {error}')
            episode, nearest = self._pipeline.episode, []
        else:
            response.accepted = True
            self._faults.good(TASK)
            if not episode.task.text:
                response.message = 'no instruction is set now: embeddings are the plain mean'
            elif episode.task.known:
                response.message = f'task {episode.task.task.task_id}' \
                    + self._undecided(episode.task.task)
            else:
                response.message = 'the bundle does not know this task: UNKNOWN_TASK'
            self.get_logger().info(f"task '{episode.task.text}': {response.message}")
        response.episode_id = conversions.ns_to_stamp(episode.episode_id)
        response.task = episode.task.text
        response.task_id = episode.task.task.task_id if episode.task.known else ''
        response.nearest_task_ids = [task.task_id for task, _ in nearest]
        response.nearest_tasks = [task.name for task, _ in nearest]
        response.nearest_similarity = [float(cosine) for _, cosine in nearest]
        return response

    def _undecided(self, task: Task) -> str:
        """Say that nothing will be decided for a task that is known; '' where it will."""
        assert self._encoder is not None and self._settings is not None
        alpha, views = self._settings.decision.alpha, self._encoder.manifest.views
        if task.threshold(views, alpha) is not None:
            return ''
        asked = '' if alpha is None else f' for an alpha of {alpha:g}'
        return f', for which nothing can be decided{asked}. {task.verdict(views)}'

    def _on_start_episode(
        self, request: StartEpisode.Request, response: StartEpisode.Response,
    ) -> StartEpisode.Response:
        if self._pipeline is None:
            response.message = 'not configured: configure the node first'
            return response
        response.start = self.get_clock().now().to_msg()
        episode_id = self._pipeline.start_episode().episode_id
        response.episode_id = conversions.ns_to_stamp(episode_id)
        response.accepted = True
        response.message = f'episode {conversions.stamp_text(episode_id)}'
        return response

    def _on_reset(
        self, request: Trigger.Request, response: Trigger.Response,
    ) -> Trigger.Response:
        answer = self._on_start_episode(StartEpisode.Request(), StartEpisode.Response())
        response.success, response.message = answer.accepted, answer.message
        return response

    def _on_task(self, message: String) -> None:
        """Set an instruction that nobody waits for an answer of: a refusal is a fault."""
        answer = self._on_set_task(SetTask.Request(task=message.data), SetTask.Response())
        if not answer.accepted:
            self._faults.bad(TASK, f'an instruction on ~/task changed nothing: {answer.message}')

    def _prepare_wait(self, instruction: str, alpha: float) -> Callable[[], int]:
        """Check what a goal of ~/wait_for_success asks for; see SuccessWaiter."""
        pipeline, encoder, settings = self._pipeline, self._encoder, self._settings
        if pipeline is None or encoder is None or settings is None or not self._active:
            raise GoalError('the node is not active: configure and activate it first')
        running, views = pipeline.episode, encoder.manifest.views
        if instruction.strip():
            wrong = refusal(encoder.text.encode(instruction), views, settings.decision, alpha)
        else:
            decider = running.decider
            wrong = refusal(running.task, views, decider.rules, alpha)
            if decider.latched is not None:
                # It may be of an attempt that the planner does not mean.
                wrong = (f'the running episode was decided before, {decider.latched.name}; begin '
                         'another one: give the instruction')
            calibration = running.task.task.calibration(views)
            rate = calibration.rate(decider.rules.alpha) if calibration else None
            if alpha and not wrong and not (rate and same_rate(rate, alpha)):
                wrong = (f'alpha is {alpha:g}, and the episode that is running is decided by '
                         f'{rate or 0.0:.3g}; give the instruction, which begins another one')
        if wrong:
            raise GoalError(wrong)
        if not instruction.strip():
            return lambda: running.episode_id
        return lambda: pipeline.set_task(instruction, alpha=alpha or None).episode_id

    def _apply_settings(self) -> None:
        """Hand changed parameters to the pipeline."""
        if self._pipeline is None:
            return
        self._settings = parameters.Settings.read(parameters.current(self))
        self._pipeline.update(
            self._settings.pairing, self._settings.decision,
            stuck_after=self._settings.stuck_after)

    # What goes out; the first two run on the worker's thread, the first on `check_hang`'s as well.

    def _publish(self, result: Result) -> None:
        assert self._encoder is not None
        success = conversions.success_message(result, self._encoder)
        messages: list[tuple[Any, Any]] = [(self._success, success)]
        if result.tick is not None:
            messages.insert(
                0, (self._embedding, conversions.embedding_message(result, self._encoder)))
        for publisher, message in messages:
            # In this order: a thread that waits in between is no part of the processing.
            message.processing_duration = conversions.duration_message(
                time.monotonic_ns() - result.started)
            message.publish_time = self.get_clock().now().to_msg()
            publisher.publish(message)
        self._waiter.take(success)
        if self._mirrors is not None:
            self._mirrors.success(success)
            if result.tick is not None:
                self._mirrors.embedding(messages[0][1])
        if self._outcomes is not None:
            self._outcomes.success(success)

    def _on_episode(self, episode_id: int) -> None:
        """Take back what was said of the episode before; on the thread that begins one."""
        if self._mirrors is not None:
            self._mirrors.clear()
        self._waiter.episode_began(episode_id)

    def _publish_attention(self, result: Result) -> None:
        """Publish attention overlays, for views whose overlay has a subscriber."""
        if result.tick is None or self._encoder is None:
            return
        tick, manifest = result.tick, self._encoder.manifest
        for row, view in enumerate(manifest.views):
            publisher = self._attention[view]
            if view not in tick.images or not publisher.get_subscription_count():
                continue
            overlay = attention_overlay(
                tick.images[view], tick.attention[row], manifest.tokens.grid)
            publisher.publish(conversions.image_message(
                overlay, int(tick.view_stamps[row]), result.frame_ids.get(view, '')))

    def _check(self, due: bool) -> None:
        if self._pipeline is not None and self._active:
            self._pipeline.check_hang()

    def _statuses(self) -> list[DiagnosticStatus]:
        name = self.get_fully_qualified_name()
        faults = self._faults.lasting()
        statuses = [diagnostics.model_status(
            name, self.state_label, self._encoder, self._problem, faults)]
        if self._pipeline is not None and self._settings is not None and self._active:
            statistics = self._pipeline.statistics()
            statuses += [
                *(diagnostics.camera_status(
                    name, view, self._network.topics[view], statistics, self._settings, faults)
                  for view in self._settings.views),
                diagnostics.pairing_status(name, statistics, self._settings, faults),
                diagnostics.inference_status(name, statistics, faults)]
        return statuses


def _make_node() -> EncoderNode:
    """Make the node and, where it is asked for, configure and activate it."""
    node = EncoderNode()
    node.autostart()
    return node


def main(arguments: list[str] | None = None) -> int:
    """Run the node as a process."""
    return run_node('encoder', _make_node, arguments, last_words=EncoderNode.last_words)


if __name__ == '__main__':
    sys.exit(main())
