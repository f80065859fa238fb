"""The poet's task: its loss, its bits per character against a plain re-computation, and the commands for them."""

import json
import math

import pytest
import torch
from torch.nn import functional as F

import main
from config import PoetConfig
from data.poem_files import read_poems
from data.vocabulary import AUTHOR, TITLE, UNKNOWN
from models.poet import Poet
from options import parse
from tasks import make_task
from tasks.poet import CHINESE_CHARACTERS
from tests.training import arguments, log_of, options, write_corpus
from training.recorder import Recorder, read_log
from utils.errors import UserError


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """With a corpus, and a trained poet in run."""
    folder = tmp_path_factory.mktemp("poet")
    write_corpus(folder / "corpus.jsonl")
    assert main.main(arguments(**options(folder, run="run", dropout=0.2, samples=1))) == 0
    return folder


@pytest.fixture
def task(folder):
    torch.manual_seed(0)
    task = make_task(parse(PoetConfig, options(folder, dropout=0)))
    for parameter in task.model.parameters():  # not the uniform start
        torch.nn.init.normal_(parameter, std=0.4)
    return task


def plain_bits(model: Poet, poem, given: bool) -> tuple[float, int]:
    """(bits, characters) of one poem, one position at a time, written from the definition."""
    ids = {sign: i for i, sign in enumerate(model.vocab)}
    condition = [f"<{poem.form}>", AUTHOR, *poem.author, TITLE, *poem.title] if given else []
    signs = [*condition, "<bos>", *"".join(poem.lines), "<eos>"]
    bits, count, state = 0.0, 0, None
    for here, following in zip(signs[:-1], signs[1:], strict=True):
        output = model(torch.tensor([[ids.get(here, ids[UNKNOWN])]]), state)
        state = output["state"]
        if count or here == "<bos>":
            logp = F.log_softmax(model.logits(output["features"])[0, 0].double(), 0)
            bits -= logp[ids.get(following, ids[UNKNOWN])].item() / math.log(2)
            if following not in ids:
                bits += math.log2(CHINESE_CHARACTERS - len(model.vocab))
            count += 1
    return bits, count


@torch.no_grad()
@pytest.mark.parametrize("split, unknown", [("val", 8), ("test", 0)])
def test_report_equals_a_plain_computation(task, split, unknown):
    task.model.eval()
    figures = task.evaluate(split)
    poems = [p for p in read_poems(task.cfg.data_root) if p.split == split]
    for name, given in (("bits_per_char", False), ("bits_per_char_given", True)):
        bits, counts = zip(*(plain_bits(task.model, p, given) for p in poems), strict=True)
        assert figures[name] == pytest.approx(sum(bits) / sum(counts), rel=1e-5)
    assert figures["bits_per_char"] != pytest.approx(figures["bits_per_char_given"], rel=1e-3)
    characters = sum(len("".join(p.lines)) + 1 for p in poems)
    expected = {"split": split, "poems": 8, "characters": characters, "unknown_characters": unknown}
    assert {k: figures[k] for k in expected} == expected


@torch.no_grad()
def test_a_uniform_model_needs_log2_of_the_vocabulary(task):
    for parameter in task.model.parameters():
        parameter.zero_()
    size = len(task.vocabulary)
    test = task.evaluate("test")
    assert test["bits_per_char"] == test["bits_per_char_given"] == pytest.approx(math.log2(size), rel=1e-6)
    val = task.evaluate("val")  # each poem has one character that training never saw
    share = val["unknown_characters"] / val["characters"]
    expected = math.log2(size) + share * math.log2(CHINESE_CHARACTERS - size)
    assert val["bits_per_char"] == pytest.approx(expected, rel=1e-6)


def test_step_equals_cross_entropy(task):
    """The objective is a mean over rows: parts of a batch, weighted by their rows, are the batch."""
    rows = [task.train_set[i] for i in range(5)]
    batch = task.collate(rows)
    output = task.step(task.model, batch)
    logits = task.model.logits(task.model(batch["ids"], poem=batch["poem"])["features"])
    counted = batch["targets"] >= 0
    loss = F.cross_entropy(logits[counted], batch["targets"][counted])
    torch.testing.assert_close(output["loss"], loss.detach())
    assert output["bits_per_char"].item() == pytest.approx(loss.item() / math.log(2), rel=1e-5)
    assert int(output["count"]) == int(counted.sum())
    output["objective"].backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in task.model.parameters())
    assert not output["loss"].requires_grad and not output["bits_per_char"].requires_grad
    one, rest = (task.step(task.model, task.collate(part)) for part in (rows[:2], rows[2:]))
    torch.testing.assert_close(output["objective"], 0.4 * one["objective"] + 0.6 * rest["objective"])
    assert output["objective"].item() == pytest.approx(output["loss"].item(), rel=0.3)


def test_val_prints_the_trainers_own_figures(folder, capsys):
    load = folder / "run" / "best.safetensors"

    def told_by(command: str, **more) -> dict:
        given = {"load": load, "data_root": folder / "corpus.jsonl", "use_gpu": False, "json": True, **more}
        assert main.main(arguments(command, **given)) == 0
        return json.loads(capsys.readouterr().out.splitlines()[-1])

    told = told_by("val")
    fields = {"data", "split", "poems", "bits_per_char", "bits_per_char_given", "characters", "unknown_characters"}
    assert set(told) == fields and told["split"] == "val" and told["unknown_characters"] == 8
    figures = [r for r in read_log(folder / "run") if r["kind"] == "epoch" and r["split"] == "val"]
    best = min(r["bits_per_char"] for r in figures)
    assert told["bits_per_char"] == pytest.approx(best, rel=1e-5)
    assert Poet.load(load).metadata["bits_per_char"] == best
    assert figures[0]["perplexity"] == pytest.approx(2 ** figures[0]["bits_per_char"])
    told = told_by("test")
    assert told["split"] == "test" and told["unknown_characters"] == 0
    assert told_by("test", split="val")["split"] == "val"


def test_training_goes_on_from_a_model_file(folder):
    """The vocabulary stays that of the file, whatever the new poems are."""
    other, load = folder / "other.jsonl", folder / "first.safetensors"
    other.write_text((folder / "corpus.jsonl").read_text().replace("春", "秋"))
    load.write_bytes((folder / "run" / "best.safetensors").read_bytes())
    given = options(folder, run="second", load=load, data_root=other, lr=0, max_epoch=1)
    with pytest.raises(UserError, match="hidden=99: .* has hidden=16; leave it out"):
        make_task(parse(PoetConfig, {**given, "hidden": 99}))
    assert main.main(arguments(**given)) == 0
    first, second = Poet.load(load), Poet.load(folder / "second" / "best.safetensors")
    assert first.vocab == second.vocab and second.arguments["hidden"] == 16
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), second.parameters(), strict=True))  # lr=0
    load.unlink()  # a run that began with it has all of it in its own state
    assert main.main(arguments(resume=folder / "second", max_epoch=2)) == 0
    assert {"data_root", "load", "run", "save_path"} & set(second.metadata["config"]) == set()


def test_examples(folder, capsys):
    for samples, poems in ((0, None), (3, 3)):
        task = make_task(parse(PoetConfig, options(folder, samples=samples)))
        recorder = Recorder(folder / str(samples))
        task.show(recorder, 1, 0)
        recorder.close()
        texts = [r["text"] for r in log_of(folder / str(samples)) if r["kind"] == "text"]
        assert [len(t.splitlines()) for t in texts] == ([poems] if poems else [])
        assert len(capsys.readouterr().out.splitlines()) == samples
        assert task.model.training


def test_any_language(folder):
    """A corpus without forms, in another alphabet, shorter than a row."""
    texts = [f"the {w} and the {v}\nfar away and near" for w in ("sea", "sky", "owl") for v in ("rain", "snow", "wind")]
    poems = [{"lines": t.split("\n"), "split": ("train", "val", "test")[i % 3]} for i, t in enumerate(texts)]
    source = folder / "poems.jsonl"
    source.write_text("\n".join(map(json.dumps, poems)))
    assert main.main(arguments(**options(folder, run="english", data_root=source, max_epoch=1))) == 0
    assert any(r["kind"] == "text" for r in read_log(folder / "english"))
