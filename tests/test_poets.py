"""infer/verse/model_file.py: pytorch-book's poet with its tang.npz, against a plain version of that network."""

import json

import numpy as np
import pytest
import torch
from torch import nn

import main
from data.verse import verses
from infer.verse.model_file import load_poet
from models.poet import Poet

CHARACTERS = [*(chr(0x4E00 + i) for i in range(300)), "，", "。", "<EOP>", "<START>", "</s>"]
IDS = {c: i for i, c in enumerate(CHARACTERS)}


class BookPoet(nn.Module):
    """The network as the book describes it: embedding 128, LSTM 2 x 256, a linear layer; sequences first."""

    def __init__(self, size: int):
        super().__init__()
        self.embeddings = nn.Embedding(size, 128)
        self.lstm = nn.LSTM(128, 256, num_layers=2)
        self.linear1 = nn.Linear(256, size)

    def forward(self, ids):
        """ids (T, B) -> logits (T, B, V)."""
        return self.linear1(self.lstm(self.embeddings(ids))[0])


@pytest.fixture
def book(tmp_path):
    """(the network, the file of its weights); tang.npz lies beside it."""
    torch.manual_seed(0)
    network = BookPoet(len(CHARACTERS))
    path = tmp_path / "tang_199.pth"
    torch.save(network.state_dict(), path)
    words = {"word2ix": np.array(IDS, dtype=object), "ix2word": np.array(dict(enumerate(CHARACTERS)), dtype=object)}
    np.savez_compressed(tmp_path / "tang.npz", data=np.full((2, 125), IDS["</s>"], np.int32), **words)
    return network, path


@torch.no_grad()
def test_its_logits_are_those_of_the_plain_network_also_as_a_file_of_ours(book, tmp_path):
    network, path = book
    load_poet(path).save(tmp_path / "book.safetensors")
    model = Poet.load(tmp_path / "book.safetensors")
    ids = torch.randint(0, 300, (3, 20))
    ids[:, 0] = IDS["<START>"]
    assert model.vocab[IDS["<START>"]] == "<bos>" and model.vocab[:300] == CHARACTERS[:300]
    whole = model(ids)
    expected = network(ids.T).transpose(0, 1)  # (B, T, V)
    torch.testing.assert_close(model.logits(whole["features"])[..., :-1], expected, atol=1e-5, rtol=1e-5)
    probabilities = model.logits(whole["features"]).softmax(-1)
    assert probabilities[..., -1].max() == 0  # the sign that it has not
    first = model(ids[:, :9])
    rest = model(ids[:, 9:], first["state"])  # as poems are written, one sign after the other
    torch.testing.assert_close(rest["features"], whole["features"][:, 9:], atol=1e-5, rtol=1e-5)
    targets = ids[:, 1:]
    nll = model(ids[:, :-1], targets=targets)["nll"]
    plain = nn.functional.cross_entropy(expected[:, :-1].flatten(0, 1), targets.flatten(), reduction="sum")
    torch.testing.assert_close(nll, plain, rtol=1e-4, atol=1e-3)


def test_generate_and_check_take_it(book, capsys):
    _, path = book
    words = ["generate", f"--load={path}", "--json", "--seed=1", "--candidates=2"]
    assert main.main([*words, "--form=五绝", "--acrostic=一丁", "--noregular"]) == 0
    poem = json.loads(capsys.readouterr().out)
    lines = verses("".join(poem["lines"]))
    assert [len(v) for v in lines] == [5] * 4 and lines[0][0] == "一" and lines[1][0] == "丁"
    assert main.main([*words, "--prompt=一丁", "--max_chars=12"]) == 0
    assert json.loads(capsys.readouterr().out)["lines"][0].startswith("一丁")
    assert main.main([*words, "--title=春"]) == 2
    assert "--title: needs a poet that has learnt" in capsys.readouterr().err


def test_what_is_missing_is_said_in_a_line(book, capsys, tmp_path):
    _, path = book
    words = tmp_path / "tang.npz"
    content = words.read_bytes()

    def refusal() -> str:
        assert main.main(["generate", f"--load={path}"]) == 2
        err = capsys.readouterr().err
        assert err.count("\n") == 1
        return err

    words.unlink()
    assert "put tang.npz beside it" in refusal()
    words.write_bytes(content[:-500])
    assert "tang.npz is not the book's tang.npz" in refusal()
    few = np.array(dict(enumerate(CHARACTERS[2:])), dtype=object)
    np.savez(words, data=np.zeros((1, 125), int), ix2word=few)
    assert "305 characters" in refusal()
    torch.save({"linear1.weight": torch.zeros(2)}, path)
    assert "is not a model file" in refusal()
