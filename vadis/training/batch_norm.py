"""Batch norm in a step that is made of several micro-batches, on one device or many.

Each micro-batch is normalised by its own statistics, as on each of the paper's replicas. The running averages, which
serve at test time, move once per step by ``1 - decay`` towards the mean of all micro-batches' statistics. So one device
with 64 micro-batches does what 64 devices do with one each, and a decay of 0.999 means the same for any number of them.
"""

from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from vadis.training.distributed import Process


class RunningAverages:
    """The running means and variances of a network's batch norms."""

    def __init__(self, network: nn.Module) -> None:
        norms = [module for module in network.modules() if isinstance(module, _BatchNorm)]
        pairs = [(norm.running_mean, norm.running_var) for norm in norms]
        self._buffers: list[Tensor] = [buffer for pair in pairs for buffer in pair if buffer is not None]
        counters = [norm.num_batches_tracked for norm in norms]  # of steps, then: one per step is kept
        self._counters: list[Tensor] = [counter for counter in counters if counter is not None]
        self._before: list[Tensor] = []
        self._after: list[Tensor] = []

    def begin(self) -> None:
        """A step begins."""
        self._before = [buffer.clone() for buffer in self._buffers + self._counters]
        self._after = [buffer.new_zeros(buffer.shape) for buffer in self._buffers]

    def restore(self) -> None:
        """Back to where the step began: before each micro-batch, and where a step is given up."""
        for buffer, before in zip(self._buffers + self._counters, self._before, strict=True):
            buffer.copy_(before)

    def before(self) -> dict[int, Tensor]:
        """Return what the buffers were when the step began, by the address of each."""
        pairs = zip(self._buffers + self._counters, self._before, strict=True)
        return {buffer.data_ptr(): before for buffer, before in pairs}

    def add(self, share: float) -> None:
        """A micro-batch has passed in training mode; ``share`` is its part of this process's clips in the step.

        Leaves the buffers alone, because the backward pass may be yet to come and wants them as they were.
        """
        for buffer, after in zip(self._buffers, self._after, strict=True):
            after.add_(buffer, alpha=share)

    def finish(self, process: Process) -> None:
        """The step is done, on all processes."""
        process.average(self._after)
        for buffer, after in zip(self._buffers, self._after, strict=True):
            buffer.copy_(after)
