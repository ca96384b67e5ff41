# Copyright 2026 hralign_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""
A policy as a lifecycle node: embeddings and proprioception in, commands for an arm out.

configure loads the policy and finds out what its numbers are on a robot; activate begins the first
attempt, or lets ~/start begin it; deactivate stops the arm. When it may act, and on what, says
runtime/policy_loop.py; what its numbers are, runtime/policy_channels.py.
"""

from array import array
import sys
import time
from typing import Any

from diagnostic_msgs.msg import DiagnosticStatus
from geometry_msgs.msg import PoseStamped, TwistStamped
from hralign_ros.nodes import conversions, policy_parameters
from hralign_ros.nodes.conversions import ns_to_stamp, stamp_text, stamp_to_ns
from hralign_ros.nodes.diagnostics import ERROR, OK, status, WARN
from hralign_ros.nodes.interfaces import (
    ActionChunk,
    EncoderInfo,
    SetTask,
    SuccessProbability,
    TaskEmbedding,
)
from hralign_ros.nodes.network import NAME
from hralign_ros.nodes.parameters import declared, given_names, unknown_names
from hralign_ros.nodes.process import let_arrive, run_node
from hralign_ros.nodes.rclpy_compatibility import parameter_overrides
from hralign_ros.nodes.supervised import SupervisedNode
from hralign_ros.runtime.decision import Decision
from hralign_ros.runtime.policy import Policy
from hralign_ros.runtime.policy_channels import (
    Command,
    Commands,
    JointReading,
    Proprioception,
)
from hralign_ros.runtime.policy_loop import Chunk, PolicyLoop, STOPPED, Why
import numpy as np
from rclpy.lifecycle import LifecycleState
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy
from rclpy.task import Future
from sensor_msgs.msg import JointState
from std_msgs.msg import Float64, String
from std_srvs.srv import Trigger

_RELIABLE = QoSProfile(depth=1, reliability=ReliabilityPolicy.RELIABLE)
# A SUCCESS is not lost behind the ABSTAIN of the next frame, while the policy is asked.
_EACH = QoSProfile(depth=10, reliability=ReliabilityPolicy.RELIABLE)
_LATCHED = QoSProfile(depth=1, reliability=ReliabilityPolicy.RELIABLE,
                      durability=DurabilityPolicy.TRANSIENT_LOCAL)
# Arm and gripper often are two senders on one topic, and any reliability will do.
_SENSOR = QoSProfile(depth=10, reliability=ReliabilityPolicy.BEST_EFFORT)

# How late a stop may be, beyond max_age_s [s].
_WATCH_PERIOD = 0.02
# The encoder is given so long to begin an episode [s].
_ANSWER_S = 5.0
# One that has refused is asked again after so long, where attempts begin by themselves [s].
_PAUSE_S = 1.0
# At the beginning of an episode there is no embedding of it for a moment [s].
_FIRST_S = 1.0
_NAN = float('nan')
# Keys of faults.
_HOLD, _START, _MESSAGE, _RIVAL, _ENCODERS = 'hold', 'start', 'message', 'rival', 'encoders'


class PolicyNode(SupervisedNode):
    """
    Command an arm by a policy, while everything is as it should be.

    Everything runs on the executor's thread: while a policy is asked nothing is sent either.
    """

    def __init__(self) -> None:
        super().__init__('policy')
        self._values = declared(self, policy_parameters.NODE_PARAMETERS)
        self._warn_of_unknown(unknown_names(
            parameter_overrides(self), policy_parameters.table()))
        self._state = self.create_publisher(String, '~/state', _LATCHED)
        self._said = ''
        self._loop: PolicyLoop | None = None
        self._commands: Commands | None = None
        self._outputs: dict[str, Any] = {}
        self._inputs: list[Any] = []
        self._client: Any = None
        self._periodic: list[Any] = []
        # The encoder has been asked for an episode: the answer to come, and since when [s].
        self._asked: Future | None = None
        self._asked_at = self._ask_after = 0.0
        # When the attempt began [s].
        self._began_at = 0.0
        self._starting = False
        # Whether the end of the attempt has been told.
        self._told_end = True
        self._why: Why | None = None
        self.create_service(Trigger, '~/start', self._on_start)
        self.create_service(Trigger, '~/stop', self._on_stop)
        self._say('unconfigured')

    def _now(self) -> int:
        return int(self.get_clock().now().nanoseconds)

    # Lifecycle.

    def _configure(self) -> None:
        """Load everything; on an error nothing is left behind."""
        self._problem = ''
        values = self._values
        policy_parameters.check(values)
        policy = Policy.read(policy_parameters.folder(values), threads=values['threads'])
        spec = policy.spec
        commands = Commands(spec.actions, spec.period_s, policy_parameters.speed(values))
        proprioception = Proprioception(spec.proprio, given_names(values['gripper_joints']))
        self._commands = commands
        self._loop = PolicyLoop(
            policy, commands, proprioception, self._now, policy_parameters.rules(values))
        for wanted, kind, name in (
                (commands.moves_tool, TwistStamped, '~/twist'),
                (commands.moves_gripper, Float64, '~/gripper'),
                (commands.moves_joints, JointState, '~/joints'),
                (True, ActionChunk, '~/chunk')):
            if wanted:
                self._outputs[name] = self.create_lifecycle_publisher(kind, name, _RELIABLE)
        encoder = values['encoder']
        self._client = self.create_client(SetTask, f'{encoder}/set_task')
        for kind, name, callback, qos in (
                (EncoderInfo, f'{encoder}/info', self._on_info, _LATCHED),
                (TaskEmbedding, f'{encoder}/embedding', self._on_embedding, _RELIABLE),
                (SuccessProbability, f'{encoder}/success', self._on_success, _EACH)):
            self._inputs.append(self.create_subscription(kind, name, callback, qos))
        if proprioception.joints:
            self._inputs.append(self.create_subscription(
                JointState, values['joint_states'], self._on_joints, _SENSOR))
        if proprioception.needs_pose:
            self._inputs.append(self.create_subscription(
                PoseStamped, values['tool_pose'], self._on_pose, _SENSOR))
        self.get_logger().info(
            f"loaded {policy.folder} for '{spec.task}': "
            f'{", ".join(f"{one.name} [{one.unit}]" for one in spec.actions)} every '
            f'{spec.period_s:g} s, on {", ".join(spec.part_names) or "no embedding"}')
        self._say('inactive')
        self._report(force=True)

    def _activate(self, state: LifecycleState) -> None:
        """Let commands out."""
        assert self._loop is not None
        self._open_publishers(state)
        self._active = True
        # A system clock that is set back would halt a timer for as long.
        clock = self.get_clock() if self.get_parameter('use_sim_time').value else self._steady
        self._periodic = [
            self.create_timer(self._loop.spec.period_s, self._step, clock=clock),
            self.create_timer(_WATCH_PERIOD, self._watch, clock=self._steady)]
        if self._values['next_episode'] == policy_parameters.START:
            self._begin()
        self._tell()

    def _deactivate(self, state: LifecycleState) -> None:
        """Stop the arm, then shut the outputs."""
        self._stop()
        self._shut_publishers(state)
        self._say('inactive')

    def _stop(self) -> None:
        """End the attempt and whatever moves."""
        self._active = self._starting = False
        self._forget_request()
        for timer in self._periodic:
            self.destroy_timer(timer)
        self._periodic = []
        if self._loop is not None:
            self._loop.end(STOPPED)
            self._send(self._loop.halt())
        self._told_end = True

    def _teardown(self, *, keep_problem: bool = False) -> None:
        """Free what there is; works from any half-made state."""
        self._stop()
        let_arrive(self._outputs.values())
        for subscription in self._inputs:
            self.destroy_subscription(subscription)
        for publisher in self._outputs.values():
            self.destroy_lifecycle_publisher(publisher)
        if self._client is not None:
            self.destroy_client(self._client)
        self._inputs, self._outputs, self._client = [], {}, None
        self._faults.clear()
        self._loop = self._commands = None
        if not keep_problem:
            self._problem = ''
        self._say('unconfigured')

    def destroy_node(self) -> None:
        """Stop the arm before the node goes."""
        self._stop()
        let_arrive(self._outputs.values())
        super().destroy_node()

    # Attempts.

    def _on_start(
        self, request: Trigger.Request, response: Trigger.Response,
    ) -> Trigger.Response:
        if not self._active:
            response.message = 'refused: not active; configure and activate the node first'
        elif self._starting or (self._loop is not None and self._loop.episode_id is not None):
            response.message = 'refused: an attempt is running; ~/stop ends it'
        else:
            self._begin()
            response.success = True
            response.message = 'the encoder is asked for an episode; ~/state says what comes of it'
            self._tell()
        return response

    def _on_stop(
        self, request: Trigger.Request, response: Trigger.Response,
    ) -> Trigger.Response:
        response.success = True
        if self._loop is None or not (self._starting or self._loop.episode_id is not None):
            response.message = 'no attempt was running'
            return response
        self._starting = False
        self._forget_request()
        self._loop.end(STOPPED)
        self._send(self._loop.halt())
        self._told_end = True
        self.get_logger().info('stopped by ~/stop; ~/start begins the next attempt')
        self._tell()
        response.message = 'stopped'
        return response

    def _begin(self) -> None:
        """Begin an attempt: ask the encoder for an episode of the policy's task."""
        self._starting, self._asked_at, self._ask_after = True, time.monotonic(), 0.0
        self._forget_request()
        self._ask()

    def _ask(self) -> None:
        """Ask the encoder, if it is there and has not been asked."""
        if self._asked is None and time.monotonic() >= self._ask_after \
                and self._client.service_is_ready():
            assert self._loop is not None
            self._asked = self._client.call_async(SetTask.Request(task=self._loop.spec.task))
            self._asked.add_done_callback(self._on_answer)

    def _forget_request(self) -> None:
        """Wait for no answer any more."""
        asked, self._asked = self._asked, None
        if asked is not None and self._client is not None:
            self._client.remove_pending_request(asked)

    def _on_answer(self, future: Future) -> None:
        if future is not self._asked or self._loop is None or not self._starting:
            return
        self._asked = None
        answer = future.result()
        if answer is None or not answer.accepted:
            self._not_started(f'the encoder begins no episode: '
                              f'{answer.message if answer else "no answer"}')
            return
        self._starting, self._told_end, self._began_at = False, False, time.monotonic()
        self._loop.start(stamp_to_ns(answer.episode_id), answer.task)
        self._faults.good(_START)
        self.get_logger().info(
            f"episode {stamp_text(stamp_to_ns(answer.episode_id))}: '{answer.task}'")
        self._tell()

    def _not_started(self, text: str) -> None:
        """
        Give up; where attempts begin by themselves, ask again later.

        An attempt that somebody started does not begin at a time when nobody expects it.
        """
        self._faults.bad(_START, text)
        self._forget_request()
        if self._values['next_episode'] == policy_parameters.START:
            self._asked_at = time.monotonic()
            self._ask_after = self._asked_at + _PAUSE_S
        else:
            self._starting = False
        self._tell()

    def _look_at_start(self) -> None:
        """Ask an encoder that was not there, and give up on one that does not answer."""
        if not self._starting:
            return
        if time.monotonic() - self._asked_at <= _ANSWER_S:
            self._ask()
        elif self._client.service_is_ready():
            self._not_started(f'the encoder has not answered for {_ANSWER_S:g} s')
        else:
            name = self.resolve_service_name(f'{self._values["encoder"]}/set_task')
            self._not_started(
                f'no encoder offers {name}; start it, or set the parameter encoder')

    # What comes in.

    def _on_info(self, message: EncoderInfo) -> None:
        if self._loop is None:
            return
        problem = self._loop.told(conversions.layout_of(message))
        if problem:
            self.get_logger().error(problem)
        else:
            self.get_logger().info(f'the encoder has the bundle {message.bundle_sha256[:12]}')
            if self._loop.remark:
                self.get_logger().warning(self._loop.remark)
        self._watch()
        self._report(force=True)

    def _on_embedding(self, message: TaskEmbedding) -> None:
        if self._loop is None:
            return
        try:
            seen = conversions.seen_of(message)
        except ValueError as error:
            self._faults.bad(_MESSAGE, f'an embedding is not used: {error}')
            return
        self._faults.good(_MESSAGE)
        self._loop.see(seen)
        self._watch()

    def _on_success(self, message: SuccessProbability) -> None:
        if self._loop is None or message.decision not in {one.value for one in Decision}:
            return
        self._loop.decide(
            stamp_to_ns(message.episode_id), message.task, Decision(message.decision))
        self._watch()

    def _on_joints(self, message: JointState) -> None:
        if self._loop is None:
            return
        stamp = stamp_to_ns(message.header.stamp)

        def at(values: Any, place: int) -> float:
            return float(values[place]) if place < len(values) else _NAN

        self._loop.feel({name: JointReading(
            stamp, at(message.position, i), at(message.velocity, i), at(message.effort, i))
            for i, name in enumerate(message.name)})

    def _on_pose(self, message: PoseStamped) -> None:
        if self._loop is not None:
            place, turn = message.pose.position, message.pose.orientation
            self._loop.feel_pose(stamp_to_ns(message.header.stamp), (
                place.x, place.y, place.z, turn.x, turn.y, turn.z, turn.w))

    # What goes out.

    def _step(self) -> None:
        """Send the next command, once a period."""
        if self._loop is None or not self._active:
            return
        try:
            step = self._loop.step()
            if step.command is None:
                self._send(self._loop.halt())
            else:
                if step.chunk is not None:
                    self._send_chunk(step.chunk)
                self._send(step.command, step.stamp)
        except Exception:
            # A fault of ours; with it the last command would stay in force.
            self._send(self._loop.halt())
            raise
        self._why = step.why if self._loop.episode_id is not None else None
        usual = self._why is not None and self._why.key == 'no_embedding' \
            and time.monotonic() - self._began_at < _FIRST_S
        self._faults.note(_HOLD, f'hold: {self._why.text}' if self._why and not usual else '')
        self._after_end()
        self._tell()

    def _watch(self) -> None:
        """Stop what may not move any more; between two periods, too."""
        if self._loop is None or not self._active:
            return
        self._send(self._loop.stop())
        self._after_end()
        self._look_at_start()

    def _after_end(self) -> None:
        """Tell the end of an attempt, and begin the next one where that is asked for."""
        if self._loop is None or self._loop.episode_id is not None or self._told_end:
            return
        self._told_end, self._why = True, None
        self.get_logger().info(f'the attempt is over: {self._loop.outcome}')
        if self._values['next_episode'] == policy_parameters.START:
            self._begin()
        self._tell()

    def _send(self, command: Command | None, stamp: int | None = None) -> None:
        """Send a command on the topics that it is for."""
        if command is None:
            return
        header_stamp = ns_to_stamp(self._now() if stamp is None else stamp)
        if command.twist is not None:
            twist = TwistStamped()
            twist.header.stamp = header_stamp
            twist.header.frame_id = self._values['frame_id']
            for part, numbers in ((twist.twist.linear, command.twist[:3]),
                                  (twist.twist.angular, command.twist[3:])):
                part.x, part.y, part.z = (float(number) for number in numbers)
            self._outputs['~/twist'].publish(twist)
        if command.gripper is not None:
            self._outputs['~/gripper'].publish(Float64(data=command.gripper))
        if command.joints is not None and self._commands is not None:
            joints = JointState(name=self._commands.joints)
            joints.header.stamp = header_stamp
            # A position or a velocity of each; what is not commanded stays empty.
            setattr(joints, self._commands.joint_kind, array('d', command.joints))
            self._outputs['~/joints'].publish(joints)

    def _send_chunk(self, chunk: Chunk) -> None:
        assert self._loop is not None
        spec = self._loop.spec
        message = ActionChunk(
            episode_id=ns_to_stamp(chunk.episode_id), policy_sha256=spec.graph_sha256,
            bundle_sha256=chunk.bundle_sha256, names=[one.name for one in spec.actions],
            units=[one.unit for one in spec.actions], period=float(spec.period_s),
            execute=spec.execute, data=array('f', chunk.actions.tobytes()))
        message.header.stamp = ns_to_stamp(chunk.stamp)
        message.header.frame_id = self._values['frame_id']
        message.publish_time = ns_to_stamp(self._now())
        self._outputs['~/chunk'].publish(message)

    # What is told.

    def _doing(self) -> str:
        """Say in a few words what the node does."""
        if self._loop is None:
            return 'unconfigured'
        if not self._active:
            return 'inactive'
        if self._starting:
            return 'starting: the encoder is asked for an episode'
        if self._loop.episode_id is None:
            ended = f' ({self._loop.outcome})' if self._loop.outcome else ''
            return f'waiting for ~/start{ended}'
        return f'hold: {self._why.text}' if self._why else 'acting'

    def _tell(self) -> None:
        self._say(self._doing())

    def _say(self, text: str) -> None:
        """Publish on ~/state what has changed."""
        if text != self._said:
            self._said = text
            self._state.publish(String(data=text))

    def _check(self, due: bool) -> None:
        if due:
            self._look_for_rivals()

    def _look_for_rivals(self) -> None:
        """Look for somebody else who commands the same arm, and for a second encoder."""
        several = [publisher.topic_name for name, publisher in self._outputs.items()
                   if name != '~/chunk' and self.count_publishers(publisher.topic_name) > 1]
        self._faults.note(_RIVAL, several and (
            f'somebody else publishes on {", ".join(several)}: two command one arm; stop one')
            or '')
        doubled = [listener.topic_name for listener in self._inputs
                   if listener.msg_type in (EncoderInfo, TaskEmbedding, SuccessProbability)
                   and self.count_publishers(listener.topic_name) > 1]
        self._faults.note(_ENCODERS, doubled and (
            f'several encoders publish on {", ".join(doubled)}: their embeddings mix; stop all '
            'but one, or set the parameter encoder') or '')

    def _statuses(self) -> list[DiagnosticStatus]:
        node, faults = self.get_fully_qualified_name(), self._faults.lasting()
        loop = self._loop
        if loop is None:
            return [status(node, 'policy', ERROR if self._problem else OK,
                           self._problem or 'not configured', {'state': self.state_label})]
        spec, mild = loop.spec, [
            *(faults[key] for key in (NAME, _MESSAGE, _RIVAL, _ENCODERS) if key in faults),
            *filter(None, [loop.remark])]
        problem = self._problem or loop.mismatch
        made = [status(
            node, 'policy', ERROR if problem else WARN if mild else OK,
            problem or '; '.join(mild) or f"{self.state_label}: '{spec.task}'", {
                'state': self.state_label, 'folder': self._values['policy'],
                'policy_sha256': spec.graph_sha256, 'bundle_sha256': spec.bundle_sha256,
                'parts': ', '.join(spec.part_names), 'period_s': spec.period_s})]
        if not self._active:
            return made
        hard = faults.get(_HOLD) or faults.get(_START)
        values: dict[str, Any] = {
            'episode_id': '' if loop.episode_id is None else stamp_text(loop.episode_id),
            **dict.fromkeys(('commands', 'chunks', 'stops'), 0), **dict(
                sorted(loop.counts.items()))}
        if loop.latencies:
            p50, p99 = np.percentile(loop.latencies, (50, 99))
            values |= {'image_to_command_p50_s': float(p50), 'image_to_command_p99_s': float(p99)}
        return [*made, status(node, 'commands', ERROR if hard else OK, hard or self._doing(),
                              values)]


def _make_node() -> PolicyNode:
    """Make the node and, where it is asked for, configure and activate it."""
    node = PolicyNode()
    node.autostart()
    return node


def main(arguments: list[str] | None = None) -> int:
    """Run the node as a process."""
    return run_node('policy', _make_node, arguments)


if __name__ == '__main__':
    sys.exit(main())
