# Copyright 2026 hralign_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""
When a policy may act, and on what: the rules for consumers of embeddings, without ROS.

The node hands in what comes and asks once a period for a command; more often whether to stop. One
thread. All times are nanoseconds on the node's clock.
"""

from collections import Counter, deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from hralign_ros.runtime.decision import Decision
from hralign_ros.runtime.errors import InferenceError, PolicyError
from hralign_ros.runtime.policy import Attempt, Layout, other_words, Policy
from hralign_ros.runtime.policy_channels import Command, Commands, JointReading, Proprioception
import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]

# Latencies are over so many commands.
_SAMPLES = 300
SUCCESS, FAILURE, TIME_OUT, STOPPED = 'success', 'failure', 'time_out', 'stopped'
_OUTCOMES = {Decision.SUCCESS: SUCCESS, Decision.FAILURE: FAILURE}


class Why(NamedTuple):
    """Why nothing is commanded: a short key under which it is counted, and one sentence."""

    key: str
    text: str


@dataclass(frozen=True)
class Rules:
    """
    What is allowed.

    :param max_age: of the pixels and of proprioception [ns].
    :param max_episode: an attempt that takes longer is over [ns]; 0: never.
    :param stop_on_abstain: hold while the encoder's decision is ABSTAIN.
    :param end_on_decision: SUCCESS and FAILURE end the attempt.
    """

    max_age: int = 200_000_000
    max_episode: int = 0
    stop_on_abstain: bool = False
    end_on_decision: bool = True


@dataclass(frozen=True)
class Seen:
    """
    One embedding, as its message has it.

    :param stamp: of the newest pixels in it.
    :param view_stamps: of the pixels of each view.
    :param embedding: float32 [V, dim].
    :param attends: the parts that depend on the instruction attend to it; else they are means.
    :param configuration_id: of the encoder that made it, see Layout.
    """

    stamp: int
    episode_id: int
    task: str
    bundle_sha256: str
    embedding_sha256: str
    instruction_sha256: str
    views: Sequence[str]
    view_valid: Sequence[bool]
    view_stamps: Sequence[int]
    part_names: Sequence[str]
    part_offsets: Sequence[int]
    embedding: Floats
    attends: bool = True
    configuration_id: int = 0


@dataclass(frozen=True)
class Chunk:
    """
    What a policy has just decided to do.

    :param actions: float32 [chunk, A], of which `execute` are sent.
    :param stamp: of the oldest pixels that it was decided on.
    """

    actions: Floats
    stamp: int
    episode_id: int
    bundle_sha256: str


@dataclass(frozen=True)
class Step:
    """
    What is to be sent now.

    :param stamp: when it was seen that it may be.
    :param command: None: nothing.
    :param chunk: what was decided just now, before the command; None: the last chunk goes on.
    :param why: why there is no command.
    """

    stamp: int
    command: Command | None = None
    chunk: Chunk | None = None
    why: Why | None = None


class PolicyLoop:
    """
    Acts while everything is as it should be, and says why not otherwise.

    :param policy: may be one that was read only: the layout comes with `told`.
    :param clock: tells the time of the node.
    :ivar counts: commands, chunks, stops, withheld_<key>, episodes_<outcome> and so on.
    :ivar latencies: from the oldest pixels to the command decided on them [s].
    :ivar moving: a command has been sent, and no stop since.
    :ivar episode_id: of the running attempt; None: none is running.
    :ivar mismatch: why the policy cannot be given the encoder's embeddings; '': it can.
    :ivar remark: what of the encoder's setting differs and is allowed, see Policy.
    :ivar outcome: of the last attempt; '': there was none.
    """

    def __init__(
        self, policy: Policy, commands: Commands, proprioception: Proprioception,
        clock: Callable[[], int], rules: Rules | None = None,
    ) -> None:
        self.spec = policy.spec
        self.clock, self.rules = clock, rules or Rules()
        self.counts: Counter[str] = Counter()
        self.latencies: deque[float] = deque(maxlen=_SAMPLES)
        self.moving = False
        self.episode_id: int | None = None
        self.outcome = ''
        self._policy, self._commands, self._proprioception = policy, commands, proprioception
        self._layout: Layout | None = None
        self.mismatch = self.remark = ''
        self._task = ''
        # When the attempt began, and the time that the clock told last.
        self._began = self._latest = 0
        self._attempt: Attempt | None = None
        self._chunk_stamp = 0
        self._seen: Seen | None = None
        self._decision: Decision | None = None
        self._joints: dict[str, JointReading] = {}
        self._pose: tuple[int, Sequence[float]] | None = None

    # What comes in.

    def told(self, layout: Layout) -> str:
        """
        Take what the encoder says of its embeddings.

        :returns: why the policy cannot be given them; '': it can.
        """
        self._layout = layout
        self._drop()
        self.mismatch = self.remark = ''
        try:
            self._policy = self._policy.placed(layout)
            self.remark = self._policy.remark
        except PolicyError as error:
            self.mismatch = str(error)
        return self.mismatch

    def start(self, episode_id: int, task: str) -> None:
        """Start an attempt in an episode of the encoder; earlier embeddings do not count."""
        self.episode_id, self._task, self._began = episode_id, task, self._look()
        self._decision, self.outcome = None, ''
        self._drop()

    def end(self, outcome: str) -> None:
        """End the attempt."""
        if self.episode_id is not None:
            self.counts[f'episodes_{outcome}'] += 1
            self.episode_id, self.outcome = None, outcome
            self._drop()

    def see(self, seen: Seen) -> None:
        """Take the newest embedding."""
        self._look()
        self._seen = seen
        self._follow(seen.episode_id)

    def decide(self, episode_id: int, task: str, decision: Decision) -> None:
        """
        Take what the encoder has decided; by default SUCCESS and FAILURE end the attempt.

        Of another instruction they do not: of this one nothing is known then.
        """
        self._follow(episode_id)
        if self.episode_id is None or episode_id != self.episode_id or task != self._task:
            return
        self._decision = decision
        if decision in _OUTCOMES and self.rules.end_on_decision:
            self.end(_OUTCOMES[decision])

    def feel(self, joints: Mapping[str, JointReading]) -> None:
        """Take joint states; those of several senders come one after the other."""
        self._look()
        self._joints.update(joints)

    def feel_pose(self, stamp: int, pose: Sequence[float]) -> None:
        """Take the pose of the tool: x, y, z and a quaternion x, y, z, w."""
        self._look()
        self._pose = stamp, pose

    def _look(self) -> int:
        """
        Tell the time; where the clock was set back, all that came before is forgotten.

        What has come by then has stamps of the future, and would be young again once the clock
        gets there, though its sender may have ended long ago.
        """
        now = self.clock()
        if now < self._latest:
            self.counts['clock_set_back'] += 1
            # So far the attempt has taken as long as before.
            self._began += now - self._latest
            self._seen = self._pose = None
            self._joints = {}
            self._drop()
        self._latest = now
        return now

    def _follow(self, episode_id: int) -> None:
        """Go over to a later episode of the encoder; what was decided in the last one is void."""
        if self.episode_id is not None and episode_id > self.episode_id:
            self.counts['episodes_changed'] += 1
            self.episode_id, self._decision = episode_id, None
            self._drop()

    def _drop(self) -> None:
        """Drop the rest of the chunk."""
        if self._attempt is not None and self._attempt.left:
            self.counts['chunks_dropped'] += 1
        self._attempt = None

    # What goes out.

    def step(self) -> Step:
        """
        Ask for the next command; to be called once a period.

        Where there is none, the rest of the chunk is dropped: it was decided on a world that is
        gone when the embedding is good again.
        """
        now = self._look()
        if self.episode_id is not None and self.rules.max_episode \
                and now - self._began > self.rules.max_episode:
            self.end(TIME_OUT)
        if self.episode_id is None:
            return Step(now, why=Why('not_running', self._idle()))
        why = self.why_hold(now)
        command = chunk = None
        if why is None:
            try:
                command, chunk = self._act()
            except (InferenceError, ValueError) as error:
                why = Why('inference', str(error))
            else:
                # A policy takes its time, and the embedding grows old meanwhile.
                now = self._look()
                why = self.why_hold(now)
        if why is not None:
            self.counts[f'withheld_{why.key}'] += 1
            self._drop()
            return Step(now, why=why)
        assert command is not None
        self.moving = True
        self.counts['commands'] += 1
        self.counts['limited'] += command.limited
        if chunk is not None:
            self.counts['chunks'] += 1
            self.latencies.append((now - chunk.stamp) * 1e-9)
        return Step(now, command, chunk)

    def stop(self) -> Command | None:
        """
        Give the command after which nothing moves, once, as soon as nothing may move any more.

        To be called as often as a stop may be late.
        """
        now = self._look()
        if not self.moving or (self.episode_id is not None and self.why_hold(now) is None):
            return None
        return self.halt()

    def halt(self) -> Command | None:
        """Give the command after which nothing moves, where something does."""
        self._drop()
        if not self.moving:
            return None
        self.moving = False
        self.counts['stops'] += 1
        return self._commands.stop()

    def _act(self) -> tuple[Command, Chunk | None]:
        assert self._seen is not None and self.episode_id is not None
        chunk = None
        if self._attempt is None:
            self._attempt = self._policy.start_attempt()
        if self._attempt.due:
            actions = self._attempt.observe(
                self._seen.embedding if self.spec.parts else None, self._numbers())
            chunk = Chunk(actions, self._oldest(self._seen), self.episode_id,
                          self._seen.bundle_sha256)
        return self._commands.of(self._attempt.next_action()), chunk

    def _numbers(self) -> Floats:
        return self._proprioception.vector(
            self._joints, None if self._pose is None else self._pose[1])

    def _oldest(self, seen: Seen) -> int:
        """Tell the stamp of the oldest pixels that the policy looks at."""
        return min(self._stamps(seen))

    def _stamps(self, seen: Seen) -> list[int]:
        """Tell the stamps of all pixels that the policy looks at."""
        return [seen.view_stamps[seen.views.index(view)] for view in self.spec.views] \
            or [seen.stamp]

    def why_hold(self, now: int) -> Why | None:
        """Say why not to act now; None: act."""
        seen = self._seen
        if self.mismatch:
            return Why('other_embedding', self.mismatch)
        if self.spec.parts and self._layout is None:
            return Why('no_info', 'the encoder has not said what its embeddings consist of')
        if seen is None:
            return Why('no_embedding', 'no embedding has come')
        if self.episode_id is not None and seen.episode_id < self.episode_id:
            return Why('no_embedding', 'no embedding of this episode has come')
        if seen.task != self._task:
            return Why('other_task',
                       f"the encoder works on another instruction: '{seen.task[:80]}'")
        return self._why_not_this(seen, now) or self._why_not_felt(now) or self._why_abstain()

    def _why_not_this(self, seen: Seen, now: int) -> Why | None:
        """Say what is wrong with an embedding."""
        if self.spec.parts:
            layout = self._layout
            assert layout is not None
            learnt = self.spec.embedding
            # What the encoder says of itself fits the policy, see `told`. Now the embedding has
            # to be of that encoder, and not of one that has just taken its place: its crop, say,
            # is told by nothing else.
            if seen.configuration_id != layout.configuration_id:
                return Why('no_info', 'the encoder was configured anew, and has not said what its '
                           'embeddings consist of now')
            name, found, wanted = (
                'embedding_sha256', seen.embedding_sha256, layout.identity.sha256) if learnt \
                else ('bundle_sha256', seen.bundle_sha256, self.spec.bundle_sha256)
            if found != wanted:
                return Why('other_embedding', f'{name} of the embedding is {found[:12]}, and not '
                           f'{wanted[:12]}: another space')
            if tuple(seen.part_names) != tuple(part.name for part in layout.parts) \
                    or tuple(seen.part_offsets) != tuple(part.offset for part in layout.parts) \
                    or tuple(seen.views) != layout.views:
                return Why('other_layout',
                           'the embedding does not consist of what the encoder says it does')
            if self.spec.pooled and seen.attends != self.spec.attends:
                said = 'the plain mean of tokens', 'attention to the instruction'
                return Why('other_pooling', (
                    f'{", ".join(self.spec.pooled)} is {said[seen.attends]}, and the policy '
                    f'learnt from {said[self.spec.attends]}; set pooling of the encoder'))
            words = learnt.instruction_sha256 if learnt and self.spec.attends else ''
            if words and seen.instruction_sha256 != words:
                return Why('other_task', other_words(self.spec, ''))
            missing = [view for view in self.spec.views
                       if not seen.view_valid[seen.views.index(view)]]
            if missing:
                return Why('invalid_view', f'without {", ".join(missing)}')
        # Of the oldest view, and not the stamp of the message, which is that of the newest one: a
        # camera that has ended is among the others for as long as the encoder waits for it.
        return self._why_old('embedding', 'the newest embedding has pixels that are',
                             now, self._stamps(seen))

    def _why_not_felt(self, now: int) -> Why | None:
        """Say what is wrong with proprioception."""
        try:
            self._numbers()
        except PolicyError as error:
            return Why('missing_proprio', str(error))
        stamps = [self._joints[name].stamp for name in self._proprioception.joints]
        if stamps:
            why = self._why_old('proprio', 'the newest joint states are', now, stamps)
            if why:
                return why
        if self._proprioception.needs_pose and self._pose is not None:
            return self._why_old(
                'proprio', 'the newest pose of the tool is', now, [self._pose[0]])
        return None

    def _why_old(
        self, what: str, subject: str, now: int, stamps: Sequence[int],
    ) -> Why | None:
        if now - min(stamps) > self.rules.max_age:
            return Why(f'old_{what}', f'{subject} older than {self.rules.max_age * 1e-9:g} s')
        # Each of them: what is ahead of the clock would count as young for as long as that.
        ahead = max(stamps) - now
        if ahead > self.rules.max_age:
            return Why(f'future_{what}', f'{subject} {ahead * 1e-9:.1f} s ahead of the clock')
        return None

    def _why_abstain(self) -> Why | None:
        if self.rules.stop_on_abstain and self._decision in (None, Decision.ABSTAIN):
            return Why('abstain', 'the encoder abstains from deciding (stop_on_abstain)')
        return None

    def _idle(self) -> str:
        return f'the attempt is over: {self.outcome}' if self.outcome else 'no attempt is running'
