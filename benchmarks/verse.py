"""The poet's verse judged beside real poems: rules, repetition, copying, theme, fluency, time. Not a test.

    python benchmarks/verse.py --poetry=FOLDER [--load=FILE] [--n=400]

FOLDER holds tang.jsonl.xz, whose test split is the measure, rhyme.json, and perhaps more .jsonl.xz, to learn from
and to search for copies. The judge (verse_judge.py) shares no code with what writes the poems. Tables go to stdout.
"""

import argparse
import itertools
import json
import math
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean, median

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

import numpy as np  # noqa: E402  the path first
import torch  # noqa: E402
from tqdm import tqdm  # noqa: E402

from benchmarks.common import exit_code, say  # noqa: E402
from benchmarks.verse_judge import (  # noqa: E402
    FORMS,
    RhymeTable,
    ThemeJudge,
    Verdict,
    bigrams,
    choices,
    distinct_bigrams,
    is_informative,
    judge,
    title_core,
    verses_of,
)
from config import GenerateConfig  # noqa: E402
from data.poem_files import read_poems  # noqa: E402
from data.splits import choose_split  # noqa: E402
from data.verse import Poem  # noqa: E402
from data.vocabulary import Vocabulary  # noqa: E402
from infer.verse.compose import Composition, compose, compose_each  # noqa: E402
from infer.verse.settings import PoemSettings  # noqa: E402
from models.poet import Poet  # noqa: E402
from utils.errors import UserError  # noqa: E402

TITLES = 60  # of the theme figure; another one is of all the titles written to
CANDIDATES = 16  # of the quatrain that is timed warm; a new process writes with the default
Verse = Poem | Composition

# What is counted in percent of the poems: name, whether a verdict has it.
COUNTED: list[tuple[str, Callable[[Verdict], bool]]] = [
    ("form", lambda v: v.form),
    ("rhyme: even verses, one level group", lambda v: v.rhyme),
    ("the first verse, too, if it ends level", lambda v: v.first_rhyme),
    ("even verses, a group of any tone", lambda v: v.any_rhyme),
    ("regular tone pattern", lambda v: not v.tones),
    ("form, rhyme and pattern", lambda v: v.form and v.rhyme and not v.tones),
    ("a character that the rhyme table lacks", lambda v: v.unknown),
    ("a rhyme character twice", lambda v: v.same_rhyme),
    ("a character three times", lambda v: v.thrice),
    ("a bigram twice", lambda v: v.twin),
    ("a verse of the train split", lambda v: v.copied),
]


@dataclass
class Measure:
    """What the poems are held against."""

    table: RhymeTable
    corpus: set[str]  # verses of the train split
    pairs: Counter[str]  # how often two characters stand beside each other in them
    real: list[Poem]  # of the test split, of the four forms
    titled: list[Poem]  # those whose titles say something
    theme: ThemeJudge


def prepare(folder: Path) -> Measure:
    """Reads the folder and lets the theme judge learn from its train split."""
    say("reading")
    tang = folder / "tang.jsonl.xz"
    poems = {file: read_poems(file) for file in sorted(folder.glob("*.jsonl.xz"))}
    train = [p for found in poems.values() for p in choose_split(found, "train")]
    real = [p for p in choose_split(poems[tang], "test") if p.form in FORMS]
    titles = [title_core(p.title) for p in train]
    counts = Counter(c for title in titles for c in set(title))
    say("the theme judge learns from titles and poems (about a minute)")
    verses = [verse for p in train for verse in verses_of(p.lines)]
    return Measure(
        RhymeTable.read(folder / "rhyme.json"),
        set(verses),
        Counter(bigrams(verses)),
        real,
        [p for p in real if is_informative(title_core(p.title), counts)],
        ThemeJudge(titles, [body(p) for p in train]),
    )


def attested(poems: Sequence[Verse], pairs: Counter[str]) -> float:
    """Percent of the pairs of neighbours in verses that stand five times in the train split."""
    return 100 * fmean(pairs[pair] >= 5 for poem in poems for pair in bigrams(verses_of(poem.lines)))


def body(poem: Verse) -> str:
    return "".join(verses_of(poem.lines))


# ----------------------------------------------------------------------------------------------------------- the poems


@dataclass
class Written:
    """Poems of the model: to titles, as the real poems beside them have, without titles, and in two simpler ways."""

    titled: list[Composition]
    models: list[Poem]  # the real poems whose titles were given, one for each of `titled`
    untitled: list[Composition]
    unranked: list[Composition]  # as `untitled`, but a single candidate each
    free: list[Composition]  # as `unranked`, but the rules not kept

    @property
    def all(self) -> list[Composition]:
        return self.titled + self.untitled


def write(model: Poet, measure: Measure, n: int) -> Written:
    """n poems with the default settings, as many of each form, half of them to titles of the test split."""
    each, random = max(1, n // (2 * len(FORMS))), np.random.default_rng(0)
    drawn = []
    for form in FORMS:
        having = [p for p in measure.titled if p.form == form]
        if len(having) < each:
            raise UserError(f"--n={n}: only {len(having)} {form} of the test split have a title to write to")
        drawn.append([having[i] for i in random.choice(len(having), each, replace=False)])
    models = [p for row in zip(*drawn, strict=True) for p in row]  # the first ones are of all the forms
    jobs = [(PoemSettings(form=real.form, title=real.title), 1, seed) for seed, real in enumerate(models)]
    for options in ({}, {"candidates": 1}, {"candidates": 1, "regular": False}):
        jobs += [(PoemSettings(form=f, **options), each, 10_000 * number) for number, f in enumerate(FORMS, 1)]
    poems = itertools.chain.from_iterable(compose_each(model, *job) for job in jobs)
    total = 4 * len(models)
    written = list(tqdm(poems, "writing", total, unit="poem", leave=False, disable=None))
    titled, *untitled = (written[start : start + len(models)] for start in range(0, total, len(models)))
    return Written(titled, models, *untitled)


# --------------------------------------------------------------------------------------------------------- the figures


def count(poems: Sequence[Verse], measure: Measure) -> dict[str, float]:
    """Percent of the poems that have each of COUNTED, which rule of tones they break, different/all characters."""
    verdicts = [judge(p.lines, p.form, measure.table, measure.corpus) for p in poems]
    shares = {name: 100 * fmean(has(v) for v in verdicts) for name, has in COUNTED}
    faults = Counter(v.tones for v in verdicts if v.tones)
    shares |= {
        f"pattern broken by {fault} alone": 100 * c / len(poems) for fault, c in faults.items() if fault != "平仄"
    }
    return shares | {"different characters / characters": fmean(v.variety for v in verdicts)}


def rules(written: Written, measure: Measure) -> dict[str, dict[str, float]]:
    """{"generated", "real", and each form of both: {figure: value}}."""
    sides = {"generated": written.all, "real": measure.real}
    found = {side: count(poems, measure) for side, poems in sides.items()}
    groups = {
        side: [[verses_of(p.lines) for p in poems if p.form == f] for f in FORMS] for side, poems in sides.items()
    }
    counts = [min(map(len, pair)) for pair in zip(*groups.values(), strict=True)]
    for side in sides:
        found[side]["distinct bigrams per 1,000"] = distinct_bigrams(groups[side], counts)
    neighbours = "% of the neighbours in verses that stand five times in the train split, "
    for way, made, real in (
        ("to titles", written.titled, written.models),
        ("no titles", written.untitled, measure.real),
    ):
        for side, poems in (("generated", made), ("real", real)):
            found[side][neighbours + way] = attested(poems, measure.pairs)
    for side, poems in (("generated", written.titled), ("real", written.models)):
        cores = [set(title_core(p.title)) for p in written.models]
        kept = [len(core & set(body(p))) / len(core) for core, p in zip(cores, poems, strict=True)]
        found[side]["% of the title's characters in the poem"] = 100 * fmean(kept)
    for form in FORMS:
        for side, poems in sides.items():
            found[f"{form}, {side}"] = count([p for p in poems if p.form == form], measure)
    return found


def themes(written: Written, measure: Measure) -> dict[str, dict[str, float]]:
    """{way and titles: percent of the titles that are picked among 10, real and generated poem, their quotient}."""
    titles = [title_core(p.title) for p in written.models]
    lists = choices(titles, [title_core(p.title) for p in measure.titled])
    sides = [measure.theme.right([body(p) for p in poems], lists) for poems in (written.models, written.titled)]
    everything = measure.titled
    own = [title_core(p.title) for p in everything]
    whole = measure.theme.right([body(p) for p in everything], choices(own, own, seed=1))
    found = {}
    for way in whole:
        for n in dict.fromkeys((min(TITLES, len(titles)), len(titles))):
            real, made = (100 * float(side[way][:n].mean()) for side in sides)
            found[f"{way}, {n} titles"] = {"real": real, "generated": made, "quotient": made / max(real, 1e-9)}
        found[f"{way}, all {len(own)} titles"] = {"real": 100 * float(whole[way].mean())}
    return found


@torch.inference_mode()
def bits(model: Poet, poems: Sequence[Verse]) -> float:
    """Bits per character, punctuation among them, under the network that is given the form alone and keeps no rules."""
    vocabulary = Vocabulary(model.vocab)
    total, characters = 0.0, 0
    for poem in poems:
        parts = vocabulary.condition(poem.form, "", "")
        head, text = [*(i for part in parts for i in part), vocabulary.bos], vocabulary.encode("".join(poem.lines))
        features = model(torch.tensor([head + text], device=model.device))["features"][0]  # (T, E)
        log_p = model.logits(features[len(head) - 1 : -1]).float().log_softmax(-1)  # (characters, V)
        total -= log_p.gather(1, torch.tensor(text, device=model.device)[:, None]).sum().item() / math.log(2)
        characters += len(text)
    return total / characters


def fluency(model: Poet, written: Written) -> dict[str, dict[str, float]]:
    """{way of writing: bits per character, and how many percent more than free samples}."""
    ways = {
        "free samples": written.free,
        "rules kept": written.unranked,
        "rules kept, the best candidate": written.untitled,
    }
    found = {name: bits(model, poems) for name, poems in ways.items()}
    free = found["free samples"]
    return {name: {"bits": value, "percent": 100 * (value / free - 1)} for name, value in found.items()}


def times(model: Poet, load: str, rounds: int = 5) -> dict[str, float]:
    """Median seconds of a quatrain of CANDIDATES: by a network that is loaded and warm, and by a new process."""

    def seconds(run: Callable[[], object]) -> float:
        start = time.perf_counter()
        run()
        return time.perf_counter() - start

    say("time")
    settings = PoemSettings(form="七绝", candidates=CANDIDATES)
    compose(model, settings)
    warm = [seconds(lambda s=seed: compose(model, settings, seed=s)) for seed in range(rounds)]

    def start() -> None:
        options = ["--form=七绝", "--seed=1", f"--load={load}"]
        process = subprocess.run([sys.executable, str(ROOT / "main.py"), "generate", *options], capture_output=True)
        if process.returncode:
            raise UserError(f"main.py generate failed: {process.stderr.decode(errors='replace').strip()}")

    return {"warm": median(warm), "cold": median(seconds(start) for _ in range(3))}


# ------------------------------------------------------------------------------------------------------------ printing


def print_tables(found: dict) -> None:
    sides = found["rules"]
    rows = dict.fromkeys([*sides["real"], *sides["generated"]])
    print(f"\n| % of the poems | generated ({found['n']}) | real ({found['n_real']}) |\n| --- | --- | --- |")
    for row in rows:
        cells = (sides[side].get(row, 0.0) for side in ("generated", "real"))
        print(f"| {row} | {' | '.join(f'{c:.3f}' if 'characters /' in row else f'{c:.1f}' for c in cells)} |")
    print("\n| generated / real | rhyme | first verse, too | regular pattern | a verse of the train split |")
    print("| --- | --- | --- | --- | --- |")
    for form in FORMS:
        pairs = [
            " / ".join(f"{sides[f'{form}, {side}'][COUNTED[i][0]]:.1f}" for side in ("generated", "real"))
            for i in (1, 2, 4, 10)
        ]
        print(f"| {form} | {' | '.join(pairs)} |")
    print("\n| the right title among 10, % | real | generated | quotient |\n| --- | --- | --- | --- |")
    for name, row in found["theme"].items():
        made = f"{row['generated']:.1f} | {row['quotient']:.2f}" if "quotient" in row else " | "
        print(f"| {name} | {row['real']:.1f} | {made} |")
    print("\n| unconstrained likelihood | bits per character | more than free |\n| --- | --- | --- |")
    for name, row in found["fluency"].items():
        print(f"| {name} | {row['bits']:.3f} | {row['percent']:+.1f} % |")
    print(f"\n| a 七绝 with {CANDIDATES} candidates | seconds |\n| --- | --- |")
    print(f"| warm | {found['seconds']['warm']:.2f} |\n| python main.py generate | {found['seconds']['cold']:.2f} |")


def work(args: argparse.Namespace) -> None:
    """Writes, judges and prints."""
    for name in ("tang.jsonl.xz", "rhyme.json"):
        if not (args.poetry / name).exists():
            raise UserError(f"--poetry={args.poetry} has no {name}: give the folder of tang.jsonl.xz and rhyme.json")
    model = Poet.load(args.load)
    measure = prepare(args.poetry)
    written = write(model, measure, args.n)
    found = {
        "n": len(written.all),
        "n_real": len(measure.real),
        "threads": torch.get_num_threads(),
        "rules": rules(written, measure),
        "theme": themes(written, measure),
        "fluency": fluency(model, written),
        "seconds": times(model, args.load),
    }
    if args.json:
        poems = [{"form": p.form, "title": p.title, "lines": p.lines} for p in written.all]
        print(json.dumps(found | {"poems": poems}, ensure_ascii=False))
    else:
        print(f"{args.load}; {found['threads']} threads; torch {torch.__version__}")
        print_tables(found)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--poetry", type=Path, required=True, help="folder with tang.jsonl.xz and rhyme.json")
    parser.add_argument("--load", default=str(ROOT / GenerateConfig.load), help="the poet's file")
    parser.add_argument("--n", type=int, default=400, help="poems to write, half of them to titles of the test split")
    parser.add_argument("--json", action="store_true", help="one JSON object instead of tables, with the poems")
    args = parser.parse_args()
    return exit_code(lambda: work(args))


if __name__ == "__main__":
    sys.exit(main())
