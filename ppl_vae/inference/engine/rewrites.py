"""Faster operations in a recorded graph that compute the same numbers."""

from __future__ import annotations

__all__ = ["LARGE_PRODUCT", "LINEAR", "draw_at_once", "multiply_by_onednn"]

import torch

# Multiplications from which a matrix product is worth oneDNN's 15 microseconds.
LARGE_PRODUCT = 2**21

# oneDNN's product x w^T + b, where this PyTorch has it.
LINEAR = getattr(torch.ops.mkldnn, "_linear_pointwise", None)


def multiply_by_onednn(module: torch.fx.GraphModule) -> None:
    """Let oneDNN take the larger matrix products in single precision; for graphs on a CPU.

    PyTorch gives them to MKL, which on an AMD processor leaves half of its vector units idle.
    """
    if LINEAR is None or not torch.backends.mkldnn.is_available():
        return
    graph = module.graph
    for kind in (torch.ops.aten.mm.default, torch.ops.aten.addmm.default):
        for node in graph.find_nodes(op="call_function", target=kind):
            *bias, left, right = node.args
            one, other = left.meta["val"], right.meta["val"]
            large = one.numel() * other.shape[1] >= LARGE_PRODUCT
            plain = not node.kwargs and all(b.meta["val"].dim() == 1 for b in bias)
            if not (large and plain and one.dtype == torch.float32):
                continue
            with graph.inserting_before(node):
                if not one.is_contiguous():  # it would be copied anyway, but by itself
                    left = graph.call_function(
                        torch.ops.aten.clone.default,
                        (left,),
                        {"memory_format": torch.contiguous_format},
                    )
                    left.meta["val"] = one.contiguous()
                weight = graph.call_function(torch.ops.aten.t.default, (right,))
                weight.meta["val"] = other.t()
                made = graph.call_function(
                    LINEAR.default, (left, weight, *(bias or [None]), "none", [], "")
                )
            made.meta = node.meta
            node.replace_all_uses_with(made)
            graph.erase_node(node)
    module.recompile()


def draw_at_once(module: torch.fx.GraphModule) -> None:
    """Draw standard normals by `randn`: filling memory with them compiles to more copies."""
    graph, aten = module.graph, torch.ops.aten
    for node in graph.find_nodes(op="call_function", target=aten.normal_.default):
        empty, *rest = node.args
        if rest or node.kwargs or empty.target != aten.empty.memory_format or len(empty.users) > 1:
            continue
        with graph.inserting_before(node):
            drawn = graph.call_function(aten.randn.default, empty.args, empty.kwargs)
        drawn.meta = node.meta
        node.replace_all_uses_with(drawn)
        graph.erase_node(node)
        graph.erase_node(empty)
    module.recompile()
