"""infer/verse/compose.py and what it stands on: form and rules hold for any network, what is given is kept."""

import re
from collections import Counter

import pytest
import torch

from data.verse import FORMS, PAUSES, STOPS, verses
from data.vocabulary import AUTHOR, KEYWORD, SPECIALS, TITLE, Vocabulary
from infer.verse.check import check
from infer.verse.compose import Composition, compose
from infer.verse.decoding import Decoder, resample, sample
from infer.verse.drawn import draw_title
from infer.verse.lexicon import PREDECESSORS, RARE, Lexicon, Pairs
from infer.verse.poets import remarks_on
from infer.verse.rank import ATTESTED, PARALLEL, THEME, UNSEEN, attestation, parallelism, repetition
from infer.verse.rhyme import RhymeTable
from infer.verse.settings import PoemSettings, keep_verses
from infer.verse.shape import Shape
from models.poet import Poet
from utils.errors import UserError

CHARACTERS = "春江花月夜山水云風门"  # 風 traditional, 门 simplified; 风 and 門 are not in it
MARKS = "，、。？！；（）□\nA7"
ENGLISH = "abcdefghijklmnopqrstuvwxyz \n,.'"


def write(model: Poet, n: int = 1, seed: int = 0, forms: list[str] | None = None, **settings) -> list[Composition]:
    return compose(model, PoemSettings(**settings), n, seed, forms)


def text_of(poem: Composition) -> str:
    return "".join(poem.lines)


def poet(characters: str = CHARACTERS + MARKS, forms: tuple[str, ...] = tuple(FORMS), ending: float = 0.0) -> Poet:
    """A network of random weights; `ending` is the logit of the end token, whatever was read."""
    torch.manual_seed(0)
    model = Poet(SPECIALS + list(characters), embed=8, hidden=12, layers=2, dropout=0.5, attention=0).eval()
    for parameter in model.parameters():  # far from the start: what was read matters, and no token is like another
        torch.nn.init.normal_(parameter, std=0.7)
    eos = Vocabulary(model.vocab).eos
    model.embed.weight.data[eos], model.output_bias.data[eos] = 0.0, ending
    model.metadata = {"forms": list(forms)}
    return model


def log_probs_of(model: Poet, poem: Composition, condition: list[str], ended: bool = False) -> torch.Tensor:
    """(T, V) log-probabilities at the poem's tokens and, first in each row, that of the token itself."""
    vocabulary = Vocabulary(model.vocab)
    body = vocabulary.encode(vocabulary.fold(text_of(poem))[0]) + [vocabulary.eos] * ended
    head = [*(vocabulary.ids.get(token, vocabulary.unknown) for token in condition), vocabulary.bos]
    with torch.inference_mode():
        log_p = model.logits(model(torch.tensor([head + body]))["features"][0]).log_softmax(-1)[len(head) - 1 : -1]
    return torch.cat([log_p.gather(1, torch.tensor(body)[:, None]), log_p], 1)


def score_of(model: Poet, poem: Composition, condition: list[str], ended: bool = False) -> float:
    """Mean log-probability of the poem, by feeding it through the network in one piece."""
    return log_probs_of(model, poem, condition, ended)[:, 0].mean().item()


def train(model: Poet, *texts: str, steps: int = 150) -> Poet:
    """`model` after learning texts of one length by heart."""
    vocabulary = Vocabulary(model.vocab)
    ids = torch.tensor([[vocabulary.bos, *vocabulary.encode(text), vocabulary.eos] for text in texts])
    optimizer = torch.optim.Adam(model.parameters(), lr=0.02)
    for _ in range(steps):
        optimizer.zero_grad()
        model(ids[:, :-1], targets=ids[:, 1:])["nll"].backward()
        optimizer.step()
    return model.eval()


# ------------------------------------------------------------------------------------------------------- the form


@pytest.mark.parametrize("temperature", [0.0, 100.0])
@pytest.mark.parametrize("form", FORMS)
def test_poems_have_the_verses_and_characters_of_the_form(form, temperature):
    count, width = FORMS[form]
    poems = write(poet(), n=25, form=form, temperature=temperature, top_p=1.0, candidates=2)
    assert len(poems) == 25
    for poem in poems:
        verse = f"[A7{CHARACTERS}]{{{width}}}"
        assert poem.form == form and len(poem.lines) == count // 2 and len(verses(text_of(poem))) == count
        assert re.fullmatch(f"({verse}[{PAUSES}]{verse}[{STOPS}])+", text_of(poem))


def test_auto_is_the_quatrain_or_what_the_network_has_learnt():
    assert write(poet())[0].form == write(poet(forms=("五绝", "七绝")))[0].form == "七绝"
    assert write(poet(forms=("五绝", "五律")))[0].form == "五绝"
    assert write(poet(), forms=["五律"])[0].form == "五律"
    assert len(verses(text_of(write(poet(forms=("七绝",)), form="五律")[0]))) == 8, "also one that it has not learnt"


@pytest.mark.parametrize("characters", [CHARACTERS, CHARACTERS + "\n"])
def test_without_punctuation_in_the_corpus_a_verse_is_a_line(characters):
    for form, (count, width) in FORMS.items():
        [poem] = write(poet(characters, forms=()), form=form, candidates=2)
        assert [len(line) for line in poem.lines] == [width] * count and poem.form == form


@pytest.mark.parametrize("characters", [CHARACTERS + MARKS, ENGLISH])
def test_a_free_poem_is_never_empty_nor_longer_than_max_chars(characters):
    model = poet(characters, forms=(), ending=2.0)
    poems = write(model, n=100, max_chars=9, temperature=3.0)
    lengths = {len(text_of(poem)) for poem in poems}
    assert min(lengths) >= 1 and max(lengths) <= 9 and len(lengths) > 3
    assert all(set(text_of(poem)) <= set(characters) for poem in poems)  # and no special token
    assert characters != ENGLISH or any(len(poem.lines) > 1 and poem.form == "" for poem in poems)
    assert len(text_of(write(model, max_chars=1)[0])) == 1


# ------------------------------------------------------------------------------------------------- what is given


@pytest.mark.parametrize("given", ["春江", "门風", "Ab9", "春😀A門龘"])  # known, unknown, other variants, Latin, emoji
def test_prompt_and_acrostic_are_kept_as_they_are(given):
    for form in ("五绝", "七律"):
        [poem] = write(poet(), form=form, prompt=given, candidates=4)
        assert text_of(poem).replace("，", "").startswith(given)
        assert [len(v) for v in verses(text_of(poem))] == [FORMS[form][1]] * FORMS[form][0]
        [poem] = write(poet(), form=form, acrostic=given[:4], candidates=4)
        assert "".join(v[0] for v in verses(text_of(poem))).startswith(given[:4])
    [poem] = write(poet(), form="free", prompt=given + "，", max_chars=20)
    assert text_of(poem).startswith(given + "，")


def test_prompts_with_punctuation_with_an_acrostic_and_as_long_as_the_poem():
    text = text_of(write(poet(), form="五绝", prompt="春江，花月！ 夜山水\n云")[0])
    assert text.replace("，", "").replace("、", "").startswith("春江花月夜山水云")
    text = text_of(write(poet(), form="五绝", prompt="春花", acrostic="春江花月")[0])
    assert text.startswith("春花") and [v[0] for v in verses(text)] == list("春江花月")
    text = text_of(write(poet(), form="五绝", prompt="春江花月夜" * 4)[0])
    assert "".join(verses(text)) == "春江花月夜" * 4
    assert text_of(write(poet(), form="free", prompt="春江花月夜", max_chars=3)[0]) == "春江花月夜"


# --------------------------------------------------------------------------------------------- chance, batch, score


def test_a_batch_equals_one_at_a_time_and_the_global_generator_is_left_alone(monkeypatch):
    """Of free poems 64 are written at once, of regulated verse one (to a title of its own) or as many as fit."""
    ways = [(train(poet(), "春江花月夜，山水云風门。", steps=20), 64, {"form": "free", "max_chars": 30}),
            (regular_poet(), 3, {"form": "五绝", "candidates": 2}),
            (regular_poet(), 5, {"form": "五绝", "candidates": 32, **ABOUT})]  # fmt: skip
    monkeypatch.setattr("infer.verse.compose.BATCH", 64)
    before = torch.get_rng_state()
    for model, n, settings in ways:
        poems = write(model, n=n, seed=3, **settings)
        assert len({str(poem) for poem in poems}) > n // 2
        for i in (0, 1, n - 1):
            [alone] = write(model, seed=3 + i, **settings)
            assert alone.lines == poems[i].lines and alone.score == pytest.approx(poems[i].score, abs=1e-5)
    assert torch.equal(torch.get_rng_state(), before)


def test_every_way_of_taking_the_likeliest_is_argmax():
    """The likeliest allowed token at each place, the whole text fed anew for each."""
    model, (count, width) = poet(), FORMS["五绝"]
    vocabulary = Vocabulary(model.vocab)
    ids = [vocabulary.ids["<五绝>"], vocabulary.bos]
    for place in range(count * (width + 1)):
        verse, column = divmod(place, width + 1)
        allowed = CHARACTERS + "A7" if column < width else STOPS if verse % 2 else PAUSES
        with torch.inference_mode():
            logits = model.logits(model(torch.tensor([ids]))["features"][0, -1])
        ids.append(max((vocabulary.ids[c] for c in allowed), key=lambda i: logits[i].item()))
    for narrow in ({"temperature": 0.0}, {"temperature": 1e-40}, {"top_k": 1}, {"top_p": 1e-9}, {"top_p": 0.0}):
        [poem] = write(model, form="五绝", seed=11, candidates=4, **{"temperature": 1.0, **narrow})
        assert text_of(poem) == vocabulary.decode(ids)


def test_the_score_is_what_the_network_says_of_the_poem():
    model = poet()
    for poem in write(model, n=2, form="七绝", title="春龘", author="山", candidates=4):
        condition = ["<七绝>", AUTHOR, "山", TITLE, "春"]
        assert poem.score == pytest.approx(score_of(model, poem, condition), abs=1e-5)
        assert poem.title == "春龘" and str(poem).startswith("《春龘》\n"), "the title is handed on as it is"
    for poem in write(model, n=2, form="五绝", prompt="春龘門风", temperature=0.3, candidates=4):
        assert poem.score == pytest.approx(score_of(model, poem, ["<五绝>"]), abs=1e-5)
    model, ended = poet(CHARACTERS, ending=2.0), 0  # no line breaks, so that the lines are the text
    for poem in write(model, n=30, form="free", max_chars=8, temperature=1.5, candidates=1):
        short = len(text_of(poem)) < 8
        ended += short
        assert poem.score == pytest.approx(score_of(model, poem, [], ended=short), abs=1e-5)
    assert 0 < ended < 30


def test_images_stand_for_a_modern_word():
    model = poet("香苦夜春" + MARKS)  # of the images of coffee 醒 is missing
    [poem] = write(model, form="五绝", keywords=["春", "咖啡", "xyz"], candidates=4)
    condition = ["<五绝>", KEYWORD, "春", KEYWORD, "香", KEYWORD, "苦", KEYWORD, "夜"]
    assert poem.score == pytest.approx(score_of(model, poem, condition), abs=1e-5)
    assert poem.remarks[:2] == ["咖啡 is written as 香, 苦, 夜", "xyz is not known and was left out"]
    [poem] = write(model, form="五绝", title="Coffee", candidates=4)
    condition = ["<五绝>", TITLE, "香", KEYWORD, "香", KEYWORD, "苦", KEYWORD, "夜"]
    assert poem.score == pytest.approx(score_of(model, poem, condition), abs=1e-5)
    assert poem.title == "Coffee" and poem.remarks[1] == "the title is read as 香"
    old = Poet([token for token in SPECIALS if token != KEYWORD] + list(CHARACTERS), 8, 8, 1, attention=0).eval()
    with pytest.raises(UserError, match="keywords: needs a poet that has learnt such"):
        write(old, keywords=["春"])


def test_a_poem_known_by_heart_is_recited():
    text = "春江花月夜，山水云風门。夜月花江春，门風云水山。"
    torch.manual_seed(0)
    model = train(Poet(SPECIALS + list(CHARACTERS + MARKS), 16, 32, 1, 0.0, attention=0), text)
    [poem] = write(model, form="free", temperature=0.0, prompt="春江")
    assert text_of(poem) == text and poem.form == "五绝" and poem.score > -0.5
    facts = poem.as_dict()
    assert facts["score"] == round(poem.score, 4) and facts["rating"] == round(poem.rating, 4)
    assert list(facts) == "form title lines score rating seed pattern rhyme remarks sections".split()


def test_sampling_draws_each_token_as_often_as_its_probability_and_never_a_forbidden_one():
    logits = torch.tensor([0.5, 0.3, 0.15, 0.05]).log().expand(10_000, 4)
    points = (torch.arange(10_000) + 0.5) / 10_000  # evenly, so that the counts are exact

    def probs(temperature=1.0, top_k=0, top_p=1.0) -> list[float]:
        drawn = sample(logits, temperature, top_k, top_p, points)
        return pytest.approx((torch.bincount(drawn, minlength=4) / 10_000).tolist(), abs=2e-4)

    assert [0.5, 0.3, 0.15, 0.05] == probs() and [0.5, 0.3, 0.15, 0.05] == probs(top_k=99)
    assert [0.625, 0.375, 0, 0] == probs(top_k=2) and [0.625, 0.375, 0, 0] == probs(top_p=0.79)
    assert [10 / 19, 6 / 19, 3 / 19, 0] == probs(top_p=0.81)
    assert [1, 0, 0, 0] == probs(top_k=1, top_p=0.99)
    assert [x / 0.365 for x in (0.25, 0.09, 0.0225, 0.0025)] == probs(temperature=0.5)
    logits = torch.full((2, 5), -torch.inf)
    logits[:, 1:3] = torch.tensor([1.0, -30.0])
    drawn = sample(logits, 1.0, 0, 1.0, torch.tensor([0.0, 1.0]))  # rand() is below 1; rounding may reach it
    assert set(drawn.tolist()) <= {1, 2}


# ------------------------------------------------------------------------------------------------- regulated verse

# Characters of two rhyme groups, of oblique tones, and of both tones; "，" "。" and others that the table lacks.
DONG, XIAN, OBLIQUE, BOTH = ("".join(chr(start + i) for i in range(n)) for start, n in
                             ((0x4E00, 40), (0x5000, 40), (0x6000, 60), (0x7000, 12)))  # fmt: skip
METADATA = {"rhymes": {"一东": DONG + BOTH, "一先": XIAN, "一董": OBLIQUE + BOTH}}
METADATA["rhyme_tones"] = {"一东": "平", "一先": "平", "一董": "上"}
TABLE = RhymeTable.of(METADATA)
ABOUT = {"title": XIAN[:2]}  # so that poems are written in one batch


def regular_poet(characters: str = DONG + XIAN + OBLIQUE + BOTH + MARKS, **arguments) -> Poet:
    """A network of random weights that has a rhyme table."""
    torch.manual_seed(0)
    model = Poet(SPECIALS + list(characters), embed=8, hidden=12, layers=1, **arguments).eval()
    model.metadata = {"forms": list(FORMS), **METADATA}
    return model


def is_regular(poem: Composition) -> bool:
    return check(poem.lines, TABLE).regular


def test_without_a_theme_a_low_temperature_makes_likelier_what_fits_the_poem_and_not_what_is_common(monkeypatch):
    """The first characters of 2,000 poems against q (p / q)^2."""
    model = regular_poet()
    vocabulary = Vocabulary(model.vocab)
    letters = vocabulary.encode(DONG + XIAN + OBLIQUE + BOTH)
    common, few = letters[::2], letters[1::2]
    keys = {first * len(vocabulary) + second for first in letters for second in common}
    keys |= {first * len(vocabulary) + second for first in letters[:25] for second in few[:30]}
    keys = torch.tensor(sorted(keys))
    pairs = Pairs(keys, keys > 0, len(vocabulary))
    monkeypatch.setattr(Pairs, "of", lambda *_: pairs)
    monkeypatch.setattr("infer.verse.compose.TITLE", "a poet without titles")  # none is drawn, for each poem another
    counts = torch.tensor([len(letters)] * len(common) + [25] * 30 + [RARE] * (len(few) - 30))
    order, weight = common + few, counts.double() ** (1 / PREDECESSORS)
    assert pairs.log_frequency[order].exp().tolist() == pytest.approx(weight.tolist(), rel=1e-4)
    with torch.inference_mode():
        features = model(torch.tensor([[vocabulary.ids["<五绝>"], vocabulary.bos]]))["features"]
        p = model.logits(features[0, -1])[order].double().softmax(0)
    for temperature, expected in ((0.5, p**2 / weight), (1.0, p)):
        poems = write(model, n=2000, form="五绝", candidates=1, top_p=1.0, temperature=temperature)
        drawn = Counter(text_of(poem)[0] for poem in poems)
        found = torch.tensor([drawn[model.vocab[i]] for i in order]).double()
        wanted = 2000 * expected / expected.sum()
        chi_square = ((found - wanted) ** 2 / wanted).sum().item()
        assert chi_square < len(order) + 5 * (2 * len(order)) ** 0.5


@pytest.mark.parametrize("temperature", [0.0, 1.0, 100.0])
@pytest.mark.parametrize("form", FORMS)
def test_poems_are_regular_by_construction(form, temperature):
    for poem in write(regular_poet(), n=8, form=form, temperature=temperature, top_p=1.0, candidates=2, **ABOUT):
        found = check(poem.lines, TABLE)
        assert found.regular, text_of(poem)
        assert (poem.pattern, poem.rhyme) == (found.pattern, found.rhyme) and poem.remarks == []
        parts = verses(text_of(poem))
        pairs = [verse[i : i + 2] for verse in parts for i in range(len(verse) - 1)]
        assert max(Counter("".join(parts)).values()) <= 2 and len(set(pairs)) == len(pairs)


def test_a_transformer_writes_regular_verse_too_and_without_rules_poems_are_as_the_network_likes():
    assert all(map(is_regular, write(regular_poet(backbone="transformer"), n=3, form="七绝", candidates=2, **ABOUT)))
    poems = write(regular_poet(), n=20, form="七绝", regular=False, candidates=1)
    assert not any(map(is_regular, poems)) and all(poem.pattern == poem.rhyme == "" for poem in poems)
    [poem] = write(poet(), form="五绝")
    assert poem.pattern == "" and "no rhyme table" in poem.remarks[0]
    assert write(poet(), form="五绝", regular=False)[0].remarks == []


@pytest.mark.parametrize("pattern", ["平起首句入韵", "平起首句不入韵", "仄起首句入韵", "仄起首句不入韵"])
def test_pattern_and_rhyme_are_those_asked_for(pattern):
    for poem in write(regular_poet(), n=8, form="五律", pattern=pattern, rhyme="先", candidates=2, **ABOUT):
        rhymes = [v[-1] for v in verses(text_of(poem))][1::2]
        assert is_regular(poem) and poem.rhyme == "一先" and set(rhymes) <= set(XIAN)
        second, last = (verses(poem.lines[0])[0][i] for i in (1, -1))
        assert second in (OBLIQUE if pattern[0] == "仄" else DONG + XIAN) + BOTH
        assert last in (OBLIQUE if "不" in pattern else XIAN) + BOTH


@pytest.mark.parametrize("given", [DONG[0] + OBLIQUE[0] + XIAN[1] + BOTH[0], OBLIQUE[:2] + DONG[:2], "龘A😀"])
def test_the_pattern_fits_what_is_given(given):
    """七绝: the first place of each verse is free, so any acrostic fits; and so does one verse of a handbook."""
    for poem in write(regular_poet(), n=5, form="七绝", acrostic=given, candidates=2, **ABOUT):
        assert check(poem.lines, TABLE).faults == []
        unread = "acrostic: the poet does not know 龘😀 and reads over it"
        free = "龘A😀 has 3 characters, 七绝 4 verses: the others are free"
        assert poem.remarks == ([unread, free] if "龘" in given else [])
        assert "".join(v[0] for v in verses(text_of(poem))).startswith(given)
    prompt = "".join({"平": DONG, "仄": OBLIQUE}[t][i] for i, t in enumerate("仄仄平平仄"))
    for poem in write(regular_poet(), n=5, form="五绝", prompt=prompt, candidates=2):
        assert is_regular(poem) and poem.pattern == "仄起首句不入韵" and poem.lines[0].startswith(prompt)


def test_a_character_that_fits_no_pattern_is_named_and_nothing_else_gives_way():
    """平平平平 at the beginning: the second and fourth place want different tones in every pattern."""
    for poem in write(regular_poet(), n=10, form="五绝", prompt=DONG[:4], candidates=2):
        [remark] = poem.remarks
        [(character, place)] = re.findall(r"(.) \(verse 1, character (\d)\)", remark)
        assert DONG[int(place) - 1] == character and place in "24"
        assert {(f.verse, f.place) for f in check(poem.lines, TABLE).faults} <= {(1, 2), (1, 4)}


@pytest.mark.parametrize("rhyme, odd", [("", 4), ("先", 2)])
def test_given_verses_that_do_not_rhyme_are_named(rhyme, odd):
    """五绝, 平平仄仄平 and 仄仄仄平平 as second and fourth verse, with rhymes of two groups."""
    second, fourth = DONG[:2] + OBLIQUE[:2] + DONG[2], OBLIQUE[2:5] + DONG[3] + XIAN[0]
    for poem in write(regular_poet(), n=5, lines=["", second, "", fourth], rhyme=rhyme, candidates=2):
        [remark] = poem.remarks
        assert f"(verse {odd}, character 5) does not rhyme" in remark
        faults = {(f.kind, f.verse) for f in check(poem.lines, TABLE).faults}
        assert {kind for kind, _ in faults} == {"出韵"} and len(faults) <= 2


KEPT = {"lines": ["春江花月夜", "", "", ""]}


@pytest.mark.parametrize(
    "settings, message",
    [
        ({"form": "五绝", "prompt": "春" * 21}, "21 characters, the form only 20"),
        ({"form": "五绝", "prompt": "月", "acrostic": "春江"}, "different characters"),
        ({"rhyme": "董"}, "no level-tone group"),
        ({"pattern": "仄起"}, "pattern=仄起: choose auto or one of 平起首句不入韵"),
        ({"pattern": "平起首句入韵", "form": "浣溪沙"}, "pattern=平起首句入韵: needs"),
        ({"lines": ["春江花月夜", "春江"]}, "one length"),
        ({"lines": ["春江花月夜", "", ""]}, "3 verses of 5 characters are none of"),
        ({**KEPT, "form": "七绝"}, "do not fit 七绝"),
        ({**KEPT, "prompt": "夜"}, "different characters"),
        ({**KEPT, "form": "free"}, "need one length and a form"),
    ],
)
def test_settings_that_do_not_fit_are_refused(settings, message):
    with pytest.raises(UserError, match=message):
        write(regular_poet(), **settings)


def test_no_verse_of_the_corpus_is_written_unless_it_has_every_verse():
    model = regular_poet(seen_bytes=1000)
    first = write(model, n=10, form="五绝", candidates=1, seed=3, **ABOUT)
    model.remember(copied := verses("".join(map(text_of, first))))
    again = write(model, n=10, form="五绝", candidates=1, seed=3, **ABOUT)
    assert all(map(is_regular, again)) and any(model.seen(copied))
    assert not any(model.seen(verses("".join(map(text_of, again)))))
    model = regular_poet(DONG[:3] + OBLIQUE + MARKS, seen_bytes=8)  # of three rhyme words none is left to draw anew
    model.seen_verses.fill_(255)
    for n in (1, 3):
        for poem in write(model, n=n, form="五绝", candidates=1, **ABOUT):
            assert [len(verse) for verse in verses(text_of(poem))] == [5] * 4


# ---------------------------------------------------------------------------------------------- editing and ranking


def test_locked_verses_are_kept_and_the_others_written():
    before = text_of(write(regular_poet(), form="七律", seed=1)[0])
    after = verses(text_of(write(regular_poet(), lines=keep_verses(before, "1,3,8"), seed=2)[0]))
    assert [v for v, (a, b) in enumerate(zip(verses(before), after, strict=True), 1) if a == b] == [1, 3, 8]
    two = "春江，花月。"
    assert keep_verses("", "") == [] and keep_verses(two, "2，1") == ["春江", "花月"]
    for poem, lock, message in (
        (two, "", "belong together"), ("", "1", "belong together"), (two, "3", "from 1 to 2"),
        (two, "a", "from 1 to 2"), ("spring", "1", "no Chinese verse"),
    ):  # fmt: skip
        with pytest.raises(UserError, match=message):
            keep_verses(poem, lock)


def test_a_verse_is_written_to_suit_what_follows():
    """Two poems by heart with the same beginning: the third verse that is given decides which second one is written."""
    ways = ["春江花月夜，山山水水云。风门风夜夜，云水月花江。", "春江花月夜，云云水门门。江月江花水，水山夜风云。"]
    torch.manual_seed(0)
    model = train(Poet(SPECIALS + list("春江花月夜山水云风门，。"), 16, 48, 1, 0.0, attention=0), *ways)
    for way in ways:
        for seed in range(4):
            [poem] = write(model, lines=["春江花月夜", "", verses(way)[2], ""], seed=seed)
            assert text_of(poem) == way


@pytest.mark.parametrize("form", ["七绝", "七律"])
def test_the_rating_is_what_it_is_said_to_be(form):
    model = regular_poet()
    for poem in write(model, n=4, form=form, title=XIAN[:2], author=DONG[:2], candidates=4):
        tokens = [f"<{form}>", AUTHOR, *DONG[:2], TITLE, *XIAN[:2]]
        score = score_of(model, poem, tokens)
        log_p = log_probs_of(model, poem, tokens)[:, 1:]
        expected = -(log_p.exp() * log_p).sum(1).mean().item()
        ids = torch.tensor([Vocabulary(model.vocab).encode(text_of(poem))])
        shape = Shape.even(FORMS[form][0], 7)
        parallel = parallelism(model, ids, shape, [2, 4]).item() if form == "七律" else 0.0
        rating = -abs(-score - expected) + THEME * (score - score_of(model, poem, tokens[:4])) + PARALLEL * parallel
        rating += attestation(Lexicon.of(model).pairs, ids, shape).item()
        assert poem.rating == pytest.approx(rating, abs=1e-4)


def test_keywords_and_candidates_make_better_poems():
    model, words = regular_poet(), [XIAN[5], OBLIQUE[7]]
    asked = {"form": "五绝", "candidates": 8, "temperature": 1.0, **ABOUT}
    ways = [write(model, n=16, keywords=given, **asked) for given in ((), words)]
    plain, asked = (sum(w in text_of(p) for w in words for p in poems) for poems in ways)
    assert asked > 1.5 * plain, (plain, asked)
    one, many = (sum(p.rating for p in write(model, n=8, form="七律", candidates=c, **ABOUT)) for c in (1, 16))
    assert many > one + 0.5


def test_attested_pairs_by_hand():
    """春江 is common, 江花 occurs, 花月 does not; in verses of five the pairs 1-2 and 3-4 are words."""
    vocabulary = Vocabulary(SPECIALS + list("春江花月，"))
    spring, river, flower, moon, pause = vocabulary.encode("春江花月，")
    keys = torch.tensor(sorted([spring * len(vocabulary) + river, river * len(vocabulary) + flower]))
    pairs = Pairs(keys, keys // len(vocabulary) == spring, len(vocabulary))
    assert pairs.followers(torch.tensor([spring, moon])).nonzero().tolist() == [[0, river]]
    sets = torch.zeros(2, 1, len(vocabulary), dtype=torch.bool)
    sets[0, 0, [river, moon]] = sets[1, 0, flower] = True
    assert pairs.leads(sets).nonzero().tolist() == [[0, 0, spring]], "江 does not often lead to 花"
    verse = [spring, river, flower, moon, moon, pause]
    found = attestation(pairs, torch.tensor([verse * 4]), Shape.even(4, 5)).item()
    assert found == pytest.approx(ATTESTED / 4 - UNSEEN / 2)
    shipped = Lexicon.of(poet("春风白铁猫日"))
    texts = (torch.tensor(shipped.vocabulary.encode(text)) for text in ("春白猫", "风日铁"))
    seen, common = shipped.pairs.attested(*texts)
    assert seen.tolist() == common.tolist() == [True, True, False]


def test_titles_are_drawn_for_poems_about_nothing_and_hardly_ever_twice():
    titles = [draw_title(seed) for seed in range(100)]
    assert len(set(titles)) > 90 and titles == [draw_title(seed) for seed in range(100)]
    model = regular_poet("春" + DONG + XIAN + OBLIQUE + MARKS)
    [poem] = write(model, form="五绝", seed=3)
    title = [c if c in model.vocab else "<unk>" for c in draw_title(3)]
    assert poem.score == pytest.approx(score_of(model, poem, ["<五绝>", TITLE, *title]), abs=1e-4) and poem.title == ""


def test_poets_of_whom_nobody_knows_are_named():
    assert remarks_on("") == remarks_on("李白") == []
    assert "there are 李白" in remarks_on("李白白")[0]
    assert remarks_on("爱因斯坦") == ["爱因斯坦 is no poet of the corpus"]


def test_repetition_by_hand():
    assert repetition("我歌我歌") == pytest.approx(1 / 3) and repetition("白日依山尽") == repetition("") == 0


def test_parallelism_by_hand():
    """Embeddings at right angles: a character is like itself or like nothing."""
    model = Poet(SPECIALS + list(CHARACTERS + "，。"), embed=40, hidden=8, layers=1, attention=0)
    model.embed.weight.data = torch.eye(len(model.vocab), 40)
    a, b, c, pause = Vocabulary(model.vocab).encode("春江花，")
    model.embed.weight.data[c] = model.embed.weight.data[a]  # another character of the same sense
    for answer, expected in ((b, 0.0), (c, 0.5), (a, -0.5)):
        poem = torch.tensor([[i for first in (a, a, a, answer, a, b, a, a) for i in [first] * 5 + [pause]]])
        assert parallelism(model, poem, Shape.even(8, 5), [2, 4]).item() == pytest.approx(expected)


def test_candidates_survive_as_often_as_their_share():
    weight = torch.tensor([[0.5, 0.25, 0.125, 0.125], [1.0, 0.0, 0.0, 0.0]]).log()
    rows = torch.stack([resample(weight, torch.tensor([u, u])).view(2, 4) for u in torch.arange(0.005, 1, 0.01)])
    survived = [[(rows[:, poem] == 4 * poem + c).float().mean().item() for c in range(4)] for poem in range(2)]
    assert survived[0] == pytest.approx([0.5, 0.25, 0.125, 0.125], abs=1e-6) and survived[1] == [1, 0, 0, 0]
    assert all((rows[:, 0] == 0).sum(1) == 2)  # not only on average


def test_guidance_is_added_to_the_logits_in_proportion(monkeypatch):
    """At the first place, where all have read the same: log p + g (log p with the theme - log p without it)."""
    choose, first = Decoder._choose, []

    def see(self, draft, logits, place, random):
        if place == 0:
            first.append(logits[0].clone())
        return choose(self, draft, logits, place, random)

    monkeypatch.setattr(Decoder, "_choose", see)
    for guidance in (0.0, 1.0, 3.0):
        write(poet(), form="五绝", keywords=[CHARACTERS[0]], guidance=guidance, candidates=2)
    plain, once, thrice = (logits[first[0].isfinite()] for logits in first)
    assert (once - plain).abs().max() > 1e-3
    torch.testing.assert_close(thrice - plain, 3 * (once - plain), atol=1e-4, rtol=1e-4)
