"""Trunk and tail together are the network, whatever the network and wherever the cut."""

import copy
import dataclasses

import pytest
import torch
from backbone_samples import FAMILIES, network, photos
from torch import nn

from headstart.backbone import cut
from headstart.backbone.cut import Normalise
from headstart.backbone.graph import is_norm
from headstart.backbone.networks import Network
from headstart.errors import ConfigError

RESNET = ("resnet18", 32)


def logits_of(net: Network, x: torch.Tensor) -> torch.Tensor:
    with torch.no_grad():
        return net.module(Normalise(net.preprocessing)(x))


def check_every_cut(net: Network) -> None:
    x = photos(net.preprocessing.input_px)
    expected = logits_of(net, x)
    assert expected.abs().max() > 0
    for name in cut.cut_names(net):
        trunk, tail = cut.split(net, name)
        rows = trunk(x)
        given = rows.clone()
        with torch.no_grad():
            found = tail(rows)
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5, msg=lambda text, name=name: f"cut {name}: {text}")
        assert tuple(rows.shape) == (len(x), *trunk.out_shape), name
        assert torch.equal(rows, given), f"the tail changed its input at {name}"


@pytest.mark.parametrize(("name", "px", "arguments"), FAMILIES, ids=[name for name, *_ in FAMILIES])
def test_tail_of_trunk_equals_network_at_every_cut(name: str, px: int, arguments: tuple) -> None:
    net = network(name, px, arguments)
    assert cut.stages(net)[-1] == "head"
    assert len(cut.stages(net)) >= 4
    check_every_cut(net)


@pytest.mark.parametrize(
    ("name", "px", "arguments", "stop", "d_features"),
    [
        ("resnet18", 32, (), "layer3", 256),
        ("vit_tiny_patch16_224", 64, (("depth", 4),), "blocks.1", 192),
        ("convnext_atto", 32, (), "stages.1", 80),
        ("resnet18", 32, (), "layer4", 512),
        ("resnet18", 32, (), "head", 512),
    ],
)
def test_stopped_network_pools_its_last_stage_and_has_no_classes(name: str, px: int, arguments: tuple, stop: str, d_features: int) -> None:
    net = network(name, px, arguments, stop)
    assert net.n_classes == 0
    assert net.classes is None
    assert net.stop == stop
    assert cut.stages(net)[-1] == "head"
    assert logits_of(net, photos(px)).shape == (2, d_features)
    check_every_cut(net)


def test_stopped_convolutional_network_averages_its_last_map() -> None:
    stopped, whole = network(*RESNET, (), "layer2"), network(*RESNET)
    trunk, _ = cut.split(whole, "layer2")
    torch.testing.assert_close(logits_of(stopped, photos(32)), trunk(photos(32)).mean((2, 3)))


def test_stopped_vit_applies_the_final_norm_then_pools_as_the_network_does() -> None:
    arguments = (("depth", 4),)
    stopped, whole = (network("vit_tiny_patch16_224", 64, arguments, stop) for stop in ("blocks.1", None))
    tokens = cut.split(whole, "blocks.1")[0](photos(64))
    torch.testing.assert_close(logits_of(stopped, photos(64)), whole.module.forward_head(whole.module.norm(tokens), pre_logits=True))


def test_any_batch_size_runs() -> None:
    net = network("vit_tiny_patch16_224", 64, (("depth", 4),))
    trunk, tail = cut.split(net, "blocks.1")
    for n in (1, 5):
        assert tail(trunk(photos(64, n))).shape == (n, 1000)


def test_trunk_holds_only_what_comes_before_the_cut() -> None:
    trunk, tail = cut.split(network(*RESNET), "layer2")
    assert {name.split(".")[1] for name in trunk.state_dict()} == {"conv1", "bn1", "layer1", "layer2"}
    assert {name.split(".")[1] for name in tail.state_dict()} == {"layer3", "layer4", "weight", "bias"}


def test_trunk_has_no_train_mode_and_no_gradients() -> None:
    trunk, _ = cut.split(network(*RESNET), "layer1")
    trunk.train()
    assert not any(module.training for module in trunk.modules())
    assert not any(parameter.requires_grad for parameter in trunk.parameters())
    assert not trunk(photos(32)).requires_grad


def test_trunk_at_input_is_empty_and_the_tail_normalises() -> None:
    trunk, tail = cut.split(network(*RESNET), "input")
    x = photos(32)
    assert trunk(x) is x
    assert not trunk.state_dict()
    torch.testing.assert_close(tail(x), logits_of(network(*RESNET), x))


def test_normalised_pixels_lie_channels_last_in_memory() -> None:
    net = network(*RESNET)
    x = photos(32)
    normalised = Normalise(net.preprocessing)(x)
    assert normalised.is_contiguous(memory_format=torch.channels_last)
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (net.preprocessing.mean, net.preprocessing.std))
    torch.testing.assert_close(normalised, (x.permute(0, 3, 1, 2) / 255 - mean) / std, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", ["input", "layer3", "head"])
def test_every_tail_parameter_gets_a_gradient(name: str) -> None:
    trunk, tail = cut.split(network(*RESNET), name)
    tail.train()
    nn.functional.cross_entropy(tail(trunk(photos(32))), torch.tensor([0, 1])).backward()
    assert [n for n, parameter in tail.named_parameters() if parameter.grad is None] == []


@pytest.mark.parametrize("batch_statistics", [False, True])
def test_training_a_tail_changes_neither_trunk_nor_network(batch_statistics: bool) -> None:
    net = network(*RESNET)
    trunk, tail = cut.split(net, "layer3", batch_statistics=batch_statistics)
    before = copy.deepcopy((trunk.state_dict(), net.module.state_dict()))
    tail.train()
    optimizer = torch.optim.SGD(tail.parameters(), lr=0.1)
    tail(trunk(photos(32))).square().mean().backward()
    optimizer.step()
    for state, kept in zip((trunk.state_dict(), net.module.state_dict()), before, strict=True):
        assert all(torch.equal(tensor, kept[name]) for name, tensor in state.items())


def test_norms_keep_published_statistics_unless_told_otherwise() -> None:
    for batch_statistics in (False, True):
        trunk, tail = cut.split(network(*RESNET), "layer3", batch_statistics=batch_statistics)
        before = copy.deepcopy(dict(tail.named_buffers()))
        tail.train()
        assert {module.training for module in tail.modules() if is_norm(module)} == {batch_statistics}
        tail(trunk(photos(32)))
        same = all(torch.equal(tensor, before[name]) for name, tensor in tail.named_buffers())
        assert same is not batch_statistics


def test_new_head_replaces_the_classifier_on_the_same_features() -> None:
    trunk, tail = cut.split(network(*RESNET), "layer4")
    new = tail.with_head(7)
    rows = trunk(photos(32))
    assert new(rows).shape == (2, 7)
    assert new.d_features == tail.d_features == 512
    assert torch.equal(new.features(rows), tail.features(rows))
    head = nn.Sequential(nn.Linear(512, 3), nn.ReLU())
    torch.testing.assert_close(tail.with_head(head)(rows), head(tail.features(rows)))
    with pytest.raises(ConfigError, match=r"at least one class.* found 0"):
        tail.with_head(0)


def test_state_of_a_tail_fits_a_tail_cut_nearer_to_the_input() -> None:
    late, early = (cut.split(network(*RESNET), name)[1].with_head(3) for name in ("layer4", "layer2"))
    _, unexpected = early.load_state_dict(late.state_dict(), strict=False)
    assert unexpected == []


def test_half_precision_rows_are_welcome() -> None:
    trunk, tail = cut.split(network(*RESNET), "layer4")
    rows = trunk(photos(32))
    torch.testing.assert_close(tail(rows.half()), tail(rows), rtol=0.02, atol=0.02)


def test_unknown_cut_and_stop_name_the_nearest_and_list_all() -> None:
    with pytest.raises(
        ConfigError, match=r"no cut 'layr3'[\s\S]*did you mean 'layer3'[\s\S]*input, conv1, layer1, layer2, layer3, layer4, head"
    ):
        cut.split(network(*RESNET), "layr3")
    with pytest.raises(ConfigError, match=r"no stage 'blocks'[\s\S]*conv1, layer1"):
        network(*RESNET, (), "blocks")


def test_batch_statistics_are_refused_where_norms_are_folded() -> None:
    folded = dataclasses.replace(network(*RESNET), bn_folded=True)
    with pytest.raises(ConfigError, match=r"batch norms of resnet18.a1_in1k are folded"):
        cut.split(folded, "layer3", batch_statistics=True)


def test_keras_resnet50_strides_on_the_first_convolution() -> None:
    module = network("resnet50_keras_v1", 32).module
    for layer in ("layer2", "layer3", "layer4"):
        block = module.get_submodule(f"{layer}.0")
        assert (block.conv1.stride, block.conv2.stride) == ((2, 2), (1, 1))
    assert module.bn1.eps == 1.001e-5


def test_too_small_input_is_refused() -> None:
    with pytest.raises(ConfigError, match="cannot take images of 32 px"):
        network("inception_v3", 32)
