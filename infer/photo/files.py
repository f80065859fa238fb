"""Classifying files: the pictures at some paths, shared among processes, and a table of the answers."""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from infer.photo.classify import Answer, Settings, classify, find_pictures
from models.classifier import Classifier
from utils.errors import UserError
from utils.files import is_inside, refuse_overwriting, write_csv
from utils.hardware import check_workers, rank_and_world


def plan_table(
    paths: Sequence[str], table: str = "", others: Sequence[str] = (), overlays: str | None = None
) -> Path | None:
    """The CSV file that this process writes its answers to; None: none. To be asked before a model is read.

    Args:
        table: the file; of processes that torchrun has started each has one of its own, NAME.RANK.csv.
        others: more files, besides `paths`, that must not be overwritten.
        overlays: folder for explanations, empty: beside the pictures; None: there are none.

    Raises UserError if the table would replace what is read, or processes would explain each other's overlays.
    """
    rank, world = rank_and_world()
    path = Path(table) if table else None
    if world > 1:
        path = path and path.with_suffix(f".{rank}{path.suffix}")
        if overlays is not None and (not overlays or any(is_inside(overlays, path) for path in paths)):
            raise UserError("several processes need a folder for explanations outside of the input", out=overlays)
    refuse_overwriting(filter(None, [path]), [*paths, *others], "csv")
    return path


def classify_files(
    model: Classifier,
    paths: Sequence[str],
    settings: Settings,
    table: Path | None = None,
    progress: Callable[[float], object] | None = None,
) -> Iterator[Answer]:
    """An answer for each picture at `paths`, in order; one that cannot be read has an error.

    Processes of torchrun share them. Raises UserError for a path or workers that cannot be, or an unwritable table.
    """
    rank, world = rank_and_world()
    check_workers(settings.workers)
    sources = find_pictures(paths)
    share = range(rank, len(sources), world)
    answers: list[Answer] = []
    _write_table(table, model.classes, answers)  # it should be known now if the place cannot be written
    for answer in classify(model, sources, settings, share):
        answers.append(answer)
        if progress:
            progress(len(answers) / len(share))
        yield answer
    _write_table(table, model.classes, answers)


def _write_table(path: Path | None, classes: Sequence[str], answers: Sequence[Answer]) -> None:
    """The answers without an error as CSV: path, label, a probability for each class. Without a path nothing."""
    good = [answer for answer in answers if not answer.error]
    rows = ([answer.path, answer.label, *(f"{p:.6f}" for p in answer.probabilities.values())] for answer in good)
    if path:
        write_csv(path, ["path", "label", *classes], rows)
