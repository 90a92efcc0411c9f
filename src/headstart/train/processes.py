"""The processes that train together: one alone, or as many as `accelerate launch` (or torchrun) started."""

import torch
from accelerate import PartialState
from accelerate.utils import broadcast, gather, reduce


class Processes:
    """This process, and its siblings where it was `joined` with them.

    Attributes:
        rank: this one's number, from 0.
        n: how many there are.
        device: where this one computes: the device asked for; of several GPUs its own.
    """

    def __init__(self, device: str) -> None:
        self.rank, self.n, self.device = 0, 1, torch.device(device)

    @classmethod
    def joined(cls, device: str) -> "Processes":
        """This process among those that were started together."""
        # Only who takes part comes from Accelerate. The device is each call's own: Accelerate's holds for the whole process. After a call
        # on the CPU it would stay there without a word, after one on a GPU it would refuse the CPU, and it offers no way to reset that.
        found = cls(device)
        state = PartialState(cpu=found.device.type == "cpu")
        found.rank, found.n = int(state.process_index), int(state.num_processes)
        if found.n > 1 and found.device.type == "cuda" and found.device.index is None:
            found.device = torch.device("cuda", state.local_process_index)
        return found

    def sum(self, values: torch.Tensor) -> torch.Tensor:
        """The sum over all processes, the same bits in each; waits for all of them."""
        if self.n == 1:
            return values
        total: torch.Tensor = reduce(values, "sum")
        return total

    def first(self, values: torch.Tensor) -> torch.Tensor:
        """The first process's values, of the same shape and dtype, on `device`; waits for all of them."""
        if self.n == 1:
            return values
        given: torch.Tensor = broadcast(values.detach().to(self.device, copy=True, memory_format=torch.contiguous_format))
        return given

    def agree(self, number: int) -> bool:
        """Whether all processes gave the same number; waits for all of them."""
        return self.n == 1 or len(set(gather(torch.tensor([number], device=self.device)).tolist())) == 1

    def share(self, places: slice) -> slice:
        """This process's part of a batch: runs of an even number of rows, but for a last odd one, so that pairs stay together."""
        pairs = (places.stop - places.start) // 2
        start, stop = (places.start + 2 * (pairs * rank // self.n) for rank in (self.rank, self.rank + 1))
        return slice(start, places.stop if self.rank == self.n - 1 else stop)
