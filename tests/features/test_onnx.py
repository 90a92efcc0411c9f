import os
from pathlib import Path

import numpy as np
import pytest
import torch
from timm.layers import Conv2dSame
from torch import nn

from headstart.errors import HeadstartError
from headstart.features import onnx
from headstart.features.onnx import NotReproducedError, to_onnx
from headstart.features.runtime import open_session

PX = 16


class Scaled(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.factor = nn.Parameter(torch.tensor(2.0))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return images.float().mean((1, 2)) * self.factor


class Same(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.convolution = Conv2dSame(3, 4, 3, stride=2)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.convolution(images.permute(0, 3, 1, 2).float() / 255)


class Branches(Scaled):
    """What it computes depends on what it sees, which no exporter can follow."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        rows = super().forward(images)
        return rows if float(rows.sum()) < 2500 else rows + 1


def test_the_file_computes_what_the_network_computes(tmp_path: Path) -> None:
    exported = to_onnx(Scaled(), tmp_path / "a" / "net.onnx", px=PX)
    assert exported.exporter == "trace"
    assert exported.difference < 1e-6
    found = open_session(tmp_path / "a" / "net.onnx", provider="onnxruntime").run(onnx.check_images(PX))
    np.testing.assert_allclose(found, exported.rows, rtol=1e-6)


def test_maps_behind_padding_that_follows_their_size_are_traced_too(tmp_path: Path) -> None:
    """TensorFlow's `same`, as in mobilenetv2_100: the slow exporter took 10 s of every new cut."""
    exported = to_onnx(Same(), tmp_path / "net.onnx", px=PX)
    assert exported.exporter == "trace"
    session = open_session(tmp_path / "net.onnx", provider="onnxruntime")
    assert session.output_shape == exported.rows.shape[1:]
    np.testing.assert_allclose(session.run(onnx.check_images(PX)), exported.rows, rtol=1e-5, atol=1e-5)


@pytest.fixture
def no_second_exporter(monkeypatch: pytest.MonkeyPatch) -> None:
    def absent(*_: object) -> None:
        raise RuntimeError("not tried")

    monkeypatch.setattr(onnx, "_torch_export", absent)


def test_where_pytorch_has_no_tracer_torch_export_writes_the_file_without_paths_of_this_machine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def gone(*_: object) -> None:
        raise TypeError("export() got an unexpected keyword argument 'dynamo'")

    monkeypatch.setattr(onnx, "_trace", gone)
    exported = to_onnx(Scaled(), tmp_path / "net.onnx", px=PX)
    assert exported.exporter == "torch.export"
    assert exported.difference < 1e-6
    assert Path(__file__).name.encode() not in (tmp_path / "net.onnx").read_bytes()


def test_a_network_that_cannot_be_exported_is_refused_with_the_reasons_and_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(NotReproducedError, match=r"trace: difference .* allowed; torch.export: "):
        to_onnx(Branches(), tmp_path / "net.onnx", px=PX)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.usefixtures("no_second_exporter")
def test_the_limit_is_the_callers(tmp_path: Path) -> None:
    with pytest.raises(NotReproducedError, match=r"trace: difference 0.5, at most 0.25 allowed; torch.export: not tried"):
        to_onnx(Scaled(), tmp_path / "net.onnx", px=PX, difference=lambda expected, found: 0.5, at_most=0.25)


@pytest.mark.usefixtures("no_second_exporter")
def test_a_difference_that_is_not_a_number_is_refused(tmp_path: Path) -> None:
    with pytest.raises(NotReproducedError, match="difference nan"):
        to_onnx(Scaled(), tmp_path / "net.onnx", px=PX, difference=lambda expected, found: float("nan"))


def test_a_folder_that_cannot_be_made_is_an_error_with_its_path(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(HeadstartError, match=r"cannot write .*net.onnx"):
        to_onnx(Scaled(), tmp_path / "file" / "net.onnx", px=PX)


def test_the_file_is_on_the_disk_before_it_gets_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    done: list[tuple[str, int]] = []
    fsync, replace = os.fsync, os.replace

    def noted_fsync(handle: int) -> None:
        done.append(("fsync", os.fstat(handle).st_ino))
        fsync(handle)

    def noted_replace(source: Path, target: Path) -> None:
        done.append(("replace", os.stat(source).st_ino))
        replace(source, target)

    monkeypatch.setattr(onnx.os, "fsync", noted_fsync)
    monkeypatch.setattr(onnx.os, "replace", noted_replace)
    to_onnx(Scaled(), tmp_path / "net.onnx", px=PX)
    written = (tmp_path / "net.onnx").stat().st_ino
    assert [what for what, file in done if file == written] == ["fsync", "replace"]
