"""What documents quote from the project: where a function stands, whether it has these lines."""

import ast
import re
from functools import cache

from tests.servers import ROOT

LINK = r"\[([\w./]+)(?:: ([\w.]+))?\]\(\.\./([\w./]+)\)"


@cache
def symbols(path: str) -> dict[str, str]:
    """{dotted name: source} of what a Python file defines: functions, classes, their methods, fields and constants."""
    source = (ROOT / path).read_text(encoding="utf-8")
    lines, found = source.split("\n"), {}

    def visit(body: list[ast.stmt], prefix: str) -> None:
        for node in body:
            names = []
            if isinstance(node, ast.FunctionDef | ast.ClassDef):
                names = [node.name]
            elif isinstance(node, ast.AnnAssign | ast.Assign):
                targets = node.targets if isinstance(node, ast.Assign) else [node.target]
                names = [name.id for target in targets for name in ast.walk(target) if isinstance(name, ast.Name)]
            for name in names:
                found[prefix + name] = "\n".join(lines[node.lineno - 1 : node.end_lineno])
            if isinstance(node, ast.ClassDef):
                visit(node.body, f"{prefix}{node.name}.")

    visit(ast.parse(source).body, "")
    return found


def squeezed(text: str) -> str:
    return re.sub(r"\s+", "", text)
