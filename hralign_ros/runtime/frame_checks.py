# Copyright 2026 hralign_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""What is wrong with frames although they can be decoded: stuck, without a name, named alike."""

from collections.abc import Mapping

from hralign_ros.runtime.errors import FrameError
from hralign_ros.runtime.faults import Faults
from hralign_ros.runtime.images import Image
import numpy as np


class FrameChecks:
    """
    Check decoded frames, set by set.

    :param faults: where what is wrong is noted; keys begin with the view's name.
    """

    def __init__(self, faults: Faults) -> None:
        self._faults = faults
        # Each view's last image, and the stamp since when it has been the same.
        self._images: dict[str, tuple[Image, int]] = {}

    def refuse_stuck(self, view: str, image: Image, stamp: int, limit: int) -> None:
        """
        Refuse an image that has been the same for too long: its stamp is newer than its pixels.

        No sensor repeats itself to the bit, so this is a driver that sends its last buffer again.

        :param limit: for how long it may be the same [ns]; 0: for ever.
        :raises FrameError: the camera is stuck.
        """
        before, since = self._images.get(view, (None, stamp))
        # Few pixels first: of a live camera they differ.
        repeated = before is not None and before.shape == image.shape and since <= stamp \
            and np.array_equal(before[::16, ::16], image[::16, ::16]) \
            and np.array_equal(before, image)
        if not repeated:
            self._images[view] = (image, stamp)
        elif 0 < limit <= stamp - since:
            raise FrameError('stuck', (
                f'the same image, to the bit, for {(stamp - since) * 1e-9:.1f} s under new '
                'stamps; restart the camera driver. Where images may truly repeat, as in '
                'simulation without noise, set stuck_after_s to 0'))

    def name_frame_ids(self, frame_ids: Mapping[str, str]) -> None:
        """Note cameras without a name, or with one and the same."""
        for view, frame_id in frame_ids.items():
            same = [other for other, its in frame_ids.items() if its == frame_id]
            self._faults.note(f'{view} frame_id', (
                f'view {view}: frame_id is empty; set it in the camera driver to the name of the '
                "camera's optical frame" if not frame_id else
                f"views {' and '.join(same)} both come from frame '{frame_id}'; is the same "
                'camera remapped to both?' if len(same) > 1 else ''))
