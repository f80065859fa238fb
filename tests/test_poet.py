"""models/poet.py: the loss in pieces equals the plain one, and one step at a time equals the whole sequence."""

import math

import pytest
import torch
from torch.nn import functional as F

from models.poet import LinearCrossEntropy, Poet

VOCAB = [chr(0x4E00 + i) for i in range(50)]


@pytest.mark.parametrize("n", [1, 7, LinearCrossEntropy.PIECE, LinearCrossEntropy.PIECE + 3])
def test_linear_cross_entropy_equals_the_plain_formula(n):
    generator = torch.Generator().manual_seed(n)
    x, weight, bias = (torch.randn(*s, generator=generator, dtype=torch.float64) for s in ((n, 8), (50, 8), (50,)))
    x, weight, bias = ((3 * t).float().requires_grad_() for t in (x, weight, bias))
    targets = torch.randint(50, (n,), generator=generator)
    expected = F.cross_entropy(F.linear(x, weight, bias), targets, reduction="sum")
    wanted = torch.autograd.grad(2.5 * expected, (x, weight, bias))
    loss = LinearCrossEntropy.apply(x, weight, bias, targets)
    found = torch.autograd.grad(2.5 * loss, (x, weight, bias))
    torch.testing.assert_close(loss, expected)
    for a, b in zip(found, wanted, strict=True):
        torch.testing.assert_close(a, b, atol=1e-4, rtol=1e-4)


def test_linear_cross_entropy_is_finite_where_the_softmax_underflows():
    x = torch.tensor([[1.0]], requires_grad=True)
    weight = torch.tensor([[500.0], [0.0]], requires_grad=True)
    loss = LinearCrossEntropy.apply(x, weight, torch.zeros(2), torch.tensor([1]))
    assert loss.item() == pytest.approx(500)
    loss.backward()
    assert x.grad.item() == pytest.approx(500)


def test_no_gradients_are_made_where_none_are_wanted(monkeypatch):
    model = Poet(VOCAB, embed=12, hidden=20)
    ids = torch.randint(50, (2, 9))
    made = []
    monkeypatch.setattr(torch.Tensor, "scatter_add_", lambda self, *args: made.append(1) or self)
    with torch.no_grad():
        model(ids, targets=ids)
    assert not made
    model(ids, targets=ids)
    assert made


def test_linear_cross_entropy_of_nothing_is_zero():
    x, weight = torch.zeros(0, 4, requires_grad=True), torch.randn(9, 4, requires_grad=True)
    loss = LinearCrossEntropy.apply(x, weight, torch.zeros(9), torch.zeros(0, dtype=torch.long))
    loss.backward()
    assert loss.item() == 0 and not weight.grad.any()


def test_linear_cross_entropy_in_bf16_is_near():
    x, weight = torch.randn(300, 16), torch.randn(50, 16)
    targets = torch.randint(50, (300,))
    expected = F.cross_entropy(x @ weight.T, targets, reduction="sum")
    with torch.autocast("cpu", torch.bfloat16):
        loss = LinearCrossEntropy.apply(x, weight, torch.zeros(50), targets)
    assert loss.dtype == torch.float32
    torch.testing.assert_close(loss, expected, rtol=0.01, atol=1)


def test_one_step_at_a_time_equals_the_whole_sequence():
    model = Poet(VOCAB, embed=12, hidden=20).eval()
    ids = torch.randint(50, (3, 11))
    whole = model(ids)["features"]
    state, steps = None, []
    for t in range(11):
        output = model(ids[:, t : t + 1], state)
        state = output["state"]
        steps.append(output["features"])
    torch.testing.assert_close(torch.cat(steps, 1), whole)


def test_padding_costs_no_loss_and_changes_nothing():
    model = Poet(VOCAB, embed=12, hidden=20).eval()
    ids, targets = torch.randint(50, (2, 9)), torch.randint(50, (2, 9))
    targets[:, 6:] = -1
    short = model(ids[:, :6], targets=targets[:, :6])
    padded = model(ids, targets=targets)
    assert padded["count"] == 12
    torch.testing.assert_close(short["nll"], padded["nll"])
    logits = model.logits(short["features"])
    expected = F.cross_entropy(logits.flatten(0, 1), targets[:, :6].flatten(), reduction="sum")
    torch.testing.assert_close(short["nll"], expected)


def test_every_parameter_learns():
    model = Poet(VOCAB, embed=12, hidden=20)
    ids = torch.randint(50, (4, 9))
    model(ids, targets=ids)["nll"].backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None and parameter.grad.abs().sum() > 0, name


def test_start_from_frequencies_predicts_the_frequencies():
    model = Poet(VOCAB, embed=12, hidden=20)
    counts = torch.arange(50)
    model.start_from_frequencies(counts)
    model.embed.weight.data.zero_()
    log_p = model.logits(torch.zeros(1, 12)).log_softmax(-1)[0]
    torch.testing.assert_close(log_p.exp(), (counts + 0.1) / (counts + 0.1).sum())


def test_an_untrained_network_knows_nothing():
    model = Poet(VOCAB, embed=12, hidden=20).eval()
    ids = torch.randint(50, (64, 20))
    output = model(ids, targets=torch.randint(50, (64, 20)))
    assert output["nll"].item() / output["count"].item() == pytest.approx(math.log(50), rel=0.1)
