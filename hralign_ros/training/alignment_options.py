# Copyright 2026 hralign_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""What can be chosen about an adaptation, and two choices to start from."""

from dataclasses import dataclass, field
import math
from typing import ClassVar

from hralign_ros.data.manifest import REFERENCE_VIEW
from hralign_ros.data.samplers import SAMPLERS
from hralign_ros.models.hr_align import POOLINGS
from hralign_ros.training.alignment_losses import TEMPERATURE
from hralign_ros.training.checkpoints import TrainingError
from hralign_ros.training.clip_features import DTYPES
from hralign_ros.training.options import Allowed, check_options, LoopOptions


@dataclass(frozen=True)
class TrainOptions(LoopOptions):
    """
    How to train. The defaults suit a thousand pairs on a CPU.

    :param objective: align (Eq. 6), or video_text: the control without any alignment, in which a
        human is one more embodiment and every video is matched with its task's text.
    :param steps: of the optimiser.
    :param batch: pairs in a global batch; the control takes twice as many videos.
    :param length: T, frames of each clip in a step.
    :param sampler: of those frames: random, segment or window.
    :param temperature: tau of Eq. 6.
    :param decoupled: the denominator of Eq. 6 leaves the positive pair out.
    :param frozen_weight: of the un-adapted negative of Eq. 6; 0: without it.
    :param mask_same_task: pairs of one task are no negatives of each other.
    :param negatives: text that a negative is pooled with: own, its own as in the paper, or
        anchor, that of the clip it is compared with, so that no text tells them apart.
    :param by_scene: batches of few scenes, so that background does not tell pairs apart.
    :param human_fraction: of the control's videos.
    :param optimiser: adam or adamw.
    :param adapter_rate: factor on the adapters' rate; the query has the rate itself. It learns in
        a few steps what adapters as fast undo by overfitting the training tasks.
    :param patience: validations in a row without a new best, after which the run ends; 0: never.
    :param select: what the best one has: r1, the highest R@1 among the validation pairs (mean of
        both directions and all views; among equals the lower loss), or loss, the lowest loss. Both
        are measured in one way, whatever the loss of training is.
    """

    objective: str = 'align'
    batch: int = 32
    length: int = 5
    sampler: str = 'segment'
    temperature: float = TEMPERATURE
    decoupled: bool = True
    frozen_weight: float = 1.0
    mask_same_task: bool = True
    negatives: str = 'anchor'
    by_scene: bool = False
    human_fraction: float = 0.5
    optimiser: str = 'adamw'
    learning_rate: float = 7e-4
    adapter_rate: float = 0.3
    final_rate: float = 1e-6
    patience: int = 0
    select: str = 'r1'

    allowed: ClassVar[Allowed] = {
        'objective': ('align', 'video_text'), 'optimiser': ('adam', 'adamw'),
        'sampler': tuple(SAMPLERS), 'select': ('r1', 'loss'), 'negatives': ('own', 'anchor'),
        'batch': (1, math.inf),
        'length': (1, math.inf), 'patience': (0, math.inf), 'frozen_weight': (0, math.inf),
        'adapter_rate': (0, math.inf), 'temperature': (1e-6, math.inf), 'human_fraction': (0, 1)}


@dataclass(frozen=True)
class AdaptOptions:
    """
    What to adapt, on which pairs.

    :param backbone: efficientnet_lite0, r3m_resnet50, dinov2_vits14, siglip2_vitb16, ...,
        torchvision:NAME or timm:NAME.
    :param weights: of the backbone: a file, random, or hub, which downloads them; default: those
        of its package.
    :param non_commercial: no commercial use is made of weights whose terms forbid it.
    :param position: of the adapters: early, middle or late.
    :param init: of the adapters: identity, or release (the authors').
    :param pairs: how humans and robots are paired: recorded, same_motion, cross_seed, cross_scene,
        shuffled.
    :param validation_pairs: how the pairs are made that choose the best step; '': as `pairs`, but
        recorded where those are shuffled.
    :param partners: human partners sampled for each robot clip in training, where pairing is
        random (cross_seed, cross_scene).
    :param views: of the robot, each a stream of its own against the human's third-person clip.
    :param frames: F of each clip whose features are computed, of which a step takes T.
    :param dtype: of the features: float16 or float32.
    :param text: minilm, or distilbert:FOLDER.
    :param trained: adapters (with the query), or query: the baseline without adapters.
    :param pooling: attention, or mean, which ignores the text.
    :param attention_floor: fraction of the attention that is even over the image.
    :param variant: what the report calls runs that differ in their seed only.
    """

    backbone: str = 'efficientnet_lite0'
    weights: str | None = None
    non_commercial: bool = False
    position: str = 'late'
    init: str = 'identity'
    pairs: str = 'recorded'
    validation_pairs: str = ''
    partners: int = 1
    views: tuple[str, ...] = (REFERENCE_VIEW, 'wrist')
    frames: int = 8
    dtype: str = 'float16'
    text: str = 'minilm'
    trained: str = 'adapters'
    pooling: str = 'attention'
    attention_floor: float = 0.5
    variant: str = 'adapted'
    train: TrainOptions = field(default_factory=TrainOptions)

    def __post_init__(self) -> None:
        """
        Check everything that can be checked without data.

        :raises TrainingError: an option is none of those allowed.
        """
        check_options(self, {
            'trained': ('adapters', 'query'), 'pooling': POOLINGS, 'dtype': DTYPES,
            'frames': (1, math.inf), 'attention_floor': (0, 1)})
        if self.trained == 'query' and self.pooling == 'mean':
            raise TrainingError('trained is query and pooling mean: nothing is left to train')
        if self.train.objective == 'video_text' and self.pooling == 'mean':
            raise TrainingError(
                'objective is video_text and pooling mean: a video is matched with its text by '
                'what attention makes of it; use pooling attention')
        if self.partners < 1 or (self.partners > 1 and not self.pairs.startswith('cross_')):
            raise TrainingError(
                f'partners is {self.partners}, and pairs {self.pairs}; needed is 1, or pairs '
                'cross_seed or cross_scene')


PRESETS: dict[str, AdaptOptions] = {
    'default': AdaptOptions(),
    # Batch, rate and length as in the paper; where it is silent (warm-up, cosine, decay,
    # clipping), as in the settings that the released weights carry. Frames are sampled from those
    # in the cache; backbone, its weights and the text encoder are files that have to be named.
    'paper': AdaptOptions(attention_floor=0.0, train=TrainOptions(
        steps=8000, batch=200, length=5, sampler='random', decoupled=False, frozen_weight=1.0,
        mask_same_task=False, negatives='own', by_scene=False, optimiser='adam',
        learning_rate=1e-4, adapter_rate=1.0, final_rate=1e-6, warm_up=267, weight_decay=1e-4,
        clip_norm=1.0, average=0.0, validate_every=200, patience=0, checkpoint_every=200)),
}
