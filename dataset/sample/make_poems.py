"""Writes the quatrains of poetry/written.jsonl.xz with the shipped poet: python dataset/sample/make_poems.py 5000

Each is the best of some candidates to a title of its own, keeps all rules, and shares no verse with the poet's corpus
nor with another one.
"""

import json
import lzma
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from tqdm import tqdm  # noqa: E402  the path first

from data.verse import split_verses  # noqa: E402
from infer.verse.drawn import draw_title  # noqa: E402
from shihua import Poet  # noqa: E402

WRITTEN = Path(__file__).parent / "poetry" / "written.jsonl.xz"
CANDIDATES = 12
WORST = -0.2  # rating of poems that are left out


def main(count: int) -> None:
    """Goes on with what the file holds, if it is there."""
    poet, seed = Poet(), 0
    poems = [json.loads(line) for line in lzma.open(WRITTEN, "rt", encoding="utf-8")] if WRITTEN.exists() else []
    titles = {(poem["title"], poem["form"]) for poem in poems}
    verses = {verse for poem in poems for verse in split_verses(poem["lines"])}
    with tqdm(total=count, initial=len(poems), unit="poem") as bar:
        while len(poems) < count:
            seed += 1
            title, form = draw_title(seed), ("五绝", "七绝")[seed % 2]
            if (title, form) in titles:
                continue
            [poem] = poet.write(title, form=form, seed=seed, candidates=CANDIDATES)
            good = poem.check.regular and poem.rating > WORST and not verses & set(poem.verses)
            if good and not any(poet.network.seen(poem.verses)):
                poems.append({"title": title, "author": "诗画", "lines": poem.lines, "form": form})
                titles.add((title, form))
                verses |= set(poem.verses)
                bar.update()
                if len(poems) % 100 == 0 or len(poems) == count:
                    text = "".join(json.dumps(p, ensure_ascii=False) + "\n" for p in poems)
                    WRITTEN.parent.mkdir(exist_ok=True)
                    WRITTEN.write_bytes(lzma.compress(text.encode(), preset=9 | lzma.PRESET_EXTREME))


if __name__ == "__main__":
    main(int(sys.argv[1]))
