"""The RGB encoder is torchvision's ResNet-18 but for the normalisation and the head.

Pins: the published number of parameters; names, shapes and strides; features for odd sizes;
gradients to every weight; weight files go round, and what doesn't fit is refused in one sentence
with nothing changed; a BatchNorm file gives a GroupNorm network its convolutions; spatial softmax
finds a bright pixel; the exported graph does the same.
"""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
from torch import Tensor

from rl100_contracts.errors import ContractError
from rl100_trainer.checkpoint import save_tensors
from rl100_trainer.networks.resnet import CHANNELS, Head, Norm, ResNet18, RgbEncoder, SpatialSoftmax

PUBLISHED = 11_689_512  # torchvision, ResNet18_Weights.IMAGENET1K_V1, num_params
CLASSIFIER = 1000 * CHANNELS + 1000


@pytest.fixture(scope="module")
def torchvision_like() -> dict[str, Tensor]:
    """A state dict as torchvision's, with random weights."""
    torch.manual_seed(1)
    weights = ResNet18("batch").state_dict()
    weights = {k: torch.rand_like(v) if v.is_floating_point() else v for k, v in weights.items()}
    return weights | {"fc.weight": torch.rand(1000, CHANNELS), "fc.bias": torch.rand(1000)}


@pytest.mark.parametrize("norm", ["batch", "group"])
def test_it_has_the_published_number_of_parameters(norm: Norm) -> None:
    count = sum(weight.numel() for weight in ResNet18(norm).parameters())
    assert count == 11_176_512 == PUBLISHED - CLASSIFIER


def test_names_and_shapes_are_torchvisions(torchvision_like: dict[str, Tensor]) -> None:
    shapes = {key: tuple(value.shape) for key, value in torchvision_like.items()}
    assert len(shapes) == 122
    assert shapes["conv1.weight"] == (64, 3, 7, 7)
    assert shapes["bn1.running_mean"] == (64,)
    assert shapes["layer1.0.conv1.weight"] == (64, 64, 3, 3)
    assert shapes["layer2.0.downsample.0.weight"] == (128, 64, 1, 1)
    assert shapes["layer2.0.downsample.1.num_batches_tracked"] == ()
    assert shapes["layer4.1.bn2.bias"] == (512,)
    assert not any(key.startswith("layer1.0.downsample") for key in shapes)
    network = ResNet18()
    strides = [network.get_submodule(f"layer{n}.0.conv1").stride for n in range(1, 5)]
    assert strides == [(1, 1), (2, 2), (2, 2), (2, 2)]  # in the first 3×3, not in the second


@pytest.mark.parametrize("head", ["spatial_softmax", "average"])
@pytest.mark.parametrize("size", [(64, 64), (77, 101), (33, 20)])
def test_features_of_odd_sizes(head: Head, size: tuple[int, int]) -> None:
    encoder = RgbEncoder(24, head=head)
    features = encoder(torch.rand(2, 3, 3, *size))
    assert features.shape == (2, 3, 24) and features.isfinite().all()
    assert encoder.backbone(torch.rand(1, 3, *size)).shape[2:] == (
        -(-size[0] // 32),
        -(-size[1] // 32),
    )


def test_frames_and_samples_do_not_see_each_other() -> None:
    encoder = RgbEncoder().eval()
    images = torch.rand(2, 2, 3, 48, 48)
    with torch.no_grad():
        together = encoder(images)
        alone = encoder(images[1:, 1:])
    torch.testing.assert_close(together[1:, 1:], alone, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("head", ["spatial_softmax", "average"])
@pytest.mark.parametrize("norm", ["group", "batch"])
def test_gradients_reach_every_weight(norm: Norm, head: Head) -> None:
    torch.manual_seed(0)
    encoder = RgbEncoder(8, norm=norm, head=head)
    encoder(torch.rand(2, 2, 3, 40, 56)).square().sum().backward()
    for name, weight in encoder.named_parameters():
        if name == "pool.maps.bias":  # a softmax doesn't see what is added everywhere
            continue
        assert weight.grad is not None and float(weight.grad.abs().max()) > 0.0, name


def test_spatial_softmax_finds_a_bright_pixel() -> None:
    pool = SpatialSoftmax(1, 1)
    torch.nn.init.ones_(pool.maps.weight)
    picture = torch.zeros(1, 1, 4, 8)
    picture[0, 0, 3, 1] = 50.0
    with torch.no_grad():
        torch.testing.assert_close(
            pool(picture), torch.tensor([[2 * 1.5 / 8 - 1, 2 * 3.5 / 4 - 1]])
        )
        torch.testing.assert_close(pool(torch.zeros(1, 1, 5, 3)), torch.zeros(1, 2))


def test_images_are_normalised_inside() -> None:
    encoder = RgbEncoder()
    seen: list[Tensor] = []
    encoder.backbone.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    grey = torch.tensor([0.485, 0.456, 0.406]).view(3, 1, 1).expand(1, 1, 3, 40, 40)
    encoder(grey)
    encoder(grey + torch.tensor([0.229, 0.224, 0.225]).view(3, 1, 1))
    torch.testing.assert_close(seen[0], torch.zeros(1, 3, 40, 40))
    torch.testing.assert_close(seen[1], torch.ones(1, 3, 40, 40))
    assert not {"mean", "std"} & set(encoder.state_dict())


@pytest.mark.parametrize("norm", ["group", "batch"])
def test_weights_go_round(norm: Norm, tmp_path: Path) -> None:
    torch.manual_seed(2)
    first, second = RgbEncoder(norm=norm), RgbEncoder(norm=norm)
    for value in first.backbone.state_dict().values():
        if value.is_floating_point():
            value.uniform_(0.1, 0.2)
    save_tensors(tmp_path / "own.safetensors", first.backbone.state_dict())
    second.load_pretrained(tmp_path / "own.safetensors")
    for key, value in first.backbone.state_dict().items():
        assert torch.equal(second.backbone.state_dict()[key], value), key


def test_torchvisions_file_loads(torchvision_like: dict[str, Tensor], tmp_path: Path) -> None:
    path = tmp_path / "resnet18.safetensors"
    counters = {k for k in torchvision_like if k.endswith("num_batches_tracked")}
    save_tensors(path, {k: v for k, v in torchvision_like.items() if k not in counters})
    batch, group = RgbEncoder(norm="batch"), RgbEncoder(norm="group")
    batch.load_pretrained(path)
    for key, value in batch.backbone.state_dict().items():
        assert key in counters or torch.equal(value, torchvision_like[key]), key
    group.load_pretrained(path)
    for key, value in group.backbone.state_dict().items():
        if value.ndim == 4:
            assert torch.equal(value, torchvision_like[key]), key
        else:  # scales of other statistics aren't taken
            assert torch.equal(value, torch.full_like(value, float("weight" in key))), key


@pytest.mark.parametrize("norm", ["group", "batch"])
def test_files_that_do_not_fit_are_refused(
    norm: Norm, torchvision_like: dict[str, Tensor], tmp_path: Path
) -> None:
    encoder, path = RgbEncoder(norm=norm), tmp_path / "file.safetensors"
    before = {key: value.clone() for key, value in encoder.state_dict().items()}
    other: dict[str, dict[str, Tensor]] = {
        r"lacks the weights 'layer3\.0\.conv1\.weight'": {
            k: v for k, v in torchvision_like.items() if k != "layer3.0.conv1.weight"
        },
        r"has weights 'layer1\.2\.conv1\.weight', which": torchvision_like
        | {"layer1.2.conv1.weight": torch.zeros(64, 64, 3, 3)},  # a ResNet-34
        r"'conv1\.weight' have shape \(64, 1, 7, 7\)": torchvision_like
        | {"conv1.weight": torch.zeros(64, 1, 7, 7)},
        r"has weights 'module\.bn1\.": {f"module.{k}": v for k, v in torchvision_like.items()},
    }
    for message, tensors in other.items():
        save_tensors(path, dict(sorted(tensors.items())))
        with pytest.raises(ContractError, match=message):
            encoder.load_pretrained(path)
    path.write_bytes(b"not a file of tensors")
    with pytest.raises(ContractError, match="cannot be read"):
        encoder.load_pretrained(path)
    with pytest.raises(ContractError, match="cannot be read"):
        encoder.load_pretrained(tmp_path / "nowhere.safetensors")
    for key, value in encoder.state_dict().items():
        assert torch.equal(value, before[key]), key


def test_a_group_norm_file_is_none_of_a_batch_norm_network(tmp_path: Path) -> None:
    path = tmp_path / "group.safetensors"
    save_tensors(path, ResNet18("group").state_dict())
    with pytest.raises(ContractError, match=r"lacks .*'bn1\.running_mean'"):
        RgbEncoder(norm="batch").load_pretrained(path)


def test_a_pickle_is_never_opened(tmp_path: Path) -> None:
    path = tmp_path / "resnet18.pth"
    path.write_bytes(b"cposix\nsystem\n(S'exit 1'\ntR.")
    with pytest.raises(ContractError, match=r"convert it once with .*save_file.*resnet18\.pth"):
        RgbEncoder().load_pretrained(path)


def export(encoder: RgbEncoder, path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about the exporter's own age and tracing constants
        torch.onnx.export(
            encoder,
            (torch.rand(2, 2, 3, 72, 96),),
            str(path),
            input_names=["images"],
            output_names=["features"],
            dynamic_axes={"images": {0: "batch"}, "features": {0: "batch"}},
            opset_version=17,
            dynamo=False,
        )


@pytest.mark.parametrize(("norm", "head"), [("group", "spatial_softmax"), ("batch", "average")])
def test_the_exported_graph_does_the_same(norm: Norm, head: Head, tmp_path: Path) -> None:
    torch.manual_seed(0)
    encoder, path = RgbEncoder(16, norm=norm, head=head).eval(), tmp_path / "rgb.onnx"
    export(encoder, path)
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    images = torch.rand(3, 2, 3, 72, 96)
    with torch.no_grad():
        expected = encoder(images).numpy()
    (found,) = session.run(None, {"images": images.numpy()})
    np.testing.assert_allclose(found, expected, atol=1e-5, rtol=0.0)
