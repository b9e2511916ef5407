"""Assembly of an observation from stamped messages: the same code live and for bags.

Rules (they use nothing but the stamps in the data, so a recorded bag gives the very tensors that
the policy saw):

* A frame belongs to a cloud, or to an image where no cloud is observed. It is *complete* when every
  other stream has a sample that is not older: then no earlier sample can still arrive.
* The rest of the frame is, of each other stream, the newest sample that is not newer.
* The observation at a frame's stamp t has ``n_obs_steps`` frames; frame i is the newest one not
  newer than t - i * control period (plus a quarter period for jitter).
* History never crosses a break (a gap of more than ``BREAK_PERIODS`` control periods, or a reset):
  missing frames repeat the oldest frame after the break.
"""

from __future__ import annotations

from bisect import bisect_right, insort
from dataclasses import dataclass
from functools import cached_property
from hashlib import blake2b
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rl100_contracts.decode import FloatArray, ImageArray, Sample
from rl100_contracts.errors import ContractError
from rl100_contracts.streams import Role
from rl100_contracts.task import NANOSECONDS, Task

BREAK_PERIODS = 6


class ObservationError(ContractError):
    """No observation can be made at this time; the text says what is missing."""


class ObservationGap(ObservationError):
    """What belongs to a frame is missing or too old. When streams begin and end that is usual."""


@dataclass(frozen=True)
class Observation:
    """What a policy sees at one time.

    Attributes:
        stamp_ns: stamp of the newest frame, ns.
        state: float32 (n_o, d_s), oldest frame first, m or rad.
        cloud: float32 (n_o, N, 3), m, base frame; None where no cloud is observed.
        image: uint8 (n_o, H, W, 3), RGB; None where no image is observed.
    """

    stamp_ns: int
    state: FloatArray
    cloud: FloatArray | None = None
    image: ImageArray | None = None

    def tensors(self) -> dict[str, NDArray[np.generic]]:
        """The tensors by the names that a bundle's graphs give their inputs, without a batch."""
        named = {"state": self.state, "cloud": self.cloud, "image": self.image}
        return {name: tensor for name, tensor in named.items() if tensor is not None}

    def digest(self) -> int:
        """64-bit BLAKE2b digest of the tensors: equal if and only if every bit of them is."""
        return self._digest

    @cached_property
    def _digest(self) -> int:
        whole = blake2b(digest_size=8)
        for tensor in self.tensors().values():
            whole.update(np.ascontiguousarray(tensor).tobytes())
        return int.from_bytes(whole.digest(), "big")


class _Samples:
    """Samples of one stream, ordered by stamp."""

    def __init__(self) -> None:
        self.stamps: list[int] = []
        self.values: dict[int, Sample] = {}

    def add(self, stamp_ns: int, value: Sample) -> None:
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
        self._slices = self._layout(task)
        self._expected = self._shapes(task)
        self._samples = {name: _Samples() for name in self._expected}
        self._frames = self._samples[task.observation.frame_stream]
        self._after_ns = 0

    def _shapes(self, task: Task) -> dict[str, tuple[tuple[int, ...], type]]:
        """Shape and dtype of a sample of each observed stream, that of the frames first."""
        shapes: dict[str, tuple[tuple[int, ...], type]] = {}
        cloud, image = task.observation.cloud, task.observation.image
        if cloud is not None:
            shapes[cloud.stream] = ((cloud.num_points, 3), np.float32)
        if image is not None:
            shapes[image.stream] = ((image.height, image.width, 3), np.uint8)
        for name in task.proprioception_streams:
            size = max(part.stop for stream, part, _ in self._slices if stream == name)
            shapes[name] = ((size,), np.float32)
        return shapes

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

    def add(self, stream: str, stamp_ns: int, value: Sample) -> None:
        """Add one decoded sample; samples from before the last reset are ignored.

        Raises:
            ObservationError: unknown stream, wrong shape, or a value that is not finite.
        """
        if stamp_ns < self._after_ns:
            return
        if stream not in self._expected:
            raise ObservationError(f"stream '{stream}' is not part of the observation")
        samples, (shape, dtype) = self._samples[stream], self._expected[stream]
        if value.shape != shape:
            raise ObservationError(
                f"stream '{stream}' has shape {value.shape}, the task expects {shape}"
            )
        if (value.dtype == np.uint8) != (dtype is np.uint8):
            raise ObservationError(
                f"stream '{stream}' has values of type {value.dtype}, the task expects "
                f"{np.dtype(dtype)}"
            )
        if dtype is not np.uint8 and not np.isfinite(value).all():
            raise ObservationError(f"stream '{stream}' has a value that is not finite")
        samples.add(stamp_ns, value)
        if self._keep_ns is not None and samples.stamps[0] < stamp_ns - 2 * self._keep_ns:
            samples.drop_before(stamp_ns - self._keep_ns)

    def reset(self, after_ns: int = 0) -> None:
        """Forget everything older than ``after_ns``; later samples are kept."""
        self._after_ns = after_ns
        for samples in self._samples.values():
            samples.drop_before(after_ns)

    def clear(self) -> None:
        """Forget every sample."""
        self._after_ns = 0
        for samples in self._samples.values():
            samples.stamps.clear()
            samples.values.clear()

    def frame_stamps(self) -> list[int]:
        """Stamps of the frames (clouds, or images) that are held, ns, ascending."""
        return list(self._frames.stamps)

    def newest_stamp(self, stream: str) -> int | None:
        """Newest stamp of an observed stream, ns."""
        stamps = self._samples[stream].stamps
        return stamps[-1] if stamps else None

    def latest_complete(self) -> int | None:
        """Stamp of the newest complete frame, ns, or None."""
        others = [samples for samples in self._samples.values() if samples is not self._frames]
        if not all(samples.stamps for samples in others):
            return None
        return self._frames.newest_until(min(samples.stamps[-1] for samples in others))

    def waiting_for(self) -> str:
        """One sentence on what is missing for a first observation; empty when nothing is."""
        for name in self._samples:
            if self.newest_stamp(name) is None:
                return f"no message on {self._task.streams[name].topic} yet"
        return "" if self.latest_complete() is not None else "waiting for a complete frame"

    def _newest(self, stream: str, wanted_ns: int) -> Sample | None:
        """The newest sample not newer than ``wanted_ns``, unless it is too old."""
        samples = self._samples[stream]
        stamp = samples.newest_until(wanted_ns)
        if stamp is None or wanted_ns - stamp > self._skew_ns:
            return None
        return samples.values[stamp]

    def _state_at(self, frame_ns: int) -> FloatArray | None:
        wanted = frame_ns - round(self._task.latency.observation_s * NANOSECONDS)
        state = np.empty(self._task.observation.state_dim, dtype=np.float32)
        for name, source, target in self._slices:
            sample = self._newest(name, wanted)
            if sample is None:
                return None
            state[target] = sample[source]
        return state

    def _frame_at(self, stamp_ns: int) -> dict[str, Any] | None:
        """Tensors of the frame that begins with the message of this stamp, by their names."""
        state = self._state_at(stamp_ns)
        if state is None:
            return None
        frame: dict[str, Any] = {"state": state}
        observed = self._task.observation
        if observed.cloud is not None:
            frame["cloud"] = self._frames.values[stamp_ns]
        if observed.image is not None:
            frame["image"] = self._newest(observed.image.stream, stamp_ns)
            if frame["image"] is None:
                return None
        return frame

    def _gap_at(self, frame_ns: int, kind: str) -> str:
        """One sentence on what is missing or too old for the frame, the worst stream."""
        wanted = dict.fromkeys(
            self._task.proprioception_streams,
            frame_ns - round(self._task.latency.observation_s * NANOSECONDS),
        )
        observed = self._task.observation
        if observed.cloud is not None and observed.image is not None:
            wanted[observed.image.stream] = frame_ns
        ages: dict[str, float] = {}
        for name, wanted_ns in wanted.items():
            found = self._samples[name].newest_until(wanted_ns)
            ages[name] = float("inf") if found is None else (wanted_ns - found) / NANOSECONDS
        worst = max(ages, key=lambda name: ages[name])
        topic = self._task.streams[worst].topic
        if ages[worst] == float("inf"):
            return f"stream '{worst}' ({topic}) has no message that is older than the {kind}"
        return (
            f"the last message on {topic} (stream '{worst}') before the {kind} is older than it by "
            f"{ages[worst]:.3f} s, the task allows {observed.max_skew_s} s "
            "(observation.max_skew_s): is its rate too low, or did it stop?"
        )

    def _segment_start(self, index: int) -> int:
        """Index of the oldest frame that ``index`` is connected to without a break."""
        stamps, limit = self._frames.stamps, BREAK_PERIODS * self._period_ns
        oldest = stamps[index] - (self._task.control.n_obs_steps + 1) * limit
        while index > 0 and stamps[index] - stamps[index - 1] <= limit and stamps[index] > oldest:
            index -= 1
        return index

    def observe(self, stamp_ns: int) -> Observation:
        """The observation at the frame of stamp ``stamp_ns``.

        Raises:
            ObservationError: no frame has this stamp, or what belongs to it is missing or too old.
        """
        stamps = self._frames.stamps
        observed = self._task.observation
        kind = "image" if observed.cloud is None else "cloud"
        newest = bisect_right(stamps, stamp_ns) - 1
        if newest < 0 or stamps[newest] != stamp_ns:
            raise ObservationError(f"no {kind} has the stamp {stamp_ns} ns")
        frame = self._frame_at(stamp_ns)
        if frame is None:
            raise ObservationGap(self._gap_at(stamp_ns, kind))
        frames = [(stamp_ns, frame)]
        oldest = self._segment_start(newest)
        for back in range(1, self._task.control.n_obs_steps):
            wanted = stamp_ns - back * self._period_ns + self._period_ns // 4
            index = max(bisect_right(stamps, wanted) - 1, oldest)
            frame_ns = min(stamps[index], frames[-1][0])
            earlier = self._frame_at(frame_ns)
            frames.append(frames[-1] if earlier is None else (frame_ns, earlier))
        frames.reverse()
        parts = [part for _, part in frames]
        return Observation(stamp_ns, **{name: np.stack([p[name] for p in parts]) for name in frame})


def observed_streams(task: Task) -> list[str]:
    """Names of the streams that make up an observation."""
    views = {view.stream for view in (task.observation.cloud, task.observation.image) if view}
    return [
        name
        for name, stream in task.streams.items()
        if (stream.role is Role.PROPRIOCEPTION and name in task.proprioception_streams)
        or name in views
    ]
