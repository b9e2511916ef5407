"""How well clouds are made: figures and the one sentence for /diagnostics."""

from __future__ import annotations

from bisect import bisect_right
from collections import deque

import numpy as np
from diagnostic_msgs.msg import DiagnosticStatus

from rl100_contracts.task import NANOSECONDS, Task
from rl100_perception.maker import Made

OK, WARN, ERROR = DiagnosticStatus.OK, DiagnosticStatus.WARN, DiagnosticStatus.ERROR
LAST = 200
# Stamps that are older than this, ms, are from another clock and say nothing of the delay.
OLDEST_MS = 10_000.0


class Health:
    """Counts what became of the images of one run. Not thread-safe."""

    def __init__(self, task: Task) -> None:
        self._task = task
        self.clouds = self.refused = self.repeated = self.lost = 0
        self._times_ms: deque[float] = deque(maxlen=LAST)
        self._ages_ms: deque[float] = deque(maxlen=LAST)
        self._last_image_ns: int | None = None
        self._stamps: deque[int] = deque(maxlen=LAST)
        self._camera_skew_s = 0.0
        self._sampled_from = 0
        self._joint_skew_s: float | None = None
        self._clock_problem = ""
        first = next(iter(task.cameras.values()))
        self._rate_hz = task.streams[first.source].rate_hz

    def saw(self, stamp_ns: int) -> None:
        """Take the stamp of an image of the first camera, ns: a gap is frames that got lost."""
        if self._last_image_ns is not None and self._rate_hz:
            periods = (stamp_ns - self._last_image_ns) / NANOSECONDS * self._rate_hz
            # A longer break is a camera that stopped.
            self.lost += round(periods) - 1 if 1.5 < periods < 10.0 else 0
        self._last_image_ns = stamp_ns

    def count(self, made: Made, time_s: float, now_ns: int) -> None:
        """Take one cloud, how long it took, s, and the time at which it was published, ns."""
        self.clouds += 1
        self.repeated += made.result.repeated
        self._times_ms.append(time_s * 1e3)
        age_ms = (now_ns - made.stamp_ns) / NANOSECONDS * 1e3
        if 0.0 <= age_ms < OLDEST_MS:
            self._ages_ms.append(age_ms)
        self._camera_skew_s = made.camera_skew_s
        self._sampled_from = made.result.sampled_from
        self._stamps.append(made.stamp_ns)

    def compare_clocks(self, joints: str, stamps: list[int]) -> None:
        """Compare the newest cloud's stamp with those of the joint states, ns."""
        if not stamps or not self._stamps:
            return
        latency_ns = round(self._task.latency.observation_s * NANOSECONDS)
        ordered = sorted(stamps)
        # Not the newest cloud: joint states that belong to it may be on their way.
        wanted = self._stamps[max(0, len(self._stamps) - 3)] - latency_ns
        place = bisect_right(ordered, wanted)
        near = [abs(wanted - ordered[i]) for i in (place - 1, place) if 0 <= i < len(ordered)]
        self._joint_skew_s = min(near) / NANOSECONDS
        topics = [self._task.streams[name].topic for name in (self._task.cloud.stream, joints)]
        self._clock_problem = ""
        if self._joint_skew_s > self._task.observation.max_skew_s:
            self._clock_problem = (
                f"stamps on {topics[0]} and {topics[1]} differ by more than "
                "observation.max_skew_s: is one of them from another clock, or did it stop?"
            )

    def verdict(self, made: Made) -> tuple[bytes, str]:
        """Level and sentence after a cloud."""
        for camera in self._task.cameras.values():
            frame = made.images[camera.source].header.frame_id
            if frame != camera.frame:
                topic = self._task.streams[camera.source].topic
                return WARN, (
                    f"{topic} is in frame '{frame}', the task's camera pose is that of "
                    f"'{camera.frame}': check cameras"
                )
        if self._clock_problem:
            return ERROR, self._clock_problem
        if made.result.repeated:
            return WARN, "fewer points in the crop box than the policy expects: some are repeated"
        return OK, "running"

    def values(self) -> dict[str, object]:
        """Figures by their names."""
        values: dict[str, object] = {
            "clouds": self.clouds,
            "images without a cloud": self.refused,
            "frames lost before perception": self.lost,
            "clouds with repeated points": self.repeated,
            "points in the crop box": self._sampled_from,
            "skew between images [ms]": f"{self._camera_skew_s * 1e3:.1f}",
        }
        if self._joint_skew_s is not None:
            values["skew to joint states [ms]"] = f"{self._joint_skew_s * 1e3:.1f}"
        for name, measured in (("time", self._times_ms), ("stamp to cloud", self._ages_ms)):
            if measured:
                p50, p99 = np.percentile(list(measured), [50, 99])
                values |= {f"{name} p50 [ms]": f"{p50:.2f}", f"{name} p99 [ms]": f"{p99:.2f}"}
        return values
