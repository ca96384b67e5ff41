# Copyright 2026 hralign_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""What measure.py trains: variants, ablations, robots left out, the shipped head."""

from hralign_ros.evaluation.success import OURS

# Variant -> (seeds, options of `hralign success train`).
Recipes = dict[str, tuple[int, tuple[str, ...]]]
BCE = 'BCE alone'
SIMILARITY, SINGLE = 'similarity to the text (LIV)', 'newest frame, BCE (LeRobot)'
DVD = 'likeness to human recordings (DVD)'
BASELINES = (BCE, SIMILARITY, SINGLE, DVD)
_PLAIN = ('--no-use-prompts', '--cross-domain=0', '--failure-text=0')
VARIANTS: Recipes = {
    OURS: (5, ()),
    BCE: (3, (*_PLAIN, '--video-text=0')),
    SIMILARITY: (1, (*_PLAIN, '--video-text=1', '--accomplished=0', '--failed=0', '--length=1')),
    SINGLE: (1, (*_PLAIN, '--video-text=0', '--other-tasks=0', '--failed=0', '--length=1')),
}
# The paper draws human recordings; the default does not.
_HUMANS = '--human-fraction=0.2'
ABLATIONS: Recipes = {
    'K = 1': (1, ('--modes=1',)),
    'K = 2': (1, ('--modes=2',)),
    'K = 4': (1, ('--modes=4',)),
    'K = 5': (1, ('--modes=5',)),
    'balanced assignment': (1, ('--assignment=balanced',)),
    'clusters of video vectors (paper)': (1, ('--cluster-on=video',)),
    'without L_BCE (paper)': (1, ('--accomplished=0',)),
    'with human video (paper)': (1, (_HUMANS,)),
    'with human video and a prompt for it': (1, (_HUMANS, '--human-prompt')),
    'newest frames past the transformer': (1, ('--newest-path',)),
    'clips end anywhere': (1, ('--pre-success=0',)),
}
# What is in models/default: it has seen all robots.
SHIPPED = 'shipped'
SHIPPED_RUNS: Recipes = {SHIPPED: (1, ('--all-robots',))}
# What leaves another robot out.
NO_PANDA = 'without the Panda'
ROBOTS: Recipes = {NO_PANDA: (1, ('--leave-out=panda',))}
# The robots that share tasks: which heads never saw them, and which saw both.
LEFT_OUT = {'ur5e': (OURS, SHIPPED), 'panda': (NO_PANDA, SHIPPED)}
