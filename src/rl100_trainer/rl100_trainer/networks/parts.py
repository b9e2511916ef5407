"""Many rows through a network, some at a time."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor


def in_parts(function: Callable[..., Tensor], *inputs: Tensor, size: int) -> Tensor:
    """``function`` of inputs (M, …), ``size`` rows at a time, so that memory stays bounded.

    Returns:
        The results, joined along the rows.
    """
    parts = zip(*(tensor.split(size) for tensor in inputs), strict=True)
    return torch.cat([function(*part) for part in parts])
