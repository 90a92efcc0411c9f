"""The trunk pass: what is stored is what the network computes, and nothing is computed twice."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch

from headstart.backbone import cut, networks, weights
from headstart.data import pixels
from headstart.data.scan import scan
from headstart.data.table import Table
from headstart.errors import ConfigError
from headstart.features import engine
from headstart.features.extract import extract, spec_of
from headstart.features.store import Store
from samples import make_photos

TORCH = engine.Choice("torch", "cpu", "fp32")


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Table:
    return scan(make_photos(tmp_path_factory.mktemp("photos"), n=9), cache=tmp_path_factory.mktemp("facts"))


@pytest.mark.parametrize("place", ["layer1", "layer4", "head"])
def test_stored_rows_equal_live_ones_at_the_stored_dtype(network: networks.Network, table: Table, place: str, tmp_path: Path) -> None:
    trunk, _ = cut.split(network, place)
    features = extract(trunk, table, Store(tmp_path), choice=TORCH)
    assert features.rows.shape == (27, *trunk.out_shape)
    images = np.stack([pixels.load(table.file(i), network.preprocessing) for i in range(len(table))])
    live = trunk(torch.from_numpy(images)).numpy()
    np.testing.assert_allclose(features.rows[:], live, rtol=2e-3, atol=2e-3)


def test_pixels_are_stored_at_cut_input_in_their_own_shape(network: networks.Network, table: Table, tmp_path: Path) -> None:
    trunk, _ = cut.split(network, "input")
    rows = extract(trunk, table, Store(tmp_path)).rows[:]
    assert {row.shape[1] for row in rows} >= {37, 40} or len({row.shape for row in rows}) > 1
    assert all(min(row.shape[:2]) <= round(32 * 1.15) for row in rows)


def test_the_network_s_arguments_are_in_the_key(network: networks.Network) -> None:
    trunk, _ = cut.split(network, "head")
    other, _ = cut.split(dataclasses.replace(network, record=dataclasses.replace(network.record, model_args={"output_stride": 16})), "head")
    assert spec_of(other, TORCH, "none").network_args == {"output_stride": 16}
    assert spec_of(other, TORCH, "none").digest() != spec_of(trunk, TORCH, "none").digest()


def test_engines_agree(network: networks.Network, table: Table, tmp_path: Path) -> None:
    pytest.importorskip("openvino", reason="OpenVINO is not installed")
    trunk, _ = cut.split(network, "head")
    exact, other = (
        extract(trunk, table, Store(tmp_path), choice=choice).rows[:] for choice in (TORCH, engine.Choice("openvino", "cpu", "fp32"))
    )
    np.testing.assert_allclose(exact, other, rtol=5e-3, atol=5e-3)
    if engine.choose("openvino").precision == "bf16":
        rough = extract(trunk, table, Store(tmp_path), choice=engine.Choice("openvino", "cpu", "bf16")).rows[:]
        assert np.abs(rough - exact).mean() < 0.02 * np.abs(exact).mean() + 1e-3


def test_a_second_pass_computes_nothing_and_equal_photos_are_one_row(network: networks.Network, table: Table, tmp_path: Path) -> None:
    trunk, _ = cut.split(network, "head")
    doubled = table.with_photos([*table.photos, table.photos[0]])
    first = extract(trunk, doubled, Store(tmp_path), choice=TORCH)
    again = extract(trunk, doubled, Store(tmp_path), choice=TORCH)
    assert (first.n_computed, first.n_reused) == (27, 0)
    assert (again.n_computed, again.n_reused) == (0, 27)
    rows = again.rows[:]
    assert len(rows) == 28
    np.testing.assert_array_equal(rows[0], rows[27])
    np.testing.assert_array_equal(rows, first.rows[:])


def test_every_photo_keeps_its_row_in_any_order(network: networks.Network, table: Table, tmp_path: Path) -> None:
    trunk, _ = cut.split(network, "head")
    rows = extract(trunk, table, Store(tmp_path), choice=TORCH).rows[:]
    order = np.random.default_rng(0).permutation(len(table))
    np.testing.assert_array_equal(extract(trunk, table.subset(order), Store(tmp_path), choice=TORCH).rows[:], rows[order])


def test_values_beyond_float16_are_stored_as_float32_and_found_again(tiny_weights: Path, table: Table, tmp_path: Path) -> None:
    network = networks.build(weights.locate(None, tiny_weights))
    trunk, _ = cut.split(network, "layer4")
    trunk.body.add_module("big", torch.nn.Identity())
    with torch.no_grad():
        for parameter in trunk.body.parameters():
            if parameter.ndim == 1:
                parameter.mul_(40)  # norms' scales: the maps grow beyond 65,504
    first = extract(trunk, table, Store(tmp_path), choice=TORCH)
    assert np.abs(first.rows[:]).max() > 65504
    assert first.rows.dtype == np.float32
    again = extract(trunk, table, Store(tmp_path), choice=TORCH)
    assert (again.n_computed, again.rows.dtype) == (0, np.float32)


def test_rows_that_overflowed_leave_their_room_to_the_wider_ones(network: networks.Network, table: Table, tmp_path: Path) -> None:
    trunk, _ = cut.split(network, "layer1")
    peaks = np.abs(extract(trunk, table, Store(tmp_path / "usual"), choice=TORCH).rows[:].astype(np.float32)).max(axis=(1, 2, 3))
    order = np.argsort(peaks)
    trunk.body = torch.nn.Sequential(trunk.body, Times(2 * 65504 / float(peaks[order[-2:]].sum())))  # only the last photo overflows
    store = Store(tmp_path / "store", budget_bytes=300_000)  # float16 rows take 130,000, float32 rows 240,000
    assert extract(trunk, table.subset(order[:-1]), store, choice=TORCH).rows.dtype == np.float16
    assert extract(trunk, table.subset(order), store, choice=TORCH).rows.dtype == np.float32
    assert [info.dtype for info in store.spaces()] == ["float32"]


class Times(torch.nn.Module):
    def __init__(self, factor: float) -> None:
        super().__init__()
        self.factor = factor

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * self.factor


def test_out_of_memory_halves_the_batch_and_gives_the_same_rows(network: networks.Network) -> None:
    trunk, _ = cut.split(network, "head")
    images = np.random.default_rng(0).integers(0, 255, (20, 32, 32, 3), np.uint8)
    session = engine.TorchSession(trunk, TORCH)
    whole = session.run(images)
    real = session._forward

    def small_memory(batch: np.ndarray) -> np.ndarray:
        if len(batch) > 5:
            raise torch.OutOfMemoryError("no room")
        return real(batch)

    session._forward = small_memory
    np.testing.assert_allclose(session.run(images), whole, atol=1e-5)
    assert session.batch_size == 4


def test_what_is_not_there_is_refused() -> None:
    if not torch.cuda.is_available():
        with pytest.raises(ConfigError, match=r"no device 'cuda' on this machine; there is: .*cpu"):
            engine.choose(device="cuda")
    assert engine.choose("torch", "cpu", "fp32").name.startswith("torch 2")


def test_a_session_moves_a_copy_and_leaves_the_callers_trunk_where_it_is(network: networks.Network) -> None:
    trunk, _ = cut.split(network, "layer4")
    before = {name: (tensor.device, tensor.stride()) for name, tensor in trunk.state_dict().items()}
    session = engine.TorchSession(trunk, engine.Choice("torch", "meta", "fp32"))
    assert {tensor.device.type for tensor in session._trunk.state_dict().values()} == {"meta"}
    assert {name: (tensor.device, tensor.stride()) for name, tensor in trunk.state_dict().items()} == before


OPENVINO = engine.Choice("openvino", "cpu", "fp32")


def test_a_damaged_exported_trunk_is_made_again(network: networks.Network, table: Table, tmp_path: Path, own_cache: Path) -> None:
    pytest.importorskip("openvino", reason="OpenVINO is not installed")
    trunk, _ = cut.split(network, "head")
    first = extract(trunk, table, Store(tmp_path / "a"), choice=OPENVINO)
    (graph,) = (own_cache / "graphs").iterdir()
    graph.write_bytes(b"garbage")
    again = extract(trunk, table, Store(tmp_path / "b"), choice=OPENVINO)
    assert again.engine == OPENVINO.name
    assert again.notice is None
    np.testing.assert_array_equal(again.rows[:], first.rows[:])
    assert graph.stat().st_size > 1000


def test_a_network_the_engine_cannot_run_is_run_by_pytorch_with_a_notice(
    network: networks.Network, table: Table, tmp_path: Path, own_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("openvino", reason="OpenVINO is not installed")
    tried = []

    def refuse(path: Path, **_: str) -> None:
        tried.append(path)
        raise RuntimeError("unknown operation")

    trunk, _ = cut.split(network, "head")
    graph = engine._graph_path(trunk)
    graph.parent.mkdir(parents=True)
    graph.write_bytes(b"garbage")
    monkeypatch.setattr(engine.runtime, "open_session", refuse)
    features = extract(trunk, table, Store(tmp_path), choice=OPENVINO)
    assert tried == [graph, graph], "opened, exported once more, opened again, and no more"
    assert features.engine.startswith("torch ")
    assert features.notice == f"{OPENVINO.name} cannot run this network; PyTorch did"
    assert extract(trunk, table, Store(tmp_path), choice=TORCH).notice is None
