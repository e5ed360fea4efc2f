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
    """One change: where, what the expression was and became, its statement as changed, and the whole changed source.

    `function` is the dotted name inside the module, empty outside functions and classes. Of a statement that holds
    others (`if`, `def`) only the head is kept. Both stay what they are when lines move.
    """

    line: int
    before: str
    after: str
    function: str
    statement: str
    source: str

    @property
    def change(self) -> str:
        """`a + b -> a - b`."""
        return f"{self.before} -> {self.after}"


class Place(NamedTuple):
    """A node, the way to it (parent, field, index), and the function and statement that it belongs to."""

    parent: ast.AST
    field: str
    index: int | None
    node: ast.AST
    function: str
    statement: ast.AST

    def put(self, node: ast.AST) -> None:
        """Makes ``node`` stand here."""
        if self.index is None:
            setattr(self.parent, self.field, node)
        else:
            getattr(self.parent, self.field)[self.index] = node


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


def places(node: ast.AST, function: str = "", statement: ast.AST | None = None) -> Iterator[Place]:
    """Every child below ``node``, what is never changed left out."""
    for name, value in ast.iter_fields(node):
        if name in ("annotation", "returns") or isinstance(node, ast.Raise):
            continue
        for index, child in enumerate(value) if isinstance(value, list) else [(None, value)]:
            if isinstance(child, ast.AST):
                inside = child if isinstance(child, ast.stmt) else statement or node
                named = function
                if isinstance(child, ast.FunctionDef | ast.ClassDef):
                    named = f"{function}.{child.name}".lstrip(".")
                yield Place(node, name, index, child, named, inside)
                yield from places(child, named, inside)


def head(statement: ast.AST) -> str:
    """Text of a statement without the statements inside it."""
    inner = ("body", "orelse", "finalbody", "handlers")
    own = {name: [] for name, value in ast.iter_fields(statement) if name in inner and isinstance(value, list)}
    return ast.unparse(_with(statement, **own)).strip()


def mutants(source: str) -> list[Mutant]:
    """Every single change of a source, in order of its lines."""
    tree = ast.parse(source)
    found = []
    for place in list(places(tree)):
        for changed in replacements(place.node):
            place.put(changed)
            texts = ast.unparse(place.node), ast.unparse(changed)
            statement = head(changed if place.statement is place.node else place.statement)
            found.append(Mutant(place.node.lineno, *texts, place.function, statement, ast.unparse(tree)))
            place.put(place.node)
    return sorted(found)
