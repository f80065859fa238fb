"""Writing a painter as an ONNX file, for programs without PyTorch. Nothing is painted here.

The network in the file is the function that TransformerNet.forward is, for pictures of any size. Reading pictures, and
painting large ones in bounded memory, is the other program's business.
"""

import copy
import json
import warnings
from pathlib import Path

import torch
from torch import Tensor, nn

from models.transformer_net import TransformerNet
from utils.files import atomic_write

SMALLEST = 5  # pixels: a shorter side is too short for the first convolution's reflection


def export_onnx(model: TransformerNet, path: str | Path) -> None:
    """Writes the network to `path`, in float32.

    Inputs: `image` (batch, 3, height, width) in 0..1, sides of at least SMALLEST, and `style` (batch, S), the shares
    of the rows as from `model.mixture`; where each row has layers of its own, the first picture's are for all of the
    batch. Output: `painting` (batch, 3, height, width), clamped to 0..1. Batch, height and width are free. Metadata, as
    JSON: `styles`, the names in the order of the rows, and `identity`, whether one more row follows them that paints
    the photograph as it is. Raises UserError if the place cannot be written.
    """
    painter = copy.deepcopy(model).float().cpu().eval()
    # Nothing is computed with it; but equal sizes, and a size of 1, would be taken for constants.
    rows = len(painter.styles) + painter.identity
    example = torch.zeros(2, 3, 64, 68), torch.zeros(2, rows)
    batch = torch.export.Dim("batch")
    height, width = (torch.export.Dim(name, min=SMALLEST) for name in ("height", "width"))
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the exporter's, about itself
        program = torch.onnx.export(
            _Clamped(painter),
            example,
            input_names=["image", "style"],
            output_names=["painting"],  # the names of inputs and outputs must differ
            dynamic_shapes=({0: batch, 2: height, 3: width}, {0: batch}),
            dynamo=True,
            verbose=False,
        )
    proto = program.model_proto
    for part in (*proto.graph.node, *proto.graph.value_info, *proto.graph.input, *proto.graph.output):
        del part.metadata_props[:]  # where in which file on this machine each operation was called
    for axis, name in ((2, "height"), (3, "width")):  # the exporter's own expressions for these are long
        proto.graph.output[0].type.tensor_type.shape.dim[axis].dim_param = name
    for key, value in (("styles", painter.styles), ("identity", painter.identity)):
        proto.metadata_props.add(key=key, value=json.dumps(value, ensure_ascii=False))
    atomic_write(path, proto.SerializeToString())


class _Clamped(nn.Module):
    """The painter as a function from tensors to a tensor: a painting in 0..1."""

    def __init__(self, painter: TransformerNet):
        super().__init__()
        self.painter = painter

    def forward(self, image: Tensor, style: Tensor) -> Tensor:
        return self.painter(image, style)["image"].clamp(0, 1)
