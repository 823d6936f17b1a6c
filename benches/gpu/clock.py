"""When the bench has to be done, and how much of the time a scene may take."""

from __future__ import annotations

import os
import time

SPARE = 10.0
"""Seconds before the deadline at which everything is to be written and removed."""
SLACK = 1.2
"""Times as long as the last round the next one may take."""


class Clock:
    """Ends so many minutes after it was made, or at GPU_DEADLINE (seconds since 1970) if that comes first."""

    def __init__(self, minutes: float) -> None:
        deadline = float(os.environ.get("GPU_DEADLINE") or "inf")
        self._end = self._scene_end = min(time.time() + 60 * minutes, deadline - SPARE)

    def left(self) -> float:
        """Seconds; below 0 once the time is over."""
        return self._end - time.time()

    def scene_left(self) -> float:
        """Seconds that the scene still may take."""
        return self._scene_end - time.time()

    def begin_scene(self, share: float) -> None:
        """The next scene may take this share of what is left."""
        self._scene_end = time.time() + share * self.left()

    def has_time(self, rounds: int, seconds: float) -> bool:
        """Whether there may be another round after so many that count, of which the last took so long. The first one is
        worth the time of others."""
        end = self._scene_end if rounds else self._end
        return time.time() + SLACK * seconds < end
