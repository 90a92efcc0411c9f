"""Where weights are found, and every way in which a file of weights can be wrong."""

import dataclasses
import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from backbone_samples import network, photos
from huggingface_hub import constants
from safetensors.torch import save_file

from headstart.backbone import catalog, networks, weights
from headstart.backbone.cut import Normalise, stages
from headstart.backbone.reading import read_tensors
from headstart.errors import ConfigError, WeightsError

HEADER = {
    "timm_architecture": "resnet18",
    "input_px": 32,
    "crop": 0.9,
    "interpolation": "bicubic",
    "mean": [0.5] * 3,
    "std": [0.25] * 3,
    "classes": 1000,
    "licence": "MIT",
}


def state() -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in network("resnet18", 32).module.state_dict().items()}


def saved(path: Path, tensors: dict[str, torch.Tensor], header: dict | None = HEADER) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file(tensors, path, {} if header is None else {"headstart": json.dumps(header)})
    return path


def logits(net: networks.Network) -> torch.Tensor:
    with torch.no_grad():
        return net.module(Normalise(network("resnet18", 32).preprocessing)(photos(32)))


def test_a_file_with_a_header_needs_no_backbone_name_and_overrides_the_catalogue(tmp_path: Path) -> None:
    file = weights.locate(None, saved(tmp_path / "w.safetensors", state()))
    net = networks.build(file)
    assert (file.origin, file.record.record_source, net.licence, net.preprocessing.crop, len(net.weights_sha256)) == (
        "given",
        "file",
        "MIT",
        0.9,
        64,
    )
    assert (net.n_classes, net.classes[281], net.synsets[281]) == (1000, "tabby", "n02123045")
    assert torch.equal(logits(net), logits(network("resnet18", 32)))
    assert not any(parameter.requires_grad for parameter in net.module.parameters())


def test_without_a_header_the_name_says_what_the_file_is_for_and_the_summary_can_tell(tmp_path: Path) -> None:
    path = saved(tmp_path / "w.safetensors", state(), None)
    net = networks.build(weights.locate("resnet18", path), px=32)
    assert (net.record.record_source, net.hub_id) == ("timm", None), "such a file may hold any weights of that shape"
    assert torch.equal(logits(net), logits(network("resnet18", 32)))
    with pytest.raises(WeightsError, match=r"does not say which network[\s\S]*--backbone"):
        weights.locate(None, path)


@pytest.mark.parametrize(
    "wrap",
    [
        lambda s: s,
        lambda s: {"state_dict": {f"module.{name}": tensor for name, tensor in s.items()}, "epoch": 3},
        lambda s: {"model": s},
        lambda s: {"state_dict": {}, "state_dict_ema": s},
        lambda s: {name: tensor.half() if tensor.is_floating_point() else tensor for name, tensor in s.items()},
    ],
    ids=["plain", "parallel", "model", "ema", "half"],
)
def test_torch_state_dicts_are_read_however_they_are_wrapped(tmp_path: Path, wrap: Callable) -> None:
    path = tmp_path / "w.pth"
    torch.save(wrap(state()), path)
    net = networks.build(weights.locate("resnet18", path), px=32)
    torch.testing.assert_close(logits(net), logits(network("resnet18", 32)), rtol=0.05, atol=0.05)
    assert all(tensor.dtype != torch.float16 for tensor in net.module.state_dict().values())


def test_weights_of_another_network_are_refused_with_what_differs(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=r"expected weights of resnet50, found those of resnet18[\s\S]*--backbone resnet18"):
        weights.locate("resnet50", saved(tmp_path / "a.safetensors", state()))
    file = weights.locate("regnetx_002", saved(tmp_path / "b.safetensors", state(), None))
    with pytest.raises(
        WeightsError,
        match=r"does not hold weights of regnetx_002.*missing: stem.*unknown: bn1\.bias, .* and \d+ more",
    ):
        networks.build(file, px=32)
    changed = {**state(), "layer1.0.conv1.weight": torch.zeros(8, 64, 3, 3)}
    with pytest.raises(WeightsError, match=r"layer1\.0\.conv1\.weight 8x64x3x3 for 64x64x3x3"):
        networks.build(weights.locate(None, saved(tmp_path / "c.safetensors", changed)))
    deeper = {**state(), "layer3.2.conv1.weight": torch.zeros(256, 256, 3, 3)}
    with pytest.raises(WeightsError, match=r"unknown: layer3\.2\.conv1\.weight"):
        networks.build(weights.locate(None, saved(tmp_path / "d.safetensors", deeper)))


def test_an_incomplete_file_is_welcome_with_stop_and_refused_without(tmp_path: Path) -> None:
    some = {name: tensor for name, tensor in state().items() if not name.startswith(("layer4", "fc"))}
    file = weights.locate(None, saved(tmp_path / "w.safetensors", some))
    with pytest.raises(
        WeightsError, match=r"25 tensors are missing, of layer4 \(layer4\.0\.conv1\.weight.*and 22 more\)\nhint: .*--stop layer3"
    ):
        networks.build(file)
    net = networks.build(file, stop="layer3")
    assert stages(net) == ["conv1", "layer1", "layer2", "layer3", "head"]
    assert torch.equal(logits(net), logits(network("resnet18", 32, (), "layer3")))
    assert net.n_classes == 0
    with pytest.raises(ConfigError, match=r"no stage 'layer9'[\s\S]*layer"):
        networks.build(file, stop="layer9")


def test_a_file_without_classifier_or_with_another_gives_its_own_classes(tmp_path: Path) -> None:
    bare = {name: tensor for name, tensor in state().items() if not name.startswith("fc")}
    assert networks.build(weights.locate(None, saved(tmp_path / "a.safetensors", bare))).n_classes == 0
    own = {**bare, "fc.weight": torch.zeros(3, 512), "fc.bias": torch.zeros(3)}
    header = {**HEADER, "classes": 3, "class_names": ["x", "y", "z"]}
    net = networks.build(weights.locate(None, saved(tmp_path / "b.safetensors", own, header)))
    assert (net.n_classes, net.classes, net.synsets) == (3, ("x", "y", "z"), None)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", r"is empty \(0 bytes\)"),
        (b"<!DOCTYPE html><html>404</html>", "found a web page"),
        (b"version https://git-lfs.github.com/spec/v1\n", "found a Git LFS pointer"),
        (b"\x89HDF\r\n\x1a\n" + bytes(100), "is damaged or incomplete"),
        (b"just some text that goes on for a while", "found something else"),
        (b"PK\x03\x04" + bytes(200), "is damaged or incomplete"),
        ((2**20).to_bytes(8, "little") + b'{"a":', "is damaged or incomplete"),
    ],
)
def test_files_that_are_no_weights_say_what_they_are(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "w.safetensors"
    path.write_bytes(content)
    with pytest.raises(WeightsError, match=message) as caught:
        networks.build(weights.locate("resnet18", path))
    assert str(path) in caught.value.message
    assert "\n" not in caught.value.message


@pytest.mark.parametrize("suffix", ["safetensors", "pth"])
def test_truncated_files_are_refused(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"w.{suffix}"
    if suffix == "pth":
        torch.save(state(), path)
    else:
        saved(path, state())
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(WeightsError, match="is damaged or incomplete"):
        networks.build(weights.locate("resnet18", path))


def test_pickled_code_is_never_run(tmp_path: Path) -> None:
    path = tmp_path / "model.pth"
    torch.save(torch.nn.Linear(2, 2), path)
    with pytest.raises(WeightsError, match=r"could run code, so it is not loaded[\s\S]*state_dict"):
        networks.build(weights.locate("resnet18", path))


def test_values_that_are_not_finite_are_refused(tmp_path: Path) -> None:
    broken = {**state(), "layer1.0.conv1.weight": torch.full((64, 64, 3, 3), torch.nan)}
    path = saved(tmp_path / "w.safetensors", broken)
    with pytest.raises(WeightsError, match=rf"1 of {len(broken)} tensors in .* NaN or infinite values, layer1\.0\.conv1\.weight first"):
        read_tensors(path)


def test_packed_tensors_are_read_as_levels_times_scales(tmp_path: Path) -> None:
    levels = torch.linspace(-2, 2, 32)
    positions = [*range(32), 0, 31, 7, 5]  # 36 numbers of 5 bits: 22.5 bytes
    bits = [(position >> bit) & 1 for position in positions for bit in range(5)] + [0] * 4
    codes = [sum(bit << k for k, bit in enumerate(bits[start : start + 8])) for start in range(0, len(bits), 8)]
    tensors = {
        "w.codes": torch.tensor(codes, dtype=torch.uint8),
        "w.scale": torch.tensor([1.0, 10.0]),
        "w.shape": torch.tensor([2, 2, 3, 3]),
        "w.levels": levels,
        "few.codes": torch.tensor([0b10_01_00_11], dtype=torch.uint8),  # 2 bits a number
        "few.levels": torch.tensor([-1.0, 0.0, 1.0, 5.0]),
        "few.scale": torch.tensor([2.0]),
        "few.shape": torch.tensor([1, 3]),
        "bias.scale": torch.ones(2),  # some network's own name
    }
    save_file(tensors, tmp_path / "packed.safetensors")
    read = read_tensors(tmp_path / "packed.safetensors")
    assert set(read) == {"w", "few", "bias.scale"}
    assert read["few"].tolist() == [[10.0, -2.0, 0.0]]
    wanted = levels[torch.tensor(positions)].view(2, 2, 3, 3) * torch.tensor([1.0, 10.0]).view(2, 1, 1, 1)
    torch.testing.assert_close(read["w"], wanted)


def test_missing_file_and_state_without_tensors_are_refused(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=r"no weights file at .*absent\.pth"):
        weights.locate("resnet18", tmp_path / "absent.pth")
    torch.save({"epoch": 3}, tmp_path / "w.pth")
    with pytest.raises(WeightsError, match="holds no tensors"):
        read_tensors(tmp_path / "w.pth")
    torch.save(torch.zeros(3), tmp_path / "t.pth")
    with pytest.raises(WeightsError, match=r"expected a state dict .* found Tensor"):
        read_tensors(tmp_path / "t.pth")


def test_damaged_header_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "w.safetensors"
    save_file(state(), path, {"headstart": "{not json"})
    with pytest.raises(WeightsError, match="is not JSON"):
        weights.locate(None, path)


@pytest.mark.parametrize("name", ["resnet18.safetensors", "resnet18.a1_in1k.pth"])
def test_a_file_in_the_cache_folder_is_found_by_its_name(own_cache: Path, name: str) -> None:
    path = own_cache / "weights" / name
    path.parent.mkdir()
    if name.endswith("pth"):
        torch.save(state(), path)
    else:
        saved(path, state(), None)
    file = weights.locate("resnet18")
    assert (file.origin, file.path) == ("cache", path)
    net = networks.build(file, px=32)
    assert (net.n_classes, net.hub_id) == (1000, "timm/resnet18.a1_in1k")


def test_nothing_at_hand_names_the_ways_out(own_cache: Path) -> None:
    place = re.escape(str(own_cache / "weights" / "resnet18.a1_in1k.safetensors"))
    expected = rf"no weights of resnet18.a1_in1k at hand\nhint: .*--weights FILE.*{place}.*embedded"
    with pytest.raises(WeightsError, match=expected):
        weights.locate("resnet18")
    with pytest.raises(WeightsError, match="no weights of resnet50_keras_v1 at hand"):
        weights.locate("resnet50_keras_v1", download=True)


def test_offline_on_purpose_is_honoured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(WeightsError, match=r"HF_HUB_OFFLINE forbids[\s\S]*--weights FILE"):
        weights.locate("resnet18", download=True)


def test_no_backbone_named_means_the_embedded_one() -> None:
    file = weights.locate(None, download=True)
    assert (file.origin, file.record.name) == ("embedded", "embedded")
    net = networks.build(file)
    assert net.n_classes == file.record.n_classes
    assert net.classes == file.record.class_names


def test_an_installation_without_embedded_backbone_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(catalog, "EMBEDDED_FILE", tmp_path / "embedded.safetensors")
    with pytest.raises(WeightsError, match=r"lacks its embedded backbone.*[\s\S]*--backbone"):
        weights.locate(None)


def test_folded_norms_are_known_to_the_network(tmp_path: Path) -> None:
    file = weights.locate(None, saved(tmp_path / "w.safetensors", state(), {**HEADER, "bn_folded": True}))
    assert networks.build(file).bn_folded
    assert networks.build(dataclasses.replace(file, record=dataclasses.replace(file.record, bn_folded=False))).bn_folded is False


def test_vit_weights_fit_another_input_size(tmp_path: Path) -> None:
    whole = network("vit_tiny_patch16_224", 64, (("depth", 4),))
    header = {**HEADER, "timm_architecture": "vit_tiny_patch16_224", "input_px": 64, "model_args": {"depth": 4, "img_size": 64}}
    file = weights.locate(None, saved(tmp_path / "w.safetensors", dict(whole.module.state_dict()), header))
    assert networks.build(file).module.pos_embed.shape == (1, 17, 192)
