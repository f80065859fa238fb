"""The tables in this folder: text, an entry a line; lines that begin with # are comments. No torch here."""

from pathlib import Path

FOLDER = Path(__file__).parent


def table_lines(name: str) -> list[str]:
    """The lines of a table such as verse_images.txt, without comments and empty ones."""
    lines = (FOLDER / name).read_text(encoding="utf-8").splitlines()
    return [line for line in lines if line and not line.startswith("#")]
