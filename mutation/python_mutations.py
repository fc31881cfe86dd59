"""Deliberate breaks of Python, by the operators of cosmic-ray, and statements that are left out."""

from __future__ import annotations

import ast
import dataclasses
from collections.abc import Iterator
from pathlib import Path

import parso
from cosmic_ray.ast import ast_nodes
from cosmic_ray.mutating import mutate_code
from cosmic_ray.operators.operator import Operator
from cosmic_ray.plugins import get_operator
from coverage import Coverage

# Of cosmic-ray's eleven ways to break one `+`, one: a test that sees one of them mostly sees all.
OPERATORS = [
    *("AddNot", "ReplaceUnaryOperator_Delete_Not", "ReplaceUnaryOperator_Delete_USub"),
    *("ReplaceTrueWithFalse", "ReplaceFalseWithTrue", "ReplaceAndWithOr", "ReplaceOrWithAnd"),
    *("ReplaceBreakWithContinue", "ReplaceContinueWithBreak", "ZeroIterationForLoop"),
    *("ExceptionReplacer", "RemoveDecorator", "NumberReplacer"),
    *("ReplaceComparisonOperator_Eq_NotEq", "ReplaceComparisonOperator_NotEq_Eq"),
    *("ReplaceComparisonOperator_Is_IsNot", "ReplaceComparisonOperator_IsNot_Is"),
    *("ReplaceComparisonOperator_Lt_LtE", "ReplaceComparisonOperator_LtE_Lt"),
    *("ReplaceComparisonOperator_Gt_GtE", "ReplaceComparisonOperator_GtE_Gt"),
    *("ReplaceBinaryOperator_Add_Sub", "ReplaceBinaryOperator_Sub_Add", "ReplaceBinaryOperator_Mul_Add"),
    *("ReplaceBinaryOperator_Div_Mul", "ReplaceBinaryOperator_FloorDiv_Mul", "ReplaceBinaryOperator_Mod_Mul"),
    *("ReplaceBinaryOperator_Pow_Mul", "ReplaceBinaryOperator_RShift_LShift", "ReplaceBinaryOperator_LShift_RShift"),
    *("ReplaceBinaryOperator_BitOr_BitAnd", "ReplaceBinaryOperator_BitAnd_BitOr", "ReplaceBinaryOperator_BitXor_BitOr"),
]


class LeaveOutStatement(Operator):
    """`pass` in the place of a statement of a function; cosmic-ray has nothing of the kind."""

    def mutation_positions(self, node):
        if node.type == "simple_stmt" and node.search_ancestor("funcdef") is not None:
            statement = node.children[0]
            # Of `name: type` nothing runs.
            is_declaration = statement.type == "expr_stmt" and len(getattr(statement.children[1], "children", ())) == 2
            if statement.type in ("expr_stmt", "atom_expr", "raise_stmt", "del_stmt") and not is_declaration:
                yield statement.start_pos, statement.end_pos

    def mutate(self, node, index):
        statement = node.children[0]
        node.children[0] = parso.python.tree.Keyword("pass", statement.start_pos, statement.get_first_leaf().prefix)
        return node

    @classmethod
    def examples(cls):
        return ()


@dataclasses.dataclass(frozen=True)
class Place:
    path: Path
    operator: str
    occurrence: int  # among all where the operator fits
    number: int  # of the line, from 1 on
    statement: range  # the lines of the statement around it; none where it runs on import
    function: str  # the name of the one around it, empty where it runs on import

    def mutation(self, root: Path) -> Mutation:
        source = (root / self.path).read_text(encoding="utf-8")
        return Mutation(self, source, mutate_code(source, _operator(self.operator), self.occurrence))


@dataclasses.dataclass(frozen=True)
class Mutation:
    place: Place
    source: str
    mutated: str

    @property
    def is_program(self) -> bool:
        """That it compiles, and not to the same."""
        try:
            return ast.dump(ast.parse(self.mutated)) != ast.dump(ast.parse(self.source))
        except SyntaxError:
            return False

    @property
    def key(self) -> str:
        """What stays the same while other lines of the file change."""
        old, new = (" ".join(line.strip() for line in lines if line.strip()) for lines in self._changed())
        where = f"{self.place.path.as_posix()} {self.place.function}".rstrip()
        return f"{where}: {old} -> {new}"

    def __str__(self) -> str:
        old, new = self._changed()
        return "\n".join(
            [
                f"{self.place.path}:{self.place.number}",
                *(f"    - {line.strip()}" for line in old),
                *(f"    + {line.strip()}" for line in new),
            ]
        )

    def _changed(self) -> tuple[list[str], list[str]]:
        old, new = self.source.split("\n"), self.mutated.split("\n")
        while old and new and old[0] == new[0]:
            del old[0], new[0]
        # Of a decorator that is left out the line below tells which one it was.
        while old and new and old[-1] == new[-1] and "".join(new[:-1]).strip():
            del old[-1], new[-1]
        return old, new


def places(root: Path, path: Path) -> list[Place]:
    """Where a file can be broken; what only type checkers read is left out, as the report of the coverage leaves it out."""
    source = (root / path).read_text(encoding="utf-8")
    # Another Python goes the other way.
    excluded = {number for number, line in enumerate(source.split("\n"), 1) if "sys.version_info" in line}
    excluded.update(Coverage(data_file=None, config_file=str(root / "pyproject.toml")).analysis2(str(root / path))[2])
    tree, annotations, statements = parso.parse(source), list(_annotations(source)), list(_statements(source))
    found = []
    for name in [*OPERATORS, LeaveOutStatement.__name__]:
        operator = _operator(name)
        positions = (position for node in ast_nodes(tree) for position in operator.mutation_positions(node))
        for occurrence, (start, _) in enumerate(positions):
            if start[0] not in excluded and not any(first <= start < end for first, end in annotations):
                around = [each for each in statements if start[0] in each[0]]
                statement, function = min(around, key=lambda each: len(each[0]), default=(range(0), ""))
                found.append(Place(path, name, occurrence, start[0], statement, function))
    return found


def _operator(name: str) -> Operator:
    return LeaveOutStatement() if name == LeaveOutStatement.__name__ else get_operator(f"core/{name}")()


def _annotations(source: str) -> Iterator[tuple[tuple[int, int], tuple[int, int]]]:
    """Nothing evaluates them. Columns are those of characters as long as the code is ASCII, which it is."""
    for node in ast.walk(ast.parse(source)):
        for each in (getattr(node, "annotation", None), getattr(node, "returns", None)):
            if each is not None:
                yield (each.lineno, each.col_offset), (each.end_lineno, each.end_col_offset)


def _statements(source: str) -> Iterator[tuple[range, str]]:
    """The lines of each statement of a function, and its name; of those that have a body, the lines above it."""
    for function in ast.walk(ast.parse(source)):
        if isinstance(function, (ast.FunctionDef, ast.AsyncFunctionDef)):
            for node in (each for statement in function.body for each in ast.walk(statement)):
                if isinstance(node, (ast.stmt, ast.ExceptHandler)):
                    body = getattr(node, "body", None)
                    end = max(node.lineno + 1, body[0].lineno) if body else node.end_lineno + 1
                    yield range(node.lineno, end), function.name
