"""The poet: token ids -> embedding -> backbone -> token ids. It knows no text; that is data/vocabulary.py's.

Shapes: B poems, T positions, V characters in the vocabulary, E embedding width, H hidden width, A attention width,
N counted positions.
"""

from collections.abc import Iterable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from models.basemodule import BaseModule, check_shape
from models.seen_verses import add_verses, has_verse
from utils.errors import UserError

State = tuple[Tensor, ...]  # what a backbone remembers of the characters so far; its own business


class Poet(BaseModule):
    """Embedding, a backbone (LSTM or Transformer), output tied to the embedding.

    Tying (Press & Wolf 2017, Inan et al. 2017) saves V x E parameters and learns faster: with it a vocabulary of
    8,000 characters costs as much as an LSTM layer instead of half the network.

    Args:
        vocab: the characters by id; stored here so that the file alone can write poems.
        backbone: "lstm" or "transformer".
        embed, layers, dropout: E, number of layers, dropout on the inputs and outputs of each layer.
        hidden: H, width of the LSTM or of the Transformer's feed-forward layers.
        attention: A of the attention over the poem so far that follows the LSTM; 0: none.
        seen_bytes: size of the filter that knows the verses of the training corpus.
        tied: False: the output has weights of its own, behind the LSTM itself; for networks that were trained so.
    """

    def __init__(
        self,
        vocab: list[str],
        embed: int = 192,
        hidden: int = 384,
        layers: int = 2,
        dropout: float = 0.2,
        backbone: str = "lstm",
        attention: int = 192,
        seen_bytes: int = 0,
        tied: bool = True,
    ):
        super().__init__(
            vocab=vocab, embed=embed, hidden=hidden, layers=layers, dropout=dropout, backbone=backbone,
            attention=attention, seen_bytes=seen_bytes, **({} if tied else {"tied": False}),
        )  # fmt: skip
        self.vocab = vocab
        self.embed = nn.Embedding(len(vocab), embed)
        if not tied:
            self.output_weight = nn.Parameter(torch.empty(len(vocab), hidden).normal_(std=hidden**-0.5))
        if backbone == "lstm":
            self.backbone = RecurrentBackbone(embed, hidden, layers, dropout, attention, project=tied)
        else:
            self.backbone = TransformerBackbone(embed, hidden, layers, dropout)
        self.output_bias = nn.Parameter(torch.zeros(len(vocab)))
        self.dropout = nn.Dropout(dropout)
        self.register_buffer("seen_verses", torch.zeros(seen_bytes, dtype=torch.uint8))
        # Wide enough that Adam's first steps (lr each) are small against it; 0.06 and 1 both learn more slowly.
        nn.init.normal_(self.embed.weight, std=0.3)

    def forward(
        self, ids: Tensor, state: State | None = None, targets: Tensor | None = None, poem: Tensor | None = None
    ) -> dict[str, Tensor | State]:
        """ids (B, T) and the state so far (none: the start) -> {"features": (B, T, E; untied: H), "state"}.

        `poem` (B, T) numbers the poems of a sequence: attention stays within each; None: it is one poem. With targets
        (B, T), negative where nothing is to be predicted, also {"nll": their summed negative log-likelihood in nats,
        "count": their number}; other positions cost neither time nor loss.
        """
        for tensor, name in ((targets, "targets"), (poem, "poem")):
            if tensor is not None:
                check_shape(tensor, ids.shape, name)
        x = self.dropout(self.embed(ids))  # (B, T) -> (B, T, E)
        features, state = self.backbone(x, state, poem)  # -> (B, T, E)
        output = {"features": features, "state": state}
        if targets is not None:
            counted = targets >= 0
            nll = LinearCrossEntropy.apply(
                features[counted], self.output, self.output_bias, targets[counted], torch.is_grad_enabled()
            )  # (N, E), (V, E), (V), (N) -> scalar
            output |= {"nll": nll, "count": counted.sum()}
        return output

    @property
    def output(self) -> Tensor:
        """The weights of the output (V, E; untied: H)."""
        return self.embed.weight if self.arguments.get("tied", True) else self.output_weight

    def logits(self, features: Tensor) -> Tensor:
        """features (..., E; untied: H) -> logits (..., V)."""
        return F.linear(features, self.output, self.output_bias)

    def select(self, state: State, rows: Tensor) -> State:
        """The state of poems `rows` (N), which may repeat, leave out and reorder those of `state`."""
        return self.backbone.select(state, rows)

    def init_output_bias(self, counts: Tensor) -> None:
        """Sets the output's bias to the log frequency of each character, counts (V): it is learnt first anyway."""
        counts = counts.float() + 0.1  # no character is impossible
        self.output_bias.data.copy_((counts / counts.sum()).log())

    @torch.no_grad()
    def start_from(self, other: "Poet") -> list[str]:
        """Takes over the weights of `other`: by character where there is a row a character, else where names and shapes
        fit. Those of an LSTM of fewer channels stand in a corner, and what is new has no effect yet (Chen et al. 2016,
        Net2Net). Returns the names of those that were left as they are."""
        mine, theirs = self.state_dict(), other.state_dict()
        ids = {c: i for i, c in enumerate(other.vocab)}
        pairs = [(i, ids[c]) for i, c in enumerate(self.vocab) if c in ids]
        rows, other_rows = (torch.tensor(numbers) for numbers in zip(*pairs, strict=True))
        left = []
        for name, tensor in mine.items():
            source = theirs.get(name)
            if source is None or name == "seen_verses" or not _fits(name, source, tensor):
                left.append(name)
                continue
            columns = tuple(slice(0, size) for size in source.shape[1:])
            if name in BY_CHARACTER:
                tensor[(rows, *columns)] = source[other_rows]
                continue
            if 0 in GROWS.get(name, ()):  # features: new ones begin as zeros
                tensor.zero_()
            parts = 4 if "lstm" in name else 1  # of the LSTM's gates
            corner = tensor.unflatten(0, (parts, -1))[:, : len(source) // parts]  # a view
            corner.zero_()
            corner[(..., *columns)] = source.unflatten(0, (parts, -1))
        return left

    def remember(self, verses: Iterable[str]) -> None:
        """Adds verses (without punctuation) to those that stand in the training corpus."""
        add_verses(self.seen_verses.cpu().numpy(), verses)  # on the CPU: the same memory

    def seen(self, verses: Iterable[str]) -> list[bool]:
        """Whether each verse stands in the training corpus; wrong for 2 of 100 that do not."""
        filter = self.seen_verses.cpu().numpy()
        return [has_verse(filter, verse) for verse in verses]


BY_CHARACTER = ("embed.weight", "output_bias")  # a row for each
# The dimensions in which weights may be larger than those they start from, besides the LSTM's, which all may be. The
# attention's own width stays: its heads lie behind each other.
GROWS = {
    "embed.weight": (1,),
    "backbone.project.weight": (0, 1),
    "backbone.project.bias": (0,),
    "backbone.attention.qkv.weight": (1,),
    "backbone.attention.output.weight": (0,),
}


def _fits(name: str, source: Tensor, tensor: Tensor) -> bool:
    """Whether weights have the shape of those that they are to start from, or have grown from it where they may."""
    grows = (0, 1) if name.startswith("backbone.lstm") else GROWS.get(name, ())
    sizes = list(enumerate(zip(source.shape, tensor.shape, strict=True)))[name in BY_CHARACTER :]
    return all(a == b or (a < b and dimension in grows) for dimension, (a, b) in sizes)


class RecurrentBackbone(nn.Module):
    """An LSTM, attention over its outputs so far, and (`project`) a linear step back to the embedding's width.

    The attention (one layer, as Merity 2019 adds to an LSTM) looks back at the title, at the keywords and at the verse
    that the present one answers; the LSTM alone forgets them.
    """

    def __init__(self, embed: int, hidden: int, layers: int, dropout: float, attention: int, project: bool = True):
        super().__init__()
        self.lstm = nn.LSTM(embed, hidden, layers, batch_first=True, dropout=dropout if layers > 1 else 0.0)
        self.project = nn.Linear(hidden, embed) if project else nn.Identity()
        self.attention = SelfAttention(hidden, attention, embed) if attention else None
        self.dropout = nn.Dropout(dropout)
        if attention:
            nn.init.zeros_(self.attention.output.weight)  # at first there is the LSTM alone

    def forward(self, x: Tensor, state: State | None, poem: Tensor | None) -> tuple[Tensor, State]:
        """x (B, T, E) -> features (B, T, E or H) and the state: h, c of the LSTM, (layers, B, H); keys and values."""
        one_step = state is not None and x.shape[1] == 1 and not self.training
        h, memory = self._step(x, state) if one_step else self.lstm(x, state and state[:2])  # (B, T, E) -> (B, T, H)
        h = self.dropout(h)
        features = self.project(h)  # -> (B, T, E)
        if self.attention is None:
            return features, memory
        found, cache = self.attention(h, state and state[2:], poem)
        return features + self.dropout(found), (*memory, *cache)

    def _step(self, x: Tensor, state: State) -> tuple[Tensor, State]:
        """What the LSTM makes of one step: nn.LSTM would arrange all its weights anew for it, most of the time."""
        h, memory = x[:, 0], []  # (B, E)
        for *before, weights in zip(*state[:2], self.lstm.all_weights, strict=True):
            h, c = torch.lstm_cell(h, before, *weights)  # (B, H), (B, H)
            memory.append((h, c))
        return h[:, None], tuple(torch.stack(layers) for layers in zip(*memory, strict=True))

    def select(self, state: State, rows: Tensor) -> State:
        return (*(s[:, rows] for s in state[:2]), *(s[rows] for s in state[2:]))


class SelfAttention(nn.Module):
    """Causal attention with heads of about 64 channels (Vaswani et al. 2017), within each poem of a sequence.

    Args: channels in, inside (A) and out; `rotary`: turns queries and keys by their position (Su et al. 2021).
    """

    def __init__(self, channels: int, inside: int, out: int, rotary: bool = False):
        super().__init__()
        self.heads = next(h for h in range(max(1, inside // 64), 0, -1) if inside % (2 * h) == 0 or h == 1)
        self.rotary = rotary
        self.qkv = nn.Linear(channels, 3 * inside, bias=False)
        self.output = nn.Linear(inside, out, bias=False)

    def forward(self, x: Tensor, cache: State | None, poem: Tensor | None) -> tuple[Tensor, State]:
        """x (B, T, C), keys and values of what came before, poem (B, T) -> (B, T, out), keys and values so far."""
        b, t, _ = x.shape
        q, k, v = self.qkv(x).view(b, t, 3, self.heads, -1).permute(2, 0, 3, 1, 4)  # each (B, heads, T, A/heads)
        past = cache[0].shape[2] if cache else 0
        if self.rotary:
            q, k = rotate(q, past), rotate(k, past)
        if cache:
            k, v = torch.cat([cache[0], k], 2), torch.cat([cache[1], v], 2)
        mask = torch.ones(t, past + t, dtype=torch.bool, device=x.device).tril(past)  # (T, past + T)
        if poem is not None:
            mask = mask & (poem[:, None, :, None] == poem[:, None, None, :])  # (B, 1, T, T)
        found = F.scaled_dot_product_attention(q, k, v, attn_mask=mask)  # (B, heads, T, A/heads)
        return self.output(found.transpose(1, 2).reshape(b, t, -1)), (k, v)


def rotate(x: Tensor, past: int) -> Tensor:
    """Rotary position embedding of x (B, heads, T, D), whose first position is number `past`."""
    half = x.shape[-1] // 2
    frequency = 1000.0 ** -(torch.arange(half, device=x.device) / half)
    angle = torch.arange(past, past + x.shape[2], device=x.device)[:, None] * frequency  # (T, D/2)
    cos, sin = angle.cos().to(x.dtype), angle.sin().to(x.dtype)
    a, b = x[..., :half], x[..., half:]
    return torch.cat([a * cos - b * sin, a * sin + b * cos], -1)


class TransformerBackbone(nn.Module):
    """Layers of attention and feed-forward networks, normalised at their inputs (Xiong et al. 2020)."""

    def __init__(self, embed: int, hidden: int, layers: int, dropout: float):
        super().__init__()
        if embed % 2:
            raise UserError("the width of a Transformer must be even", embed=embed)
        self.attention = nn.ModuleList(SelfAttention(embed, embed, embed, rotary=True) for _ in range(layers))
        self.feed_forward = nn.ModuleList(
            nn.Sequential(nn.Linear(embed, hidden), nn.GELU(), nn.Linear(hidden, embed)) for _ in range(layers)
        )
        self.norms = nn.ModuleList(nn.LayerNorm(embed) for _ in range(2 * layers + 1))
        self.dropout = nn.Dropout(dropout)
        nn.init.constant_(self.norms[-1].weight, 0.2)  # the logits are large otherwise
        for block in (*self.attention, *self.feed_forward):  # so that the sum over all layers starts small
            last = block.output if isinstance(block, SelfAttention) else block[-1]
            nn.init.normal_(last.weight, std=0.02 / (2 * layers) ** 0.5)

    def forward(self, x: Tensor, state: State | None, poem: Tensor | None) -> tuple[Tensor, State]:
        """x (B, T, E) -> features (B, T, E) and the state: keys and values of each layer."""
        caches: list[Tensor] = []
        for i, (attention, feed_forward) in enumerate(zip(self.attention, self.feed_forward, strict=True)):
            found, cache = attention(self.norms[2 * i](x), state and state[2 * i : 2 * i + 2], poem)
            x = x + self.dropout(found)
            x = x + self.dropout(feed_forward(self.norms[2 * i + 1](x)))
            caches += cache
        return self.norms[-1](x), tuple(caches)

    def select(self, state: State, rows: Tensor) -> State:
        return tuple(s[rows] for s in state)


class LinearCrossEntropy(torch.autograd.Function):
    """`F.cross_entropy(F.linear(x, weight, bias), targets, reduction="sum")` without ever holding all logits.

    The logits of a batch (N x V; 2,000 positions x 8,000 characters are 64 MB) are made, turned into the loss AND into
    their gradient piece by piece while a piece is still in the cache; the gradients wait in memory until backward.
    The products run in autocast's precision, the softmax and the sums in float32. `wanted`: whether the gradients are
    needed at all (inside a Function torch does not tell).
    """

    PIECE = 256  # positions at a time: 8 MB of float32 logits
    # oneDNN keeps what it compiles for each shape of a 16-bit product, some 10 MB each and up to a thousand: a last
    # piece of any length would need 20 GB after 300 batches.
    MULTIPLE = 32

    @staticmethod
    def forward(ctx, x: Tensor, weight: Tensor, bias: Tensor, targets: Tensor, wanted: bool = True) -> Tensor:
        device = x.device.type
        dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else x.dtype
        with torch.autocast(device, enabled=False):
            padding = 0 if dtype == torch.float32 else -len(x) % LinearCrossEntropy.MULTIPLE
            w, xs, targets = weight.to(dtype), F.pad(x.to(dtype), (0, 0, 0, padding)), F.pad(targets, (0, padding))
            grad_x, grad_weight, grad_bias = (torch.zeros_like(t, dtype=torch.float32) for t in (xs, weight, bias))
            total = torch.zeros((), dtype=torch.float32, device=x.device)
            for start in range(0, len(xs), LinearCrossEntropy.PIECE):
                piece = slice(start, start + LinearCrossEntropy.PIECE)
                logits = (xs[piece] @ w.T).float() + bias.float()  # (P, V)
                index = targets[piece, None]
                target_logits = logits.gather(1, index)  # (P, 1)
                delta = logits.softmax(1)
                # log Z without a second pass of exponentials, exact also where the target's probability underflows
                log_z = logits.amax(1, keepdim=True) - delta.amax(1, keepdim=True).log()  # (P, 1)
                total += (log_z - target_logits)[: len(x) - start].sum()
                if wanted:
                    delta.scatter_add_(1, index, torch.full_like(log_z, -1.0))  # softmax minus the one-hot target
                    delta[len(x) - start :] = 0  # the padding
                    grad_bias += delta.sum(0)
                    delta = delta.to(dtype)
                    grad_x[piece] = (delta @ w).float()
                    if dtype == torch.float32:
                        grad_weight.addmm_(delta.T, xs[piece])  # adds while it multiplies: 8 MB less to move
                    else:
                        grad_weight += (delta.T @ xs[piece]).float()
        if wanted:
            grads = (grad_x[: len(x)], x), (grad_weight, weight), (grad_bias, bias)
            ctx.save_for_backward(*(grad.to(tensor.dtype) for grad, tensor in grads))
        return total

    @staticmethod
    def backward(ctx, grad: Tensor) -> tuple[Tensor, Tensor, Tensor, None, None]:
        grad_x, grad_weight, grad_bias = ctx.saved_tensors
        return grad_x * grad, grad_weight * grad, grad_bias * grad, None, None
