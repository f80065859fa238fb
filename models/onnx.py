"""Writing a painter as an ONNX file, for programs without PyTorch: what TransformerNet.forward computes."""

import copy
import warnings
from pathlib import Path

import torch
from torch import Tensor, nn

from models.transformer_net import TransformerNet
from utils.files import atomic_write, check_writable

SMALLEST = 5  # pixels: a shorter side is too short for the first convolution's reflection


def export_onnx(model: TransformerNet, path: str | Path, style: str) -> None:
    """Writes the network to `path`, in float32, its style as metadata.

    `image` (batch, 3, height, width) in 0..1, sides of at least SMALLEST -> `painting`, of that shape, clamped to 0..1.
    Raises UserError if the place cannot be written.
    """
    check_writable(path)
    painter = copy.deepcopy(model).float().cpu().eval()
    # Nothing is computed with it; but equal sizes, and a size of 1, would be taken for constants.
    example = (torch.zeros(2, 3, 64, 68),)
    batch = torch.export.Dim("batch")
    height, width = (torch.export.Dim(name, min=SMALLEST) for name in ("height", "width"))
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the exporter's, about itself
        program = torch.onnx.export(
            _Clamped(painter),
            example,
            input_names=["image"],
            output_names=["painting"],  # the names of inputs and outputs must differ
            dynamic_shapes=({0: batch, 2: height, 3: width},),
            dynamo=True,
            verbose=False,
        )
    proto = program.model_proto
    for part in (*proto.graph.node, *proto.graph.value_info, *proto.graph.input, *proto.graph.output):
        del part.metadata_props[:]  # where in which file on this machine each operation was called
    for axis, name in ((2, "height"), (3, "width")):  # the exporter's own expressions for these are long
        proto.graph.output[0].type.tensor_type.shape.dim[axis].dim_param = name
    proto.metadata_props.add(key="style", value=style)
    atomic_write(path, proto.SerializeToString())


class _Clamped(nn.Module):
    """The painter as a function from tensors to a tensor: a painting in 0..1."""

    def __init__(self, painter: TransformerNet):
        super().__init__()
        self.painter = painter

    def forward(self, image: Tensor) -> Tensor:
        return self.painter(image)["image"].clamp(0, 1)
