"""Convolutions as matrix products: equal to PyTorch's, and what a bundle's graphs are made of."""

from __future__ import annotations

from pathlib import Path

import onnx
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from rl100_trainer.config import load_config
from rl100_trainer.export import export_graphs
from rl100_trainer.networks.gathered import GatheredConv1d, with_gathered_convolutions
from rl100_trainer.networks.policy import DiffusionPolicy
from rl100_trainer.networks.unet import UNet1d
from rl100_trainer.testing import REACH_SPEC


@settings(max_examples=60)
@given(
    transposed=st.booleans(),
    kernel=st.integers(1, 5),
    stride=st.integers(1, 3),
    padding=st.integers(0, 2),
    length=st.integers(5, 12),
    bias=st.booleans(),
    seed=st.integers(0, 99),
)
def test_equal_to_the_convolution(
    *, transposed: bool, kernel: int, stride: int, padding: int, length: int, bias: bool, seed: int
) -> None:
    torch.manual_seed(seed)
    kind = nn.ConvTranspose1d if transposed else nn.Conv1d
    convolution = kind(3, 7, kernel, stride=stride, padding=padding, bias=bias).double()
    x = torch.randn(2, 3, length).double()
    torch.testing.assert_close(GatheredConv1d(convolution)(x), convolution(x))


@pytest.mark.parametrize("horizon", [4, 6, 16])
def test_a_unet_stays_the_same_and_the_original_is_left_alone(horizon: int) -> None:
    torch.manual_seed(0)
    unet = UNet1d(action_dim=3, condition=5, widths=[16, 32, 32]).eval()
    inputs = torch.randn(2, horizon, 3), torch.tensor([3.0, 60.0]), torch.randn(2, 5)
    made = with_gathered_convolutions(unet)
    torch.testing.assert_close(made(*inputs), unet(*inputs), rtol=1e-4, atol=1e-5)
    assert not any(isinstance(m, (nn.Conv1d, nn.ConvTranspose1d)) for m in made.modules())
    assert any(isinstance(m, nn.Conv1d) for m in unet.modules())


@pytest.mark.parametrize(
    "other",
    [
        nn.Conv1d(4, 4, 3, groups=2),
        nn.Conv1d(4, 4, 3, dilation=2),
        nn.Conv1d(4, 4, 3, padding="same"),
        nn.Conv1d(4, 4, 3, padding=1, padding_mode="circular"),
        nn.ConvTranspose1d(4, 4, 3, stride=2, output_padding=1),
    ],
)
def test_what_is_not_known_is_refused(other: nn.Conv1d) -> None:
    with pytest.raises(ValueError, match=r"not known|only plain"):
        GatheredConv1d(other)


def test_graphs_hold_each_weight_once_and_no_convolution(tmp_path: Path) -> None:
    """Every denoising step of the K-step graph uses the same matrices."""
    overrides = ["model.denoiser=unet", "model.widths=[16,32]", "diffusion.steps=4"]
    policy = DiffusionPolicy(REACH_SPEC, load_config(None, overrides))
    export_graphs(policy, tmp_path)
    trained = sum(p.numel() for p in policy.parameters()) * 4
    for name in ("policy.onnx", "denoiser.onnx"):
        graph = onnx.load(tmp_path / name).graph
        assert not {node.op_type for node in graph.node} & {"Conv", "ConvTranspose"}
        kept = sum(len(i.raw_data) for i in graph.initializer)
        assert kept < 1.1 * trained, (name, kept, trained)
