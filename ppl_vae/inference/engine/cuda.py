"""The kernels of a recorded graph as one CUDA graph, and tensors that a trial run must not move."""

from __future__ import annotations

__all__ = ["kept", "launched_at_once"]

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor


@contextmanager
def kept(tensors: Iterable[Tensor]) -> Iterator[None]:
    """Give tensors back the values that they had."""
    pairs = [(tensor, tensor.clone()) for tensor in tensors]
    try:
        yield
    finally:
        with torch.no_grad():
            for tensor, value in pairs:
                if not torch.equal(tensor, value):  # an expanded tensor cannot be written to
                    tensor.copy_(value)


def launched_at_once(
    run: Callable[..., Sequence[Tensor]], inputs: Sequence[Tensor], captured: Sequence[Tensor]
) -> Callable[..., Sequence[Tensor]]:
    """The kernels of a call as one CUDA graph.

    Source: https://docs.pytorch.org/docs/stable/notes/cuda.html#cuda-graphs
    """
    held = [tensor.clone() for tensor in inputs]
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side), kept(captured):
        for _ in range(3):
            run(*held, *captured)
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        outputs = run(*held, *captured)

    def replay(*values: Tensor) -> Sequence[Tensor]:
        for tensor, value in zip(held, values[: len(held)], strict=True):
            tensor.copy_(value)
        graph.replay()
        return outputs

    return replay
