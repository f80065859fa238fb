"""The graph of a network as a picture (SVG): its layers in the order of computation, and where inputs come from."""

from functools import partial
from html import escape
from pathlib import Path
from typing import Any

import torch
from torch import nn

from training.diagnostics import named_tensors
from utils.files import atomic_write

ROW, WIDTH, LEFT = 26, 430, 20  # pixels: height of a row, width of a box, margin
STEP = 9  # pixels between two edges that run side by side


def layer_graph(model: nn.Module, inputs: dict[str, Any]) -> tuple[list[tuple[str, str, str]], list[tuple[int, int]]]:
    """([(name, kind, output's shape)] of the layers as they are called, [(from, to)] their edges; -1: no layer)."""
    layers: list[tuple[str, str, str]] = []
    made_by: dict[Any, int] = {}  # node of the autograd graph -> the layer whose output it is
    edges: set[tuple[int, int]] = set()
    kept: list[Any] = []  # nodes are compared by identity: none may be freed before the end

    def sources(tensors: list[torch.Tensor]) -> set[int]:
        found, seen = set(), set()
        todo = [t.grad_fn for t in tensors if t.grad_fn is not None]
        while todo:
            node = todo.pop()
            if node in made_by:
                found.add(made_by[node])
            elif node not in seen:
                seen.add(node)
                todo += [following for following, _ in node.next_functions if following is not None]
        return found or {-1}

    def note(name: str, module: nn.Module, args: Any, kwargs: Any, output: Any) -> None:
        results = [tensor for _, tensor in named_tensors(output, "")]
        number = len(layers)
        shape = " × ".join(map(str, results[0].shape)) if results else ""
        layers.append((name, type(module).__name__, shape))
        edges.update((source, number) for source in sources([t for _, t in named_tensors([args, kwargs], "")]))
        made_by.update((result.grad_fn, number) for result in results if result.grad_fn is not None)
        kept.append(output)

    hooks = [
        module.register_forward_hook(partial(note, name), with_kwargs=True)
        for name, module in model.named_modules()
        if name and not list(module.children())
    ]
    try:
        with torch.enable_grad():
            model(**inputs)
    finally:
        for handle in hooks:
            handle.remove()
    return layers, sorted(edges)


def draw_graph(path: str | Path, model: nn.Module, inputs: dict[str, Any]) -> None:
    """Writes the picture of the network's layers, as they are called with these inputs."""
    layers, edges = layer_graph(model, inputs)
    lanes: list[int] = []  # the last layer that an edge in this lane runs to
    parts, right = [], LEFT + WIDTH
    for source, target in edges:
        y1, y2 = ((n + 1.5) * ROW for n in (source, target))
        if target == source + 1:
            parts.append(f'<path d="M{LEFT + 40},{y1 + 9} V{y2 - 9}"/>')
            continue
        free = next((lane for lane, last in enumerate(lanes) if last <= source), len(lanes))
        lanes[free : free + 1] = [target]
        x = right + 14 + STEP * free
        parts.append(f'<path d="M{right},{y1} H{x} V{y2} H{right + 4}"/>')
    for number, (name, kind, shape) in enumerate([("input", "", ""), *layers]):
        y = (number + 0.5) * ROW
        parts.append(f'<rect x="{LEFT}" y="{y - 9}" width="{WIDTH}" height="18" rx="3"/>')
        for x, anchor, text in ((8, "start", name), (WIDTH - 130, "end", kind), (WIDTH - 8, "end", shape)):
            parts.append(f'<text x="{LEFT + x}" y="{y + 4}" text-anchor="{anchor}">{escape(text)}</text>')
    size = f'width="{right + 30 + STEP * len(lanes)}" height="{(len(layers) + 1) * ROW + 10}"'
    style = (
        "<style>rect{fill:#fdfaf3;stroke:#8a7f6d}text{font:11px sans-serif;fill:#222}"
        "path{fill:none;stroke:#a03020;marker-end:url(#a)}</style>"
        '<defs><marker id="a" orient="auto" markerWidth="6" markerHeight="6" refX="5" refY="3">'
        '<path d="M0,0 L6,3 L0,6 z" style="fill:#a03020;stroke:none;marker-end:none"/></marker></defs>'
    )
    atomic_write(path, f'<svg xmlns="http://www.w3.org/2000/svg" {size}>{style}{"".join(parts)}</svg>\n')
