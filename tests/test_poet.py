"""models/poet.py: the loss in pieces equals the plain one, and one step at a time equals the whole sequence."""

import pytest
import torch
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode

from models.poet import LinearCrossEntropy, Poet, rotate
from models.seen_verses import filter_size
from utils.errors import UserError

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


class ProductShapes(TorchDispatchMode):
    """The shapes of all matrix products."""

    def __init__(self):
        super().__init__()
        self.found = set()

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        if function is torch.ops.aten.mm.default:
            self.found.add(tuple(tuple(tensor.shape) for tensor in args))
        return function(*args, **(kwargs or {}))


def test_in_16_bits_products_have_few_shapes_and_the_loss_is_that_of_float32():
    generator, shapes = torch.Generator().manual_seed(0), ProductShapes()
    weight = torch.randn(50, 8, generator=generator).bfloat16().float().requires_grad_()  # exact in 16 bits
    bias = torch.zeros(50, requires_grad=True)
    for n in range(1, LinearCrossEntropy.PIECE + 40, 7):
        x = torch.randn(n, 8, generator=generator).bfloat16().float().requires_grad_()
        targets = torch.randint(50, (n,), generator=generator)
        expected = F.cross_entropy(F.linear(x, weight, bias), targets, reduction="sum")
        with shapes, torch.autocast("cpu", torch.bfloat16):
            loss = LinearCrossEntropy.apply(x, weight, bias, targets)
        torch.testing.assert_close(loss, expected, atol=0.02, rtol=0.005)
        wanted = torch.autograd.grad(expected, (x, weight, bias))
        for found, own in zip(torch.autograd.grad(loss, (x, weight, bias)), wanted, strict=True):
            assert (found - own).norm() < 0.02 * own.norm()
    assert len(shapes.found) == 3 * LinearCrossEntropy.PIECE // LinearCrossEntropy.MULTIPLE


def test_linear_cross_entropy_of_nothing_is_zero_and_where_the_softmax_underflows_finite():
    weight = torch.tensor([[500.0], [0.0]], requires_grad=True)
    for count, expected in ((1, 500), (0, 0)):
        x, targets = torch.ones(count, 1, requires_grad=True), torch.ones(count, dtype=torch.long)
        loss = LinearCrossEntropy.apply(x, weight, torch.zeros(2), targets)
        loss.backward()
        assert loss.item() == pytest.approx(expected) and x.grad.sum().item() == pytest.approx(expected)


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


BACKBONES = [
    {"attention": 0},
    {"attention": 16},
    {"attention": 128, "layers": 1},
    {"backbone": "transformer"},
    {"backbone": "transformer", "embed": 128, "layers": 3},
]


def poet(**sizes) -> Poet:
    """A poet whose every weight matters, also those that start at zero."""
    torch.manual_seed(0)
    model = Poet(VOCAB, **{"embed": 12, "hidden": 20, **sizes})
    for parameter in model.parameters():
        parameter.data.add_(torch.randn_like(parameter) * 0.1)
    return model


@pytest.mark.parametrize("sizes", BACKBONES)
def test_one_step_at_a_time_equals_the_whole_sequence(sizes):
    model = poet(**sizes).eval()
    ids = torch.randint(50, (3, 11))
    whole = model(ids)["features"]
    state, steps = None, []
    for t in range(11):
        output = model(ids[:, t : t + 1], state)
        state = output["state"]
        steps.append(output["features"])
    torch.testing.assert_close(torch.cat(steps, 1), whole)
    first, rows = model(ids[:, :4]), torch.tensor([2, 0, 2, 2])  # what comes later changes nothing before
    rest = model(ids[rows, 4:], model.select(first["state"], rows))["features"]  # of chosen poems
    torch.testing.assert_close(torch.cat([first["features"][rows], rest], 1), whole[rows])


@pytest.mark.parametrize("sizes", [{"backbone": "transformer"}, {"backbone": "transformer", "layers": 1, "embed": 64}])
def test_attention_stays_within_a_poem_of_a_row(sizes):
    """A row of two poems gives what each of them gives by itself; the Transformer's positions are relative."""
    model = poet(**sizes).eval()
    one, other = torch.randint(50, (1, 5)), torch.randint(50, (1, 6))
    poem = torch.tensor([[0] * 5 + [1] * 6])
    together = model(torch.cat([one, other], 1), poem=poem)["features"]
    apart = torch.cat([model(one)["features"], model(other)["features"]], 1)
    torch.testing.assert_close(together, apart)
    with pytest.raises(UserError, match="embed=13: the width of a Transformer must be even"):
        Poet(VOCAB, **{**sizes, "embed": 13})


def test_attention_after_the_lstm_equals_the_plain_formula():
    model = poet(attention=128).eval()
    backbone, attention = model.backbone, model.backbone.attention
    ids, poem = torch.randint(50, (1, 7)), torch.tensor([[0, 0, 0, 1, 1, 1, 1]])
    h = backbone.lstm(model.embed(ids))[0][0]  # (T, H)
    q, k, v = attention.qkv(h).chunk(3, -1)
    expected = backbone.project(h)
    for t in range(7):
        past = [i for i in range(t + 1) if poem[0, i] == poem[0, t]]
        heads = []
        for head in (slice(0, 64), slice(64, 128)):
            share = torch.stack([q[t, head] @ k[i, head] / 8 for i in past]).softmax(0)
            heads.append(sum(s * v[i, head] for s, i in zip(share, past, strict=True)))
        expected[t] += attention.output(torch.cat(heads))
    torch.testing.assert_close(model(ids, poem=poem)["features"][0], expected)


def test_rotation_keeps_lengths_and_depends_on_distance_only():
    q, k = torch.randn(2, 1, 1, 1, 8, dtype=torch.float64)
    products = [(rotate(q, a) * rotate(k, b)).sum().item() for a, b in ((0, 0), (5, 5), (3, 1), (9, 7), (1, 3))]
    assert products[0] == pytest.approx(products[1]) == pytest.approx((q * k).sum().item())
    assert products[2] == pytest.approx(products[3]) != pytest.approx(products[4])


def test_a_poet_starts_from_another_one_by_character():
    old, ids = poet(attention=0).eval(), torch.randint(50, (2, 9))
    new = Poet(["new", *reversed(VOCAB), "more"], embed=12, hidden=20, seen_bytes=5).eval()
    left = new.start_from(old)
    assert left == ["seen_verses", "backbone.attention.qkv.weight", "backbone.attention.output.weight"]
    logits, shifted = old.logits(old(ids)["features"]), new.logits(new(50 - ids)["features"])
    torch.testing.assert_close(shifted[..., 1:-1].flip(-1), logits)
    other = Poet(VOCAB, embed=8, hidden=20)
    assert "embed.weight" in other.start_from(old) and "output_bias" not in other.start_from(old)


def test_a_larger_poet_begins_as_the_smaller_one_that_it_starts_from():
    old, ids = poet(attention=16, layers=2).eval(), torch.randint(50, (2, 9))
    larger = Poet([*reversed(VOCAB), "more"], embed=15, hidden=28, attention=16, layers=2).eval()
    assert larger.start_from(old) == ["seen_verses"]
    logits, shifted = old.logits(old(ids)["features"]), larger.logits(larger(49 - ids)["features"])
    torch.testing.assert_close(shifted[..., :-1].flip(-1), logits)
    larger.train()(ids, targets=ids)["nll"].backward()
    assert larger.backbone.project.weight.grad.ne(0).all()  # what is new begins to count
    wider = Poet(VOCAB, embed=12, hidden=20, attention=32, layers=2)
    attention = ["backbone.attention.qkv.weight", "backbone.attention.output.weight"]
    assert wider.start_from(old) == ["seen_verses", *attention]


def test_verses_that_were_seen(tmp_path):
    model = Poet(VOCAB, embed=12, hidden=20, seen_bytes=filter_size(1000))
    model.remember(f"verse {i}" for i in range(1000))
    model.save(tmp_path / "poet.safetensors", dtype=torch.float16)
    model = Poet.load(tmp_path / "poet.safetensors")
    assert all(model.seen(f"verse {i}" for i in range(1000)))
    wrong = sum(model.seen(f"other verse {i}" for i in range(4000)))
    assert 20 < wrong < 200  # 2.2 % are 88
    assert Poet(VOCAB, embed=12, hidden=20).seen(["verse 1"]) == [False]


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


@pytest.mark.parametrize("sizes", BACKBONES)
def test_every_parameter_learns(sizes):
    model = poet(**sizes)
    ids = torch.randint(50, (4, 9))
    model(ids, targets=ids)["nll"].backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None and parameter.grad.abs().sum() > 0, name


def test_init_output_bias_predicts_the_frequencies():
    model, counts = Poet(VOCAB, embed=12, hidden=20), torch.arange(50)
    model.init_output_bias(counts)
    probs = model.logits(torch.zeros(1, 12)).softmax(-1)[0]
    torch.testing.assert_close(probs, (counts + 0.1) / (counts + 0.1).sum())
