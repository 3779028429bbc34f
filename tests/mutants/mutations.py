"""Which small defects a module can have: found in its syntax tree, made in its text."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

COMPARISONS: Final[dict[type[ast.cmpop], type[ast.cmpop]]] = {
    ast.Lt: ast.LtE,
    ast.LtE: ast.Lt,
    ast.Gt: ast.GtE,
    ast.GtE: ast.Gt,
    ast.Eq: ast.NotEq,
    ast.NotEq: ast.Eq,
    ast.Is: ast.IsNot,
    ast.IsNot: ast.Is,
    ast.In: ast.NotIn,
    ast.NotIn: ast.In,
}
ARITHMETIC: Final[dict[type[ast.operator], type[ast.operator]]] = {
    ast.Add: ast.Sub,
    ast.Sub: ast.Add,
    ast.Mult: ast.Div,
    ast.Div: ast.Mult,
    ast.FloorDiv: ast.Mult,
    ast.Mod: ast.Mult,
    ast.Pow: ast.Mult,
}
LOGGERS: Final = ("log", "logger", "logging")
UNTESTED: Final = ("annotation", "returns", "decorator_list", "bases", "keywords")
"""Fields of the tree that are left alone: types are checked by mypy, decorators and bases by the import."""


@dataclass(frozen=True, slots=True)
class Mutant:
    """One defect: `text[start:stop]` of a module becomes `after`. Offsets count bytes of UTF-8."""

    start: int
    stop: int
    line: int
    before: str
    after: str

    def made_in(self, source: str) -> str:
        """Return the module with the defect."""
        raw = source.encode()
        return (raw[: self.start] + self.after.encode() + raw[self.stop :]).decode()

    def __str__(self) -> str:
        before, after = (" ".join(text.split()) for text in (self.before, self.after))
        return f"{before} -> {after}"


def mutants_of(source: str) -> list[Mutant]:
    """Return every defect that the tool knows for a module, in the order of its text."""
    finder = _Finder(source)
    finder.visit(ast.parse(source))
    return sorted(finder.found, key=lambda mutant: (mutant.start, mutant.stop, mutant.after))


class _Finder(ast.NodeVisitor):
    def __init__(self, source: str) -> None:
        self._raw = source.encode()
        starts = [0]
        for line in self._raw.splitlines(keepends=True):
            starts.append(starts[-1] + len(line))
        self._starts = starts
        self.found: list[Mutant] = []

    def visit(self, node: ast.AST) -> None:
        if _says_nothing(node):
            return
        for after in _changed(node):
            self._add(node, after)
        self.generic_visit(node)

    def generic_visit(self, node: ast.AST) -> None:
        for name, value in ast.iter_fields(node):
            # Types are checked by mypy, decorators by the import itself.
            if name in ("annotation", "returns", "decorator_list", "bases", "keywords") and not isinstance(
                node, ast.Call
            ):
                continue
            if isinstance(node, ast.JoinedStr | ast.FormattedValue):
                return  # positions inside f-strings are only known from Python 3.12 on
            for child in value if isinstance(value, list) else [value]:
                if isinstance(child, ast.AST):
                    self.visit(child)

    def _add(self, node: ast.AST, after: str) -> None:
        assert isinstance(node, ast.expr | ast.stmt)
        assert node.end_lineno is not None
        assert node.end_col_offset is not None
        start = self._starts[node.lineno - 1] + node.col_offset
        stop = self._starts[node.end_lineno - 1] + node.end_col_offset
        self.found.append(Mutant(start, stop, node.lineno, self._raw[start:stop].decode(), after))


def _says_nothing(node: ast.AST) -> bool:
    """Return whether no test should depend on `node`: error messages, logs, imports for types, how help looks."""
    match node:
        case ast.Raise() | ast.Import() | ast.ImportFrom() | ast.Assert():
            return True
        case ast.If(test=ast.Name(id="TYPE_CHECKING")):
            return True
        case ast.Expr(value=ast.Constant()) | ast.keyword(arg="show_default"):
            return True
        case ast.Expr(value=ast.Call(func=ast.Attribute(value=ast.Name(id=name)))):
            return name in LOGGERS
        case _:
            return False


def _changed(node: ast.AST) -> Iterator[str]:
    """Yield the texts that take the place of `node`, one per defect."""
    match node:
        case ast.Compare(left=left, ops=[first, *rest], comparators=comparators) if type(first) in COMPARISONS:
            yield _text(ast.Compare(left, [COMPARISONS[type(first)](), *rest], comparators))
        case ast.BoolOp(op=op, values=values):
            yield _text(ast.BoolOp(ast.Or() if isinstance(op, ast.And) else ast.And(), values))
        case ast.UnaryOp(op=ast.Not(), operand=operand):
            yield _text(operand)
        case ast.BinOp(left=left, op=op, right=right) if type(op) in ARITHMETIC:
            yield _text(ast.BinOp(left, ARITHMETIC[type(op)](), right))
        case ast.Constant(value=bool() as value):
            yield str(not value)
        case ast.Constant(value=int() | float() as value):
            yield f"({value + 1!r})"
        case ast.Return(value=ast.expr() as value) if not isinstance(value, ast.Constant):
            yield "return None"
        case ast.Expr(value=ast.Call() | ast.Await(value=ast.Call())):
            yield "pass"
        case _:
            pass


def _text(expression: ast.expr) -> str:
    return f"({ast.unparse(ast.fix_missing_locations(expression))})"
