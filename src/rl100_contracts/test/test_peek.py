"""Pins that the stamp of a serialized message is read without unpacking it, or refused."""

from __future__ import annotations

import struct

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rl100_contracts.decode import peek_stamp_ns
from rl100_contracts.errors import ContractError
from rl100_contracts.interfaces import ensure_type
from rl100_contracts.task import NANOSECONDS

# A busy machine must not fail a test.
UNHURRIED = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])


@UNHURRIED
@given(
    sec=st.integers(-(2**31), 2**31 - 1),
    nanosec=st.integers(0, 2**32 - 1),
    big=st.booleans(),
    body=st.binary(max_size=64),
)
def test_peeked_stamp_is_the_header_stamp(sec: int, nanosec: int, big: bool, body: bytes) -> None:
    order = ">" if big else "<"
    data = bytes([0, 0 if big else 1, 0, 0]) + struct.pack(f"{order}iI", sec, nanosec) + body
    assert peek_stamp_ns(data) == sec * NANOSECONDS + nanosec
    assert peek_stamp_ns(memoryview(data)) == sec * NANOSECONDS + nanosec


@UNHURRIED
@given(stamp=st.integers(0, 2**31 * NANOSECONDS - 1), frame=st.text(max_size=8))
def test_peeked_stamp_of_a_real_message(stamp: int, frame: str) -> None:
    store = ensure_type("sensor_msgs/msg/Joy")
    sec, nanosec = divmod(stamp, NANOSECONDS)
    time = store.types["builtin_interfaces/msg/Time"](sec=sec, nanosec=nanosec)
    message = store.types["sensor_msgs/msg/Joy"](
        header=store.types["std_msgs/msg/Header"](stamp=time, frame_id=frame.replace("\0", "")),
        axes=np.zeros(2, dtype=np.float32),
        buttons=np.zeros(1, dtype=np.int32),
    )
    for little in (True, False):
        data = store.serialize_cdr(message, "sensor_msgs/msg/Joy", little_endian=little)
        assert peek_stamp_ns(bytes(data)) == stamp


@UNHURRIED
@given(st.binary(max_size=11))
def test_peek_refuses_what_is_too_short(data: bytes) -> None:
    with pytest.raises(ContractError, match="too short"):
        peek_stamp_ns(data)
