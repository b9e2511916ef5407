"""RGB encoder: ResNet-18 (He et al. 2016), whose weights have the names of torchvision's."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import torch
from torch import Tensor, nn

from rl100_contracts.errors import ContractError
from rl100_trainer.checkpoint import load_tensors

Norm = Literal["group", "batch"]
Head = Literal["spatial_softmax", "average", "flatten"]

STAGES = ((64, 1), (128, 2), (256, 2), (512, 2))  # channels and stride; two blocks in each
CHANNELS = 512
GROUP_CHANNELS = 16  # channels of a group of GroupNorm (Chi et al. 2023)
REDUCTION = 32  # of height and width
KEYPOINTS = 32  # (Mandlekar et al. 2021)
KEYPOINT_MAP = 3  # of a map with fewer rows or columns a keypoint's place says little
IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
COUNTER = "num_batches_tracked"  # of BatchNorm; old files lack it, and nothing here uses it
STATISTICS = ("running_mean", "running_var", COUNTER)
CLASSIFIER = "fc."
PART = 256


def _norm(kind: Norm, channels: int) -> nn.Module:
    if kind == "batch":
        return nn.BatchNorm2d(channels)
    return nn.GroupNorm(channels // GROUP_CHANNELS, channels)


def _conv(channels_in: int, channels_out: int, kernel: int, stride: int) -> nn.Conv2d:
    padding = kernel // 2
    conv = nn.Conv2d(channels_in, channels_out, kernel, stride, padding, bias=False)
    nn.init.kaiming_normal_(conv.weight, mode="fan_out", nonlinearity="relu")
    return conv


class BasicBlock(nn.Module):
    """x + two 3×3 convolutions; a strided 1×1 convolution where the shapes differ."""

    def __init__(self, channels_in: int, channels: int, stride: int, norm: Norm) -> None:
        super().__init__()
        self.conv1 = _conv(channels_in, channels, 3, stride)
        self.bn1 = _norm(norm, channels)
        self.conv2 = _conv(channels, channels, 3, 1)
        self.bn2 = _norm(norm, channels)
        same = stride == 1 and channels_in == channels
        self.downsample = (
            None
            if same
            else nn.Sequential(_conv(channels_in, channels, 1, stride), _norm(norm, channels))
        )

    def forward(self, x: Tensor) -> Tensor:
        out = self.bn1(self.conv1(x)).relu()
        out = self.bn2(self.conv2(out))
        skip = x if self.downsample is None else self.downsample(x)
        return (out + skip).relu()


class ResNet18(nn.Module):
    """Normalised images (B, 3, H, W) to a feature map (B, 512, ⌈H/32⌉, ⌈W/32⌉).

    Args:
        norm: ``group`` (its 16 channels of one image don't depend on the batch, so it goes with
            averaged weights and small batches; diffusion policies use it) or ``batch``.
    """

    def __init__(self, norm: Norm = "group") -> None:
        super().__init__()
        self.conv1 = _conv(3, STAGES[0][0], 7, 2)
        self.bn1 = _norm(norm, STAGES[0][0])
        self.maxpool = nn.MaxPool2d(3, stride=2, padding=1)
        before = STAGES[0][0]
        for number, (channels, stride) in enumerate(STAGES, start=1):
            stage = nn.Sequential(
                BasicBlock(before, channels, stride, norm), BasicBlock(channels, channels, 1, norm)
            )
            self.add_module(f"layer{number}", stage)
            before = channels

    def forward(self, x: Tensor) -> Tensor:
        x = self.maxpool(self.bn1(self.conv1(x)).relu())
        for number in range(1, len(STAGES) + 1):
            x = self.get_submodule(f"layer{number}")(x)
        return x


class SpatialSoftmax(nn.Module):
    """Where each of K keypoints is: (B, C, h, w) → (B, 2 K), x and y within ±1 (Finn et al. 2016).

    One learnt map per keypoint; its softmax over the pixels averages the pixels' centres.
    """

    def __init__(self, channels: int, keypoints: int) -> None:
        super().__init__()
        self.maps = nn.Conv2d(channels, keypoints, 1)

    def forward(self, x: Tensor) -> Tensor:
        maps = self.maps(x)
        height, width = maps.shape[-2:]
        share = maps.flatten(2).softmax(dim=-1).unflatten(2, (height, width))
        across = (2.0 * torch.arange(width, device=x.device, dtype=x.dtype) + 1.0) / width - 1.0
        down = (2.0 * torch.arange(height, device=x.device, dtype=x.dtype) + 1.0) / height - 1.0
        mean_x = (share.sum(dim=2) * across).sum(dim=-1)
        mean_y = (share.sum(dim=3) * down).sum(dim=-1)
        return torch.cat([mean_x, mean_y], dim=-1)


class RgbEncoder(nn.Module):
    """Images (B, n_o, 3, H, W), float in [0, 1], RGB, to features (B, n_o, features).

    Frames share the weights. ImageNet's mean and standard deviation are taken off inside.

    Args:
        features: width of the result.
        norm: see :class:`ResNet18`.
        head: ``spatial_softmax`` (positions of 32 keypoints), ``average`` (over the pixels) or
            ``flatten`` (all of the map, for images of ``image_shape``); None: keypoints where the
            map has the pixels for it, else all of it.
        image_shape: height and width.
    """

    def __init__(
        self,
        features: int = 64,
        *,
        norm: Norm = "group",
        head: Head | None = None,
        image_shape: tuple[int, int] = (224, 224),
    ) -> None:
        super().__init__()
        self.norm: Norm = norm
        self.mean: Tensor
        self.std: Tensor
        self.register_buffer("mean", torch.tensor(IMAGENET_MEAN).view(3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(IMAGENET_STD).view(3, 1, 1), persistent=False)
        self.backbone = ResNet18(norm)
        height, width = (-(-size // REDUCTION) for size in image_shape)
        if head is None:
            head = "spatial_softmax" if min(height, width) >= KEYPOINT_MAP else "flatten"
        if head == "spatial_softmax":
            self.pool: nn.Module = SpatialSoftmax(CHANNELS, KEYPOINTS)
            pooled = 2 * KEYPOINTS
        elif head == "flatten":
            self.pool, pooled = nn.Flatten(), CHANNELS * height * width
        else:
            self.pool, pooled = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten()), CHANNELS
        self.project = nn.Linear(pooled, features)

    def forward(self, images: Tensor) -> Tensor:
        frames = images.shape[1]
        x = (images.flatten(0, 1) - self.mean) / self.std
        if torch.is_grad_enabled() or len(x) <= PART:
            out = self._features(x)
        else:  # the feature maps of thousands of images at once would take gigabytes
            out = torch.cat([self._features(part) for part in x.split(PART)])
        return out.unflatten(0, (-1, frames))

    def _features(self, x: Tensor) -> Tensor:
        out: Tensor = self.project(self.pool(self.backbone(x)))
        return out

    def load_pretrained(self, path: Path) -> None:
        """Take the backbone's weights from a .safetensors file with torchvision's names.

        A classifier in it (``fc``) is ignored. With GroupNorm and a file of a BatchNorm network,
        only the convolutions are taken: scales that were learnt for other statistics don't fit.

        Raises:
            ContractError: another format, or weights that are missing, unknown or misshapen.
        """
        if path.suffix != ".safetensors":
            raise ContractError(
                f"{path}: only .safetensors files are read, as others can run code: convert it "
                'once with python -c "import torch, safetensors.torch as s; s.save_file(torch.load'
                f"('{path}', weights_only=True), '{path.with_suffix('.safetensors')}')\""
            )
        found, own = load_tensors(path), self.backbone.state_dict()
        _refuse_unknown(path, found, own)
        wanted = {key: value for key, value in own.items() if not key.endswith(COUNTER)}
        if self.norm == "group" and any(key.rpartition(".")[2] in STATISTICS for key in found):
            wanted = {key: value for key, value in own.items() if value.ndim == 4}
        _refuse_unfit(path, found, wanted)
        with torch.no_grad():
            for key, value in wanted.items():
                value.copy_(found[key])


def _refuse_unknown(path: Path, found: dict[str, Tensor], own: dict[str, Tensor]) -> None:
    """A file of a deeper network must not be taken in part."""
    for key in found:
        layer, _, name = key.rpartition(".")
        statistic = name in STATISTICS and f"{layer}.weight" in own
        if key not in own and not statistic and not key.startswith(CLASSIFIER):
            raise ContractError(f"{path}: has weights '{key}', which a ResNet-18 has not")


def _refuse_unfit(path: Path, found: dict[str, Tensor], wanted: dict[str, Tensor]) -> None:
    for key, value in wanted.items():
        if key not in found:
            raise ContractError(f"{path}: lacks the weights '{key}' of a ResNet-18")
        if found[key].shape != value.shape:
            raise ContractError(
                f"{path}: weights '{key}' have shape {tuple(found[key].shape)}, a ResNet-18's have "
                f"{tuple(value.shape)}"
            )
