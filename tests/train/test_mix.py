import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st

from headstart.config import Phase
from headstart.train import mix
from headstart.train.batches import passes
from headstart.train.processes import Processes

ALPHAS = st.sampled_from([(0.3, 0.0), (0.0, 0.5), (0.3, 1.0)])


@given(st.integers(1, 40), st.integers(1, 9), ALPHAS, st.integers(0, 99))
def test_rows_blend_in_pairs_within_their_batch_and_the_own_label_dominates(
    n: int, batch_size: int, alphas: tuple[float, float], seed: int
) -> None:
    phase = Phase(batch_size=batch_size, mixup=alphas[0], cutmix=alphas[1])
    slices = passes(n, phase)
    drawn = mix.draw(phase, slices, 8, np.random.default_rng(seed))
    assert drawn is not None
    assert np.array_equal(drawn.partner[drawn.partner], np.arange(n)), "partners are mutual"
    assert np.array_equal(drawn.label_share, drawn.label_share[drawn.partner])
    assert drawn.label_share.min() >= 0.4, "8 px round the box"
    for places in slices:
        alone = drawn.partner[places] == np.arange(n)[places]
        assert alone.sum() == (places.stop - places.start) % 2
        assert (drawn.label_share[places][alone] == 1).all()
        assert not drawn.box[places][alone, 2].any()
        part = drawn.part(places)
        assert set(part.partner) == set(range(places.stop - places.start))
        for rank in range(3):
            processes = Processes("cpu")
            processes.rank, processes.n = rank, 3
            share = processes.share(places)
            assert set(drawn.part(share).partner) == set(range(share.stop - share.start))


def test_nothing_asked_for_is_nothing_drawn() -> None:
    assert mix.draw(Phase(), [slice(0, 4)], 8, np.random.default_rng(0)) is None


@given(ALPHAS, st.integers(0, 99))
def test_what_a_row_keeps_of_itself_is_its_labels_share(alphas: tuple[float, float], seed: int) -> None:
    """Row i is filled with 100 i: the mean of a blended row tells how much of it is its own."""
    drawn = mix.draw(Phase(batch_size=7, mixup=alphas[0], cutmix=alphas[1]), [slice(0, 7)], 8, np.random.default_rng(seed))
    assert drawn is not None
    given = torch.arange(7.0).mul(100).view(7, 1, 1, 1).expand(7, 8, 8, 3)
    found = mix.blend(given, drawn).mean((1, 2, 3))
    share = torch.from_numpy(drawn.label_share)
    torch.testing.assert_close(found, 100 * (share * torch.arange(7.0) + (1 - share) * torch.from_numpy(drawn.partner).float()))


def test_boxes_alone_leave_pixels_as_they_are() -> None:
    drawn = mix.draw(Phase(batch_size=6, cutmix=1.0), [slice(0, 6)], 16, np.random.default_rng(3))
    assert drawn is not None
    assert drawn.box[:, 2].any()
    pixels = torch.randint(0, 256, (6, 16, 16, 3), dtype=torch.uint8)
    blended = mix.blend(pixels, drawn)
    assert blended.dtype == torch.uint8
    top, left, side = drawn.box[0]
    expected = pixels[0].clone()
    expected[top : top + side, left : left + side] = pixels[drawn.partner[0]][top : top + side, left : left + side]
    assert torch.equal(blended[0], expected)


def test_stored_rows_of_any_shape_blend_value_by_value() -> None:
    drawn = mix.draw(Phase(batch_size=4, mixup=1.0), [slice(0, 4)], 0, np.random.default_rng(0))
    assert drawn is not None
    for shape in ((4, 5), (4, 5, 6), (4, 5, 6, 7)):
        x = torch.randn(shape)
        share = torch.from_numpy(drawn.value_share).view(-1, *[1] * (len(shape) - 1))
        torch.testing.assert_close(mix.blend(x, drawn), share * x + (1 - share) * x[torch.from_numpy(drawn.partner)])
