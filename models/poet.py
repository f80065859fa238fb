"""The poet: characters -> embedding -> LSTM -> characters. Knows token ids only; text is data/poetry.py's business.

Shapes: B poems, T positions, V characters in the vocabulary, E embedding width, H hidden width, N counted positions.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from models.basemodule import BaseModule

State = tuple[Tensor, Tensor]  # h and c of the LSTM, each (layers, B, H)


class Poet(BaseModule):
    """Embedding, LSTM, a linear step back to the embedding's width, output tied to the embedding.

    Tying (Press & Wolf 2017, Inan et al. 2017) saves V x E parameters and learns faster: with it a vocabulary of
    8,000 characters costs as much as an LSTM layer instead of half the network.

    Args:
        vocab: the characters by id; stored here so that the file alone can write poems.
        embed, hidden, layers, dropout: E, H, number of LSTM layers, dropout on the inputs and outputs of each layer.
    """

    def __init__(self, vocab: list[str], embed: int = 192, hidden: int = 384, layers: int = 2, dropout: float = 0.2):
        super().__init__(vocab=vocab, embed=embed, hidden=hidden, layers=layers, dropout=dropout)
        self.vocab = vocab
        self.embed = nn.Embedding(len(vocab), embed)
        self.lstm = nn.LSTM(embed, hidden, layers, batch_first=True, dropout=dropout if layers > 1 else 0.0)
        self.project = nn.Linear(hidden, embed)
        self.output_bias = nn.Parameter(torch.zeros(len(vocab)))
        self.dropout = nn.Dropout(dropout)
        # Wide enough that Adam's first steps (lr each) are small against it; 0.06 and 1 both learn more slowly.
        nn.init.normal_(self.embed.weight, std=0.3)

    def forward(
        self, ids: Tensor, state: State | None = None, targets: Tensor | None = None
    ) -> dict[str, Tensor | State]:
        """ids (B, T) and the state so far (none: the start) -> {"features": (B, T, E), "state"}.

        With targets (B, T), negative where nothing is to be predicted, also {"nll": their summed negative
        log-likelihood in nats, "count": their number}; other positions cost neither time nor loss.
        """
        x = self.dropout(self.embed(ids))  # (B, T) -> (B, T, E)
        h, state = self.lstm(x, state)  # (B, T, E) -> (B, T, H)
        features = self.project(self.dropout(h))  # -> (B, T, E)
        output = {"features": features, "state": state}
        if targets is not None:
            counted = targets >= 0
            nll = LinearCrossEntropy.apply(
                features[counted], self.embed.weight, self.output_bias, targets[counted], torch.is_grad_enabled()
            )  # (N, E), (V, E), (V), (N) -> scalar
            output |= {"nll": nll, "count": counted.sum()}
        return output

    def start_from_frequencies(self, counts: Tensor) -> None:
        """Sets the output's bias to the log frequency of each character, counts (V): it is learnt first anyway."""
        counts = counts.float() + 0.1  # no character is impossible
        self.output_bias.data.copy_((counts / counts.sum()).log())

    def logits(self, features: Tensor) -> Tensor:
        """features (..., E) -> logits (..., V)."""
        return F.linear(features, self.embed.weight, self.output_bias)


class LinearCrossEntropy(torch.autograd.Function):
    """`F.cross_entropy(F.linear(x, weight, bias), targets, reduction="sum")` without ever holding all logits.

    The logits of a batch (N x V; 2,000 positions x 8,000 characters are 64 MB) are made, turned into the loss AND into
    their gradient piece by piece while a piece is still in the cache; the gradients wait in memory until backward.
    The products run in autocast's precision, the softmax and the sums in float32. `wanted`: whether the gradients are
    needed at all (inside a Function torch does not tell).
    """

    PIECE = 256  # positions at a time: 8 MB of float32 logits

    @staticmethod
    def forward(ctx, x: Tensor, weight: Tensor, bias: Tensor, targets: Tensor, wanted: bool = True) -> Tensor:
        device = x.device.type
        dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else x.dtype
        with torch.autocast(device, enabled=False):
            w, xs = weight.to(dtype), x.to(dtype)
            grads = [torch.zeros_like(t, dtype=torch.float32) for t in (x, weight, bias)]
            grad_x, grad_weight, grad_bias = grads
            total = torch.zeros((), dtype=torch.float32, device=x.device)
            for start in range(0, len(xs), LinearCrossEntropy.PIECE):
                piece = slice(start, start + LinearCrossEntropy.PIECE)
                logits = (xs[piece] @ w.T).float() + bias.float()  # (P, V)
                index = targets[piece, None]
                target_logits = logits.gather(1, index)  # (P, 1)
                delta = logits.softmax(1)
                # log Z without a second pass of exponentials, exact also where the target's probability underflows
                log_z = logits.amax(1, keepdim=True) - delta.amax(1, keepdim=True).log()  # (P, 1)
                total += (log_z - target_logits).sum()
                if wanted:
                    delta.scatter_add_(1, index, torch.full_like(log_z, -1.0))  # softmax minus the one-hot target
                    grad_bias += delta.sum(0)
                    delta = delta.to(dtype)
                    grad_x[piece] = (delta @ w).float()
                    if dtype == torch.float32:
                        grad_weight.addmm_(delta.T, xs[piece])  # adds while it multiplies: 8 MB less to move
                    else:
                        grad_weight += (delta.T @ xs[piece]).float()
        if wanted:
            ctx.save_for_backward(*(g.to(t.dtype) for g, t in zip(grads, (x, weight, bias), strict=True)))
        return total

    @staticmethod
    def backward(ctx, grad: Tensor) -> tuple[Tensor, Tensor, Tensor, None, None]:
        grad_x, grad_weight, grad_bias = ctx.saved_tensors
        return grad_x * grad, grad_weight * grad, grad_bias * grad, None, None
