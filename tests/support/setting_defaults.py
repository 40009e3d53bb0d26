"""Places of a module's source that give a name a default."""

import ast
from collections.abc import Iterator


def defaults(tree: ast.AST) -> Iterator[tuple[str, ast.expr]]:
    """Names of parameters, fields and class attributes that have a default, with the default."""
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            positional = [*node.args.posonlyargs, *node.args.args]
            first = len(positional) - len(node.args.defaults)
            yield from zip((a.arg for a in positional[first:]), node.args.defaults, strict=True)
            keywords = zip(node.args.kwonlyargs, node.args.kw_defaults, strict=True)
            yield from ((a.arg, default) for a, default in keywords if default is not None)
        elif isinstance(node, ast.ClassDef):
            for line in node.body:
                if isinstance(line, ast.AnnAssign) and line.value is not None:
                    yield ast.unparse(line.target), line.value
                elif isinstance(line, ast.Assign):
                    yield from ((ast.unparse(target), line.value) for target in line.targets)
