# Copyright 2026 hralign_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""What can be chosen about training a success head."""

from dataclasses import dataclass
import math
from typing import ClassVar

from hralign_ros.training.checkpoints import TrainingError
from hralign_ros.training.failure_clusters import ASSIGNMENTS, BASES
from hralign_ros.training.options import Allowed, LoopOptions


@dataclass(frozen=True)
class SuccessOptions(LoopOptions):
    """
    How to train. The defaults suit some thousand simulated episodes on a CPU.

    :param modes: K, failure prompts of each task, and of the fallback task.
    :param prompt_length: L, vectors of each.
    :param tasks_per_step: in a batch.
    :param clips_per_task: in a batch.
    :param length: T, frames of each clip.
    :param human_fraction: of a task's clips that are sampled from its human recordings, where it
        has any; 0: human recordings are not used, which was better on simulated episodes.
    :param cross_domain: weight of L_CDC; it acts where a batch has human clips.
    :param video_text: weight of L_VLC.
    :param failure_text: weight of L_fVLC.
    :param accomplished: weight of L_BCE; 0: a paper reading without it.
    :param other_tasks: weight within L_BCE of telling that no other task is accomplished.
    :param progress: weight of regressing progress in successes.
    :param failed: weight of telling failed attempts from all others.
    :param fallback_every: every so many steps the fallback task's prompts replace each task's own.
    :param prompt_every: prompts learn every so many steps; in between their features of the last
        time are used, which saves most of the text encoder's time.
    :param assignment: of failures to prompts: kmeans, or balanced.
    :param cluster_every: steps from one assignment to the next.
    :param cluster_on: what failures are grouped by: motion, how much of what is seen changes
        in each part of the attempt; or video, the vectors that the head makes of them.
    :param all_texts: a success is compared with all texts, those of hindsight among them, and not
        with those of the tasks in the batch alone.
    :param hindsight: weight of matching what was done instead with its own instruction, at the
        end of failures that say so (hindsight relabelling); needs split_file, so that no
        instruction that is held out is learned this way.
    :param human_prompt: a learned prompt behind the texts that humans' videos are matched with:
        one reading of the paper's domain-specific prompts, whose form is not known.
    :param newest_path: the newest frames also go past the transformer that joins all frames:
        better on tasks that are trained on, worse on tasks that are not.
    :param grounded: the head looks for what the instruction names, in the fine tokens of the
        bundle (`hralign bundle add-fine`), and adds what it finds to its score wherever the
        reference view takes part. It learns to from stills, which need things.parquet and
        instructions.json; they are no attempts then.
    :param grounding: weight of telling from fine tokens what is accomplished in attempts.
    :param scenes: weight of telling what is so in stills, and what is more so than the rest.
    :param pointing: weight of pointing at the things that are named, in stills.
    :param stills_per_step: in a batch.
    :param texts_per_still: that are judged of each; half of them are so, where there are as many.
    :param use_prompts: False: no failure prompts at all, the score is the plain text's alone.
    :param prompt_rate: factor on the learning rate of prompts.
    :param drop_view: how likely each view is missing from a clip.
    :param late_view: how likely a view comes late.
    :param rewind: how likely a clip has gone further and come back to its newest frame.
    :param stall: how likely it has stood still there for a while.
    :param pre_success: how often a clip of a success that does not end with it ends within the
        second before it.
    :param noise: standard deviation added to tokens, which have variance 1.
    :param all_robots: train on the held-out embodiments too, by their seeds.
    :param leave_out: an embodiment that is not trained on, nor calibrated with.
    :param split_file: the split file that the data were imported with, where that was not the
        shipped one; all_robots and leave_out split anew by it.
    """

    modes: int = 3
    prompt_length: int = 4
    steps: int = 2800
    tasks_per_step: int = 8
    clips_per_task: int = 16
    human_fraction: float = 0.0
    length: int = 5
    cross_domain: float = 0.2
    video_text: float = 0.2
    failure_text: float = 0.2
    accomplished: float = 1.0
    other_tasks: float = 0.5
    progress: float = 0.2
    failed: float = 0.3
    fallback_every: int = 2
    prompt_every: int = 3
    assignment: str = 'kmeans'
    cluster_every: int = 50
    cluster_on: str = 'motion'
    all_texts: bool = False
    hindsight: float = 0.0
    human_prompt: bool = False
    newest_path: bool = False
    grounded: bool = False
    grounding: float = 1.0
    scenes: float = 1.0
    pointing: float = 1.0
    stills_per_step: int = 32
    texts_per_still: int = 6
    use_prompts: bool = True
    prompt_rate: float = 3.0
    weight_decay: float = 0.05
    warm_up: int = 30
    drop_view: float = 0.15
    late_view: float = 0.1
    rewind: float = 0.3
    stall: float = 0.2
    pre_success: float = 0.5
    noise: float = 0.2
    average: float = 0.99
    validate_every: int = 50
    checkpoint_every: int = 100
    all_robots: bool = False
    leave_out: str = ''
    split_file: str = ''

    allowed: ClassVar[Allowed] = {
        'assignment': ASSIGNMENTS, 'cluster_on': BASES, 'modes': (1, 16),
        'prompt_length': (1, 64), 'tasks_per_step': (1, 512), 'clips_per_task': (2, 4096),
        'length': (1, 64), 'human_fraction': (0, 0.9), 'drop_view': (0, 0.9), 'late_view': (0, 1),
        'rewind': (0, 1), 'stall': (0, 1), 'pre_success': (0, 1), 'fallback_every': (1, math.inf),
        'prompt_every': (1, math.inf), 'cluster_every': (1, math.inf),
        'hindsight': (0, math.inf), 'grounding': (0, math.inf), 'scenes': (0, math.inf),
        'pointing': (0, math.inf), 'stills_per_step': (1, 4096), 'texts_per_still': (2, 64)}

    def __post_init__(self) -> None:
        """
        Check everything that can be checked without data.

        :raises TrainingError: an option is none of those allowed.
        """
        super().__post_init__()
        if self.hindsight and not self.split_file:
            raise TrainingError(
                f'hindsight is {self.hindsight:g} and no split file is named; it is needed to '
                'know which instructions are held out (--split-file)')
        if self.grounded and not self.split_file:
            raise TrainingError(
                'grounded needs to know which instructions are held out, as stills tell of those, '
                'too: name the split file that the stills were made with (--split-file)')
        if self.checkpoint_every % self.cluster_every:
            raise TrainingError(
                f'checkpoint_every is {self.checkpoint_every}; needed is a multiple of '
                f'cluster_every, {self.cluster_every}, so that a run resumes exactly')
