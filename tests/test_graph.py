"""board/graph.py: the edges between layers, on networks whose graph is known by hand."""

from xml.etree import ElementTree

import torch
from torch import nn

import main
from board.graph import draw_graph, layer_graph
from models.resnet34 import ResNet34


class Branches(nn.Module):
    """a -> b; a + b -> c; c used twice: d(cat(c, c(c)))."""

    def __init__(self):
        super().__init__()
        self.a, self.b, self.c, self.d = nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(8, 1)

    def forward(self, x):
        a = self.a(x)
        c = self.c((a + self.b(a.relu())).tanh())
        return {"out": self.d(torch.cat([c, self.c(c)], -1))}


def test_edges_by_hand():
    layers, edges = layer_graph(Branches(), {"x": torch.randn(2, 4)})
    assert [name for name, _, _ in layers] == ["a", "b", "c", "c", "d"]
    assert edges == [(-1, 0), (0, 1), (0, 2), (1, 2), (2, 3), (2, 4), (3, 4)]
    assert layers[4] == ("d", "Linear", "2 × 1")


def test_the_shortcuts_of_a_residual_network():
    layers, edges = layer_graph(ResNet34(["cat", "dog"]), {"image": torch.rand(1, 3, 64, 64)})
    names = [name for name, _, _ in layers]
    into = {names[target]: {names[source] for source, t in edges if t == target} for _, target in edges}
    assert into["layer1.0.conv1"] == {"maxpool"} and into["layer1.1.conv1"] == {"layer1.0.bn2", "maxpool"}
    assert into["layer2.1.conv1"] == {"layer2.0.bn2", "layer2.0.downsample.1"}


def test_the_picture(tmp_path):
    draw_graph(tmp_path / "graph.svg", Branches(), {"x": torch.randn(2, 4)})
    tree = ElementTree.parse(tmp_path / "graph.svg").getroot()
    texts = [t.text for t in tree.iter("{http://www.w3.org/2000/svg}text")]
    assert texts[0] == "input" and [t for t in texts if t and t in "abcd"] == ["a", "b", "c", "c", "d"]
    paths = [p for p in tree.findall("{http://www.w3.org/2000/svg}path")]
    assert len(paths) == 7


def test_the_command(tmp_path, capsys):
    assert main.main(["summary", f"--graph={tmp_path / 'poet.svg'}", "--embed=8", "--hidden=8"]) == 0
    assert "LSTM" in (tmp_path / "poet.svg").read_text() and "poet.svg" in capsys.readouterr().err
