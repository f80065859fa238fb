"""BaseModule: an nn.Module that saves itself to one file and is rebuilt from that file alone.

Files are safetensors: numbers and a JSON header, no pickle, so opening a stranger's model runs no code.
"""

import json
import warnings
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Self

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from utils.errors import UserError
from utils.files import MODEL_FORMAT as FORMAT
from utils.files import atomic_save, metadata_of


class BaseModule(nn.Module):
    """Base of every network here. A subclass hands its constructor's arguments (JSON values) to `super().__init__`."""

    registry: dict[str, type["BaseModule"]] = {}

    def __init__(self, **arguments: Any):
        super().__init__()
        self.arguments = arguments
        self.metadata: dict[str, Any] = {}

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        BaseModule.registry[cls.__name__] = cls

    @property
    def device(self) -> torch.device:
        return next(self.parameters()).device

    def parameter_count(self) -> int:
        return sum(p.numel() for p in self.parameters())

    def save(self, path: str | Path, dtype: torch.dtype | None = None, **metadata: Any) -> None:
        """Writes class, constructor's arguments, weights, all or half as precise, and `metadata` (JSON), atomically."""
        tensors = {}
        for name, tensor in self.state_dict().items():
            tensor = tensor.detach().cpu().contiguous()
            tensors[name] = tensor.to(dtype) if dtype and tensor.is_floating_point() else tensor
        header = {
            "format": FORMAT,
            "class": type(self).__name__,
            "arguments": json.dumps(self.arguments, ensure_ascii=False),
            "metadata": json.dumps({**self.metadata, **metadata}, ensure_ascii=False, default=str),
        }
        atomic_save(path, lambda temporary: save_file(tensors, temporary, metadata=header))

    @classmethod
    def load(cls, path: str | Path, device: str | torch.device = "cpu") -> Self:
        """Rebuilds the network a file holds: class, sizes, weights (float32, in eval mode) and `metadata`.

        Raises UserError for a missing, truncated or foreign file, a class that is no `cls`, or weights that do not fit.
        """
        if not _is_safetensors(path):
            what = "is not a model file of this project, or was cut short"
            raise UserError(f"{path} {what}: give a .safetensors that it has written")
        header, tensors = _read_safetensors(path)
        if header.get("format") != FORMAT:
            raise UserError(f"{path} is a bare state dict (no {FORMAT} header): give a file that `save` has written")
        name = header.get("class")
        found = cls.registry.get(name, BaseModule)
        try:
            found, arguments, tensors = found.upgrade(json.loads(header["arguments"]), tensors)
            model = found(**arguments) if name in cls.registry and issubclass(found, cls) else None
        except (KeyError, ValueError, TypeError) as error:
            raise UserError(f"{path} was made by another version of {found.__name__}: {error}") from error
        if model is None:
            raise UserError(f"{path} holds a {name}, not a {cls.__name__}: give a {cls.__name__} file")
        model.load_weights(tensors, source=str(path))
        model.metadata = json.loads(header.get("metadata", "{}"))
        return model.to(device).eval()

    @classmethod
    def upgrade(cls, arguments: dict[str, Any], tensors: dict[str, Tensor]) -> tuple[type["BaseModule"], dict, dict]:
        """(class, arguments, tensors) to build from those of a file of this class, which may be of an older version."""
        return cls, arguments, tensors

    def load_weights(
        self, source_or_tensors: str | Path | Mapping[str, Any], strict: bool = True, source: str = ""
    ) -> list[str]:
        """Copies weights in from a file (.safetensors, .pt, .pth, .model …) or a state dict, also a foreign one.

        Understands what `unwrap` does; InstanceNorm's running statistics of old files are left out. With `strict=False`
        the names that were not loaded, on either side, are returned; otherwise they are a UserError.
        """
        if isinstance(source_or_tensors, Mapping):
            tensors, source = source_or_tensors, source or "the state dict"
        else:
            source = str(source_or_tensors)
            tensors = read_state_dict(source_or_tensors)
        tensors = unwrap(tensors, source)
        own = self.state_dict()
        statistics = ("running_mean", "running_var", "num_batches_tracked")
        extra = [k for k in tensors if k not in own and not k.endswith(statistics)]
        missing = [k for k in own if k not in tensors]
        misfit = [k for k, v in own.items() if k in tensors and tensors[k].shape != v.shape]
        if strict and (extra or missing or misfit):
            errors = [f"missing {_some(missing)}"] if missing else []
            errors += [f"unknown {_some(extra)}"] if extra else []
            errors += [f"{k} is {tuple(tensors[k].shape)}, not {tuple(own[k].shape)}" for k in misfit[:1]]
            raise UserError(f"{source} does not fit {type(self).__name__}: {'; '.join(errors)}")
        good = {k: v for k, v in tensors.items() if k in own and k not in misfit}
        self.load_state_dict(good, strict=False)
        return sorted(set(extra + missing + misfit))


def average(paths: Sequence[str | Path], weights: Sequence[float] = ()) -> BaseModule:
    """The network whose weights are the weighted mean of those of several files of the same network.

    Networks trained from the same weights on often lie in one valley (Wortsman et al. 2022). Buffers of whole numbers
    and the metadata, besides "average", are those of the last file. No `weights`: equal ones. Raises UserError if the
    files hold different networks, or the weights are not one for each.
    """
    weights = weights or [1.0] * len(paths)
    total = sum(weights)
    if len(weights) != len(paths) or not total:
        raise UserError(f"expected a number for each of the {len(paths)} files, as in 0.3,0.7", shares=None)
    models = [BaseModule.load(path) for path in paths]
    result = models[-1]
    for path, model in zip(paths, models, strict=True):
        if (type(model), model.arguments) != (type(result), result.arguments):
            raise UserError(f"{path} and {paths[-1]} hold different networks: only equal ones can be averaged")
    states = [model.state_dict() for model in models]
    for name, tensor in result.state_dict().items():
        if tensor.is_floating_point():
            tensor.copy_(sum(weight / total * state[name] for weight, state in zip(weights, states, strict=True)))
    names = [f"{weight:g} x {Path(path).name}" for weight, path in zip(weights, paths, strict=True)]
    result.metadata["average"] = " + ".join(names)
    return result


def check_shape(tensor: Tensor, shape: Sequence[int | None], name: str) -> None:
    """Raises ValueError if the tensor does not have this shape; None stands for any size.

    check_shape(image, (None, 3, None, None), "image") -> "image has the shape (3, 64, 64), expected (*, 3, *, *)"
    """
    if tensor.ndim != len(shape) or any(n not in (None, m) for n, m in zip(shape, tensor.shape, strict=True)):
        expected = ", ".join("*" if n is None else str(n) for n in shape)
        raise ValueError(f"{name} has the shape {tuple(tensor.shape)}, expected ({expected})")


def read_metadata(path: str | Path) -> dict[str, Any]:
    """What a model file carries besides the network, without reading the network; nothing of another file."""
    return json.loads(metadata_of(path).get("metadata", "{}"))


def read_state_dict(path: str | Path) -> Mapping[str, Any]:
    """The tensors of a .safetensors file or of a file written by torch.save, on the CPU; never runs code from it."""
    if _is_safetensors(path):
        return _read_safetensors(path)[1]
    try:
        with warnings.catch_warnings(action="ignore"):  # torch's own words about files that it cannot read
            return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a stranger's bytes make the unpickler raise anything
        with _opened(path) as file:
            pickled = file.read(2).startswith((b"PK", b"\x80"))  # as torch.save writes it now, and as it did before 1.6
        if pickled and type(error).__name__ == "UnpicklingError":
            what = "holds a whole Python object, not weights alone: save model.state_dict() with torch.save"
            raise UserError(f"{path} {what}") from error
        raise UserError(f"{path} is not a readable weight file, or was cut short") from error


def is_own(path: str | Path) -> bool:
    """Whether a file is one that `BaseModule.save` has written, of whatever class."""
    return metadata_of(path).get("format") == FORMAT


def _opened(path: str | Path):
    try:
        return open(path, "rb")
    except OSError as error:
        advice = "; give a weight file, such as best.safetensors of a run" if Path(path).is_dir() else ""
        raise UserError(f"cannot read {path}: {error.strerror}{advice}") from error


def _is_safetensors(path: str | Path) -> bool:
    with _opened(path) as file:
        return file.read(9)[8:] == b"{"  # 8 bytes of header length, then JSON


def _read_safetensors(path: str | Path) -> tuple[dict[str, str], dict[str, Tensor]]:
    try:
        with safe_open(path, framework="pt", device="cpu") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}
            return file.metadata() or {}, tensors
    except SafetensorError as error:
        raise UserError(f"{path} is not a readable weight file, or was cut short") from error


# Where others put the state dict in what they save, and what DataParallel, torch.compile, Lightning put before names.
WRAPPERS = ("state_dict", "model_state_dict", "model_state", "model", "net", "network", "weights", "params")
PREFIXES = ("module.", "_orig_mod.", "model.", "net.", "network.")


def unwrap(tensors: Mapping[str, Any], source: str) -> dict[str, Tensor]:
    """The tensors of a state dict, without what others wrap it in, or put before all names.

    Raises UserError if there are none, and for one that is not finite: a network would answer nonsense with it.
    """
    while isinstance(tensors, Mapping):
        inner = next((tensors[key] for key in WRAPPERS if isinstance(tensors.get(key), Mapping)), None)
        if inner is None:
            break
        tensors = inner
    if not isinstance(tensors, Mapping) or not any(isinstance(v, Tensor) for v in tensors.values()):
        raise UserError(f"{source} holds no state dict: expected names with tensors")
    tensors = {k: v for k, v in tensors.items() if isinstance(v, Tensor)}
    while prefix := next((p for p in PREFIXES if all(k.startswith(p) for k in tensors)), ""):
        tensors = {k.removeprefix(prefix): v for k, v in tensors.items()}
    for name, tensor in tensors.items():
        if tensor.is_floating_point() and not tensor.isfinite().all():
            raise UserError(f"{source}: the weights {name} are not finite (NaN or infinity): give another file")
    return tensors


def _some(names: Iterable[str]) -> str:
    names = list(names)
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
