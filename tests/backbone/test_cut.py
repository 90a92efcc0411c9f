"""Trunk and tail together are the network, whatever the network and wherever the cut."""

import copy
import dataclasses
from functools import partial

import pytest
import torch
from backbone_samples import FAMILIES, network, photos
from timm.layers import ConvNormAct
from timm.models.inception_v3 import InceptionA
from torch import nn

from headstart.backbone import cut
from headstart.backbone.cut import Normalise
from headstart.backbone.graph import is_norm
from headstart.backbone.layers import layers
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


def trained(tail: cut.Tail) -> set[str]:
    return {name for name, parameter in tail.named_parameters() if parameter.requires_grad}


@pytest.mark.parametrize(
    ("text", "name"),
    [("top 1", "layer3"), ("top 2", "layer2"), (" top  5 ", "input"), ("top 2 stages", "layer2"), ("layer2", "layer2"), ("input", "input")],
)
def test_top_stages_are_the_last_ones_before_the_head(text: str, name: str) -> None:
    net = network(*RESNET)
    assert cut.resolve(net, text) == cut.Cut(name)
    trunk, tail = cut.split(net, text)
    assert trunk.cut == name
    assert trained(tail) == {parameter for parameter, _ in cut.split(net, name)[1].named_parameters()}


@pytest.mark.parametrize(
    ("name", "px", "text", "place", "frozen"),
    [
        ("resnet50", 32, "top 20 layers", "layer3", "body.layer4.0."),  # two blocks of ten layers
        ("resnet50", 32, "top 32 layers", "layer3", ""),
        ("resnet50", 32, "top 34 layers", "layer3", ""),  # an activation and an addition more: nothing more trains
        ("resnet50", 32, "top 82 layers", "layer2", "body.layer3.0."),  # all of layer4, and five of the six blocks of layer3
        ("resnet50", 32, "top 172 layers", "input", ""),
        ("inception_v3", 80, "top 62 layers", "Mixed_7a", ""),  # layers[249:], the top two blocks of many tutorials
        ("inception_v3", 80, "top 310 layers", "input", ""),
    ],
)
def test_top_layers_are_those_of_the_tutorials(name: str, px: int, text: str, place: str, frozen: str) -> None:
    trunk, tail = cut.split(network(name, px), text)
    assert trunk.cut == place
    body = {parameter for parameter, _ in tail.named_parameters() if parameter.startswith("body.")}
    assert tail.frozen == ({parameter for parameter in body if parameter.startswith(frozen)} if frozen else set())
    assert trained(tail) == {"classifier.weight", "classifier.bias"} | (body - tail.frozen)


def test_parallel_branches_mix_when_layers_are_counted() -> None:
    """`base_model.layers[-20:]` of Keras's InceptionV3: the ends of the last block's branches."""
    _, tail = cut.split(network("inception_v3", 80), "top 20 layers")
    convolutions = {name.split(".")[2] for name in trained(tail) if name.endswith("conv.weight")}
    assert convolutions == {"branch1x1", "branch3x3dbl_3a", "branch3x3dbl_3b", "branch_pool"}
    norms = {name.split(".")[2] for name in trained(tail) if name.endswith("bn.weight")}
    assert norms == {"branch1x1", "branch3x3_2a", "branch3x3_2b", "branch3x3dbl_3a", "branch3x3dbl_3b", "branch_pool"}


@pytest.mark.parametrize(("name", "px", "arguments"), FAMILIES, ids=[name for name, *_ in FAMILIES])
def test_more_layers_train_more_until_everything_does(name: str, px: int, arguments: tuple) -> None:
    net = network(name, px, arguments)
    n_layers = len(layers(net.layout))
    before: set[str] = set()
    for number in (n_layers // 8, n_layers // 3, n_layers - 1, n_layers):
        _, tail = cut.split(net, f"top {number} layers")
        now = trained(tail)
        assert before < now or number == n_layers
        assert before <= now
        assert now | tail.frozen == {parameter for parameter, _ in tail.named_parameters()}
        assert set(tail.stage_of) == {parameter for parameter, _ in tail.body.named_parameters(prefix="body")}
        before = now
    assert tail.frozen == set()


def test_what_is_frozen_gets_no_gradient_and_stays_frozen_in_copies() -> None:
    trunk, tail = cut.split(network(*RESNET), "top 5 layers")
    assert tail.frozen
    for copied in (tail, copy.deepcopy(tail), tail.with_head(3), copy.deepcopy(tail.with_head(nn.Linear(512, 3)))):
        copied.train()
        copied(trunk(photos(32))).square().mean().backward()
        assert {name for name, parameter in copied.named_parameters() if parameter.grad is None} == tail.frozen


def test_norms_of_frozen_layers_keep_the_published_statistics() -> None:
    """As in Keras, where a frozen batch norm uses what it has."""
    trunk, tail = cut.split(network(*RESNET), "top 5 layers", batch_statistics=True)
    before = copy.deepcopy(dict(tail.named_buffers()))
    tail.train()
    tail(trunk(photos(32)))
    changed = {name for name, buffer in tail.named_buffers() if not torch.equal(buffer, before[name])}
    assert {name.rpartition(".")[0] for name in changed} == {"body.layer4.1.bn2"}


def test_a_tail_knows_its_stages_and_which_parameter_belongs_to_which() -> None:
    names = cut.cut_names(network(*RESNET))
    for number, name in enumerate(names):
        _, tail = cut.split(network(*RESNET), name)
        assert tail.stages == (tuple(names[number + 1 :]) if name != "head" else ("head",))
        assert set(tail.stage_of) == {parameter for parameter, _ in tail.named_parameters() if parameter.startswith("body.")}
    assert cut.split(network(*RESNET), "layer4")[1].stages == ("head",)
    _, tail = cut.split(network(*RESNET), "input")
    assert tail.stage_of["body.bn1.weight"] == "conv1"
    assert tail.with_head(3).stage_of == tail.stage_of


@pytest.mark.parametrize(
    ("text", "match"),
    [
        ("top 0", r"asked for the top 0 stages, but resnet18.a1_in1k has 5.*\nhint: give a number from 1 to 5"),
        ("top 6", "asked for the top 6 stages, but resnet18.a1_in1k has 5"),
        ("top 0 layers", r"asked for the top 0 layers, but resnet18.a1_in1k has \d+"),
        ("top 500 layers", r"asked for the top 500 layers, but resnet18.a1_in1k has \d+"),
        ("top 2 layers", r"the last 2 layers of resnet18.a1_in1k have no weights[\s\S]*hint: `top 3 layers` is the least"),
        ("top layers", r"no cut 'top layers'[\s\S]*top N layers"),
        ("top two", "no cut 'top two'"),
        ("top 2 blocks", "no cut 'top 2 blocks'"),
    ],
)
def test_tops_that_are_not_possible_say_what_is(text: str, match: str) -> None:
    with pytest.raises(ConfigError, match=match):
        cut.split(network(*RESNET), text)


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


def test_keras_inception_pools_over_what_lies_inside_a_map() -> None:
    ours = network("inception_v3_keras", 80).module.Mixed_5b
    theirs = InceptionA(192, pool_features=32, conv_block=partial(ConvNormAct, padding=0, norm_kwargs={"eps": 1e-3})).eval()
    theirs.load_state_dict(ours.state_dict())
    x = torch.ones(1, 192, 5, 5)
    with torch.no_grad():
        inside, counted = (block(x)[:, -32:] for block in (ours, theirs))
        assert torch.equal(ours(x)[:, :-32], theirs(x)[:, :-32])
    torch.testing.assert_close(inside, inside[:, :, 2:3, 2:3].expand_as(inside))
    assert not torch.allclose(counted, inside)


def test_too_small_input_is_refused() -> None:
    with pytest.raises(ConfigError, match="cannot take images of 32 px"):
        network("inception_v3", 32)
