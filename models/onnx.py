"""Writing a painter or a classifier as an ONNX file, for programs without PyTorch."""

import copy
import json
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from models.classifier import Classifier
from models.transformer_net import TransformerNet
from utils.files import atomic_write, check_writable

SMALLEST = 5  # pixels: a shorter side is too short for the first convolution's reflection


def export_painter(model: TransformerNet, path: str | Path, style: str) -> None:
    """Writes the network to `path`, in float32, its style as metadata.

    `image` (batch, 3, height, width) in 0..1, sides of at least SMALLEST -> `painting`, of that shape, clamped to 0..1.
    Raises UserError if the place cannot be written.
    """
    height, width = (torch.export.Dim(name, min=SMALLEST) for name in ("height", "width"))
    # Nothing is computed with it; but equal sizes, and a size of 1, would be taken for constants.
    example = torch.zeros(2, 3, 64, 68)
    _export(_Clamped(model), path, example, ["painting"], {2: height, 3: width}, {"style": style})


def export_classifier(model: Classifier, path: str | Path, temperature: float) -> None:
    """Writes the network to `path`, in float32, its classes and the side of its pictures as metadata.

    `image` (batch, 3, S, S) in 0..1 -> `probabilities` (batch, K) of one view, calibrated; of a network that knows more
    also `imagenet` (batch, 1000). Raises UserError if the place cannot be written.
    """
    size, recognises = model.image_size, model.recognises
    facts = {"classes": json.dumps(model.classes, ensure_ascii=False), "image_size": str(size)}
    outputs = ["probabilities", *(["imagenet"] if recognises else [])]
    _export(_Probabilities(model, temperature, recognises), path, torch.zeros(2, 3, size, size), outputs, {}, facts)


def _export(
    model: nn.Module, path: str | Path, example: Tensor, outputs: Sequence[str], sides: dict[int, Any], facts: dict
) -> None:
    """Writes what `model` makes of pictures such as `example` (B, 3, H, W), whose B and `sides` may be others."""
    check_writable(path)
    model = copy.deepcopy(model).float().cpu().eval()
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the exporter's, about itself
        program = torch.onnx.export(
            model,
            (example,),
            input_names=["image"],
            output_names=list(outputs),  # the names of inputs and outputs must differ
            dynamic_shapes=({0: torch.export.Dim("batch")} | sides,),
            dynamo=True,
            verbose=False,
        )
    proto = program.model_proto
    for part in (*proto.graph.node, *proto.graph.value_info, *proto.graph.input, *proto.graph.output):
        del part.metadata_props[:]  # where in which file on this machine each operation was called
    for axis, dim in sides.items():  # the exporter's own expressions for these are long
        proto.graph.output[0].type.tensor_type.shape.dim[axis].dim_param = dim.__name__
    for key, value in facts.items():
        proto.metadata_props.add(key=key, value=value)
    atomic_write(path, proto.SerializeToString())


class _Clamped(nn.Module):
    """The painter as a function from tensors to a tensor: a painting in 0..1."""

    def __init__(self, painter: TransformerNet):
        super().__init__()
        self.painter = painter

    def forward(self, image: Tensor) -> Tensor:
        return self.painter(image)["image"].clamp(0, 1)


class _Probabilities(nn.Module):
    """The classifier as a function from a tensor to tensors: probabilities."""

    def __init__(self, classifier: Classifier, temperature: float, recognises: bool):
        super().__init__()
        self.classifier, self.temperature, self.recognises = classifier, temperature, recognises

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        outputs = self.classifier(image, recognise=self.recognises)
        found = (outputs["logits"] / self.temperature).softmax(1)
        return (found, outputs["imagenet"].softmax(1)) if self.recognises else (found,)
