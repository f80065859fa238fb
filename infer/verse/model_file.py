"""Loading a poet: our own file, or weights of pytorch-book (chenyuntc/pytorch-book) with its tang.npz beside them."""

from collections.abc import Mapping
from pathlib import Path

from torch import Tensor
from torch.nn import functional as F

from data.poem_files import read_words
from data.rhyme import restrict
from data.vocabulary import BOS, EOS, PAD, UNKNOWN
from models.basemodule import is_own, read_metadata, read_state_dict, unwrap
from models.poet import Poet
from utils.errors import UserError

NEVER = -1e4  # a logit: probability 0
SHIPPED = Path(__file__).parents[2] / "checkpoints" / "poet.safetensors"


def load_poet(path: str | Path, device: str = "cpu") -> Poet:
    """The poet that a file holds, in eval mode. pytorch-book's gets the shipped poet's rhyme table.

    Raises UserError if it is neither, and for the latter without tang.npz, which has its characters.
    """
    path = Path(path)
    if is_own(path) or "embeddings.weight" not in (tensors := unwrap(read_state_dict(path), str(path))):
        return Poet.load(path, device)
    beside = path.with_name("tang.npz")
    if not beside.exists():
        raise UserError(f"{path} holds weights of pytorch-book's poet without its characters: put tang.npz beside it")
    model = from_book(tensors, read_words(beside), str(path))
    if SHIPPED.exists():
        model.metadata = restrict(read_metadata(SHIPPED), model.vocab)
    return model.to(device)


def from_book(tensors: Mapping[str, Tensor], words: Mapping[int, str], source: str) -> Poet:
    """The network of weights trained with pytorch-book's poet (embeddings, lstm, linear1), in eval mode.

    Args:
        tensors: its state dict. words: the characters by id, `ix2word` of its tang.npz.
        source: what messages call the weights: their file.

    Characters that it does not know are the unknown token, which it never writes. It has learnt no titles, authors,
    keywords and forms: `vocab` has no tokens for them. Raises UserError if weights and words do not belong together.
    """
    names = {"embeddings.weight": "embed.weight", "linear1.weight": "output_weight", "linear1.bias": "output_bias"}
    if missing := [name for name in (*names, "lstm.weight_hh_l0") if name not in tensors]:
        raise UserError(f"{source} is no poet of pytorch-book: it has no {missing[0]}")
    size, embed = tensors["embeddings.weight"].shape
    marks = {"<START>": BOS, "<EOP>": EOS, "</s>": PAD}
    vocab = [marks.get(words[i], words[i]) for i in range(size) if i in words]
    if len(words) != size or not {BOS, EOS, PAD} <= set(vocab) or len(set(vocab)) != size:
        raise UserError(f"{source} has {size} characters, tang.npz beside it {len(words)}: it is not the one it learnt")
    layers = sum(f"lstm.weight_ih_l{i}" in tensors for i in range(100))
    hidden = tensors["lstm.weight_hh_l0"].shape[1]
    model = Poet([*vocab, UNKNOWN], embed, hidden, layers, dropout=0.0, attention=0, tied=False)
    own = {names.get(name, f"backbone.{name}"): tensor.float() for name, tensor in tensors.items()}
    for name, value in (("embed.weight", 0.0), ("output_weight", 0.0), ("output_bias", NEVER)):
        own[name] = F.pad(own[name], (0, 0, 0, 1) if own[name].ndim == 2 else (0, 1), value=value)  # the unknown token
    own["seen_verses"] = model.seen_verses
    model.load_weights(own, source=source)
    return model.eval()
