"""Assembly of an observation from stamped messages: the same code live and for bags.

Rules (they use nothing but the stamps in the data, so a recorded bag gives the very tensors that
the policy saw):

* A frame belongs to a cloud. It is *complete* when every proprioceptive stream has a sample that is
  not older than the cloud: then no earlier sample can still arrive.
* The frame's proprioception is, of each stream, the newest sample not newer than the cloud.
* The observation at cloud stamp t has ``n_obs_steps`` frames; frame i is the newest one not newer
  than t - i * control period (plus a quarter period for jitter).
* History never crosses a break (a gap of more than ``BREAK_PERIODS`` control periods, or a reset):
  missing frames repeat the oldest frame after the break.
"""

from __future__ import annotations

from bisect import bisect_right, insort
from dataclasses import dataclass
from hashlib import blake2b

import numpy as np
from numpy.typing import NDArray

from rl100_contracts.errors import ContractError
from rl100_contracts.task import NANOSECONDS, Role, Task

FloatArray = NDArray[np.float32]

BREAK_PERIODS = 6


class ObservationError(ContractError):
    """No observation can be made at this time; the text says what is missing."""


@dataclass(frozen=True)
class Observation:
    """What a policy sees at one time.

    Attributes:
        stamp_ns: stamp of the newest cloud, ns.
        state: float32 (n_o, d_s), oldest frame first, m or rad.
        cloud: float32 (n_o, N, 3), m, base frame.
    """

    stamp_ns: int
    state: FloatArray
    cloud: FloatArray

    def digest(self) -> int:
        """64-bit BLAKE2b digest of both tensors: equal if and only if every bit of them is."""
        state = blake2b(np.ascontiguousarray(self.state).tobytes(), digest_size=8)
        state.update(np.ascontiguousarray(self.cloud).tobytes())
        return int.from_bytes(state.digest(), "big")


class _Samples:
    """Samples of one stream, ordered by stamp."""

    def __init__(self) -> None:
        self.stamps: list[int] = []
        self.values: dict[int, FloatArray] = {}

    def add(self, stamp_ns: int, value: FloatArray) -> None:
        if stamp_ns not in self.values:
            insort(self.stamps, stamp_ns)
        self.values[stamp_ns] = value

    def newest_until(self, stamp_ns: int) -> int | None:
        """Newest stamp that is not above ``stamp_ns``."""
        index = bisect_right(self.stamps, stamp_ns)
        return self.stamps[index - 1] if index else None

    def drop_before(self, stamp_ns: int) -> None:
        index = bisect_right(self.stamps, stamp_ns - 1)
        for stamp in self.stamps[:index]:
            del self.values[stamp]
        del self.stamps[:index]


class ObservationAssembler:
    """Collects decoded samples and gives observations.

    Args:
        task: the contract.
        keep_s: how much history is kept, s; None keeps everything (bags).
    """

    def __init__(self, task: Task, keep_s: float | None = 2.0) -> None:
        self._task = task
        self._keep_ns = None if keep_s is None else round(keep_s * NANOSECONDS)
        self._period_ns = task.control.period_ns
        self._skew_ns = round(task.observation.max_skew_s * NANOSECONDS)
        self._cloud_name = task.observation.cloud.stream
        self._cloud_shape = (task.observation.cloud.num_points, 3)
        self._clouds = _Samples()
        self._proprioception = {name: _Samples() for name in task.proprioception_streams}
        self._slices = self._layout(task)
        self._after_ns = 0

    @staticmethod
    def _layout(task: Task) -> list[tuple[str, slice, slice]]:
        """For each part of the state: its stream, its place in the sample and in the state."""
        used: dict[str, int] = dict.fromkeys(task.proprioception_streams, 0)
        layout, offset = [], 0
        for part in task.observation.proprioception:
            size, start = len(part.names), used[part.stream]
            layout.append((part.stream, slice(start, start + size), slice(offset, offset + size)))
            used[part.stream] += size
            offset += size
        return layout

    def add(self, stream: str, stamp_ns: int, value: FloatArray) -> None:
        """Add one decoded sample; samples from before the last reset are ignored.

        Raises:
            ObservationError: unknown stream, wrong shape, or a value that is not finite.
        """
        if stamp_ns < self._after_ns:
            return
        if stream == self._cloud_name:
            samples = self._clouds
            shape: tuple[int, ...] = self._cloud_shape
        elif stream in self._proprioception:
            samples = self._proprioception[stream]
            shape = (max(part.stop for name, part, _ in self._slices if name == stream),)
        else:
            raise ObservationError(f"stream '{stream}' is not part of the observation")
        if value.shape != shape:
            raise ObservationError(
                f"stream '{stream}' has shape {value.shape}, the task expects {shape}"
            )
        if not np.isfinite(value).all():
            raise ObservationError(f"stream '{stream}' has a value that is not finite")
        samples.add(stamp_ns, value)
        if self._keep_ns is not None and samples.stamps[0] < stamp_ns - 2 * self._keep_ns:
            samples.drop_before(stamp_ns - self._keep_ns)

    def reset(self, after_ns: int = 0) -> None:
        """Forget everything older than ``after_ns``; later samples are kept."""
        self._after_ns = after_ns
        for samples in (self._clouds, *self._proprioception.values()):
            samples.drop_before(after_ns)

    def clear(self) -> None:
        """Forget every sample."""
        self._after_ns = 0
        for samples in (self._clouds, *self._proprioception.values()):
            samples.stamps.clear()
            samples.values.clear()

    def cloud_stamps(self) -> list[int]:
        """Stamps of the clouds that are held, ns, ascending."""
        return list(self._clouds.stamps)

    def newest_stamp(self, stream: str) -> int | None:
        """Newest stamp of an observed stream, ns."""
        samples = self._clouds if stream == self._cloud_name else self._proprioception[stream]
        return samples.stamps[-1] if samples.stamps else None

    def latest_complete(self) -> int | None:
        """Stamp of the newest complete frame, ns, or None."""
        newest = [s.stamps[-1] if s.stamps else None for s in self._proprioception.values()]
        known = [stamp for stamp in newest if stamp is not None]
        if len(known) < len(newest):
            return None
        return self._clouds.newest_until(min(known))

    def waiting_for(self) -> str:
        """One sentence on what is missing for a first observation; empty when nothing is."""
        for name in (self._cloud_name, *self._proprioception):
            if self.newest_stamp(name) is None:
                return f"no message on {self._task.streams[name].topic} yet"
        return "" if self.latest_complete() is not None else "waiting for a complete frame"

    def _state_at(self, cloud_ns: int) -> FloatArray | None:
        wanted = cloud_ns - round(self._task.latency.observation_s * NANOSECONDS)
        state = np.empty(self._task.observation.state_dim, dtype=np.float32)
        for name, source, target in self._slices:
            samples = self._proprioception[name]
            stamp = samples.newest_until(wanted)
            if stamp is None or wanted - stamp > self._skew_ns:
                return None
            state[target] = samples.values[stamp][source]
        return state

    def _segment_start(self, index: int) -> int:
        """Index of the oldest cloud that ``index`` is connected to without a break."""
        stamps, limit = self._clouds.stamps, BREAK_PERIODS * self._period_ns
        oldest = stamps[index] - (self._task.control.n_obs_steps + 1) * limit
        while index > 0 and stamps[index] - stamps[index - 1] <= limit and stamps[index] > oldest:
            index -= 1
        return index

    def observe(self, stamp_ns: int) -> Observation:
        """The observation at the cloud stamp ``stamp_ns``.

        Raises:
            ObservationError: no cloud has this stamp, or proprioception is missing or too old.
        """
        stamps = self._clouds.stamps
        newest = bisect_right(stamps, stamp_ns) - 1
        if newest < 0 or stamps[newest] != stamp_ns:
            raise ObservationError(f"no cloud has the stamp {stamp_ns} ns")
        state = self._state_at(stamp_ns)
        if state is None:
            raise ObservationError(
                f"proprioception is missing or more than {self._task.observation.max_skew_s} s "
                f"older than the cloud at {stamp_ns} ns"
            )
        frames = [(stamp_ns, state)]
        oldest = self._segment_start(newest)
        for back in range(1, self._task.control.n_obs_steps):
            wanted = stamp_ns - back * self._period_ns + self._period_ns // 4
            index = max(bisect_right(stamps, wanted) - 1, oldest)
            frame_ns = min(stamps[index], frames[-1][0])
            earlier = self._state_at(frame_ns)
            frames.append(frames[-1] if earlier is None else (frame_ns, earlier))
        frames.reverse()
        return Observation(
            stamp_ns,
            np.stack([part for _, part in frames]),
            np.stack([self._clouds.values[stamp] for stamp, _ in frames]),
        )


def observed_streams(task: Task) -> list[str]:
    """Names of the streams that make up an observation."""
    return [
        name
        for name, stream in task.streams.items()
        if (stream.role is Role.PROPRIOCEPTION and name in task.proprioception_streams)
        or name == task.observation.cloud.stream
    ]
