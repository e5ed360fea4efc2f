"""Single changes of a Python source: the mechanical faults that a test ought to notice (see mutants.py).

Changed are: each ``+ - * /`` (also ``+=`` and the like) to its inverse, each unary minus (dropped), each comparison
(to its negation), each ``.detach()`` (dropped), each ``mean`` and ``sum`` (swapped), each number (plus one). Left alone
are type annotations, docstrings and what a ``raise`` says.
"""

from __future__ import annotations

import ast
import copy
from collections.abc import Iterator
from typing import NamedTuple

INVERSE: dict[type[ast.AST], type[ast.AST]] = {
    ast.Add: ast.Sub,
    ast.Sub: ast.Add,
    ast.Mult: ast.Div,
    ast.Div: ast.Mult,
    ast.Lt: ast.GtE,
    ast.GtE: ast.Lt,
    ast.Gt: ast.LtE,
    ast.LtE: ast.Gt,
    ast.Eq: ast.NotEq,
    ast.NotEq: ast.Eq,
    ast.Is: ast.IsNot,
    ast.IsNot: ast.Is,
    ast.In: ast.NotIn,
    ast.NotIn: ast.In,
}
SWAPPED = {"mean": "sum", "sum": "mean"}


class Mutant(NamedTuple):
    """One change: where, what the expression was and became, and the whole changed source."""

    line: int
    before: str
    after: str
    source: str

    @property
    def change(self) -> str:
        """`a + b -> a - b`."""
        return f"{self.before} -> {self.after}"


def replacements(node: ast.AST) -> Iterator[ast.AST]:
    """Every faulty form of one node; nothing for most nodes."""
    if isinstance(node, ast.BinOp | ast.AugAssign) and type(node.op) in INVERSE:
        yield _with(node, op=INVERSE[type(node.op)]())
    elif isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
        yield node.operand
    elif isinstance(node, ast.Compare):
        for i, op in enumerate(node.ops):
            yield _with(node, ops=[*node.ops[:i], INVERSE[type(op)](), *node.ops[i + 1 :]])
    elif isinstance(node, ast.Constant) and type(node.value) in (int, float):
        yield _with(node, value=node.value + 1)
    elif isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
        yield from _calls(node, node.func)


def _calls(node: ast.Call, function: ast.Attribute) -> Iterator[ast.AST]:
    if function.attr == "detach":
        yield function.value
    elif function.attr in SWAPPED:
        yield _with(node, func=_with(function, attr=SWAPPED[function.attr]))


def _with(node: ast.AST, **changes: object) -> ast.AST:
    changed = copy.copy(node)
    for name, value in changes.items():
        setattr(changed, name, value)
    return changed


def places(node: ast.AST) -> Iterator[tuple[ast.AST, str, int | None, ast.AST]]:
    """Every child below ``node`` with the way to it (parent, field, index), what is never changed left out."""
    for name, value in ast.iter_fields(node):
        if name in ("annotation", "returns") or isinstance(node, ast.Raise):
            continue
        for index, child in enumerate(value) if isinstance(value, list) else [(None, value)]:
            if isinstance(child, ast.AST):
                yield node, name, index, child
                yield from places(child)


def _put(parent: ast.AST, field: str, index: int | None, child: ast.AST) -> None:
    if index is None:
        setattr(parent, field, child)
    else:
        getattr(parent, field)[index] = child


def mutants(source: str) -> list[Mutant]:
    """Every single change of a source, in order of its lines."""
    tree = ast.parse(source)
    found = []
    for parent, field, index, child in list(places(tree)):
        for changed in replacements(child):
            _put(parent, field, index, changed)
            found.append(Mutant(child.lineno, ast.unparse(child), ast.unparse(changed), ast.unparse(tree)))
            _put(parent, field, index, child)
    return sorted(found)
