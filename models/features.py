"""What the layers of any network put out, by name. Nothing is trained here, and the network stays as it is.

Loss networks, which stop after the last layer that is needed, are in models/vgg.py.
"""

from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn

from utils.errors import UserError, did_you_mean


def layer_features(model: nn.Module, layers: Sequence[str], *inputs: Any, **named_inputs: Any) -> dict[str, Any]:
    """Runs `model(*inputs, **named_inputs)` once -> {layer: its output}, in the order of `layers`.

    Args:
        layers: names as in model.named_modules(), such as "layer3.0.conv1".

    Train or eval mode and gradients are as the caller has set them. Tensors are copies: a ReLU in place that follows a
    layer would change them. A layer that runs several times gives its last output. Raises UserError for a name that is
    none, KeyError for a layer that did not run.
    """
    modules = dict(model.named_modules())
    found: dict[str, Any] = {}

    def keep(name: str) -> Any:
        def hook(module: nn.Module, inputs: Any, output: Any) -> None:
            found[name] = output.clone() if isinstance(output, Tensor) else output

        return hook

    for name in layers:
        if name not in modules:
            raise UserError(f"{type(model).__name__} has no layer {name!r}{did_you_mean(name, modules)}")
    hooks = [modules[name].register_forward_hook(keep(name)) for name in layers]
    try:
        model(*inputs, **named_inputs)
    finally:
        for hook in hooks:
            hook.remove()
    return {name: found[name] for name in layers}
