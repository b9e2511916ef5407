"""1-D convolutions as one matrix product, which is how a bundle runs them.

An action chunk has 4 to 16 steps and hundreds of channels, so a convolution reads megabytes of
weights for few columns. ONNX Runtime packs the constant matrix of a product once, and the weights
of a convolution at every call: the product is two to four times as fast (one core, 384 to 2,048
channels, 4 to 8 steps), and no slower where there are few channels.
"""

from __future__ import annotations

import copy
from typing import TypeVar

import torch
from torch import Tensor, nn
from torch.nn import functional

Convolution = nn.Conv1d | nn.ConvTranspose1d
Module = TypeVar("Module", bound=nn.Module)


class GatheredConv1d(nn.Module):
    """Does what ``convolution`` does: (B, channels in, L) → (B, channels out, L').

    Raises:
        ValueError: groups, dilation, output padding or a padding other than by zeros.
    """

    def __init__(self, convolution: Convolution) -> None:
        super().__init__()
        self.transposed = isinstance(convolution, nn.ConvTranspose1d)
        (self.kernel,), (self.stride,) = convolution.kernel_size, convolution.stride
        plain = convolution.groups == 1 and convolution.dilation == (1,)
        if isinstance(convolution.padding, str) or convolution.padding_mode != "zeros" or not plain:
            raise ValueError("only plain convolutions that are padded by zeros are known here")
        if convolution.output_padding != (0,):
            raise ValueError("an output padding is not known here")
        (self.padding,) = convolution.padding
        # (out, in, k), transposed (in, out, k) → (k · in, out)
        order = (2, 0, 1) if self.transposed else (2, 1, 0)
        weight = convolution.weight.detach().permute(*order)
        self.weight = nn.Parameter(weight.flatten(0, 1).contiguous())
        bias = convolution.bias
        self.bias = None if bias is None else nn.Parameter(bias.detach().clone())

    def steps(self, length: int) -> Tensor:
        """Input steps that each output step is made of (L', k); ``length`` stands for a zero."""
        k, s, p = self.kernel, self.stride, self.padding
        taps = torch.arange(k)
        if self.transposed:
            outputs = torch.arange((length - 1) * s - 2 * p + k)[:, None]
            found = outputs + p - taps
            known = found % s == 0
            found = found // s
        else:
            outputs = torch.arange((length + 2 * p - k) // s + 1)[:, None]
            found = outputs * s + taps - p
            known = torch.ones_like(found, dtype=torch.bool)
        known = known & (found >= 0) & (found < length)
        return torch.where(known, found, torch.full_like(found, length))

    def forward(self, x: Tensor) -> Tensor:
        steps = self.steps(int(x.shape[2])).to(x.device)
        rows = functional.pad(x.transpose(1, 2), (0, 0, 0, 1))
        out = rows[:, steps].flatten(2) @ self.weight
        if self.bias is not None:
            out = out + self.bias
        return out.transpose(1, 2)


def with_gathered_convolutions(module: Module) -> Module:
    """A copy of ``module`` whose 1-D convolutions are :class:`GatheredConv1d`."""
    made = copy.deepcopy(module)
    for parent in list(made.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, (nn.Conv1d, nn.ConvTranspose1d)):
                setattr(parent, name, GatheredConv1d(child))
    return made
