"""What a migration may not do while the release before is still at work on the tables.

Reads a revision's ``upgrade`` and finds what would break that release's statements or lock a large table:
columns, tables and constraints of values that are dropped or renamed, columns that must hold a value which
the old INSERTs do not give, types that change. A revision of the contract phase, in which no release uses the
old form any more, says so by ``CONTRACTS = "0002"``: the revision whose old form it removes.
"""

import ast
from collections.abc import Iterator

_DESTRUCTIVE = {"drop_column", "drop_table", "rename_table", "drop_index"}
_SQL = ("drop ", "rename ", "truncate", "set not null", "delete from", "alter column")


def destructive_operations(source: str) -> list[str]:
    """Name the operations of a revision that only the contract phase may do.

    Parameters
    ----------
    source
        The revision's code.

    Returns
    -------
    list of str
        Each with its line; empty for a revision that only expands, or that says that it contracts.
    """
    tree = ast.parse(source)
    assigned = {
        target.id
        for node in tree.body
        if isinstance(node, ast.Assign)
        for target in node.targets
        if isinstance(target, ast.Name)
    }
    if "CONTRACTS" in assigned:
        return []
    functions = {node.name: node for node in tree.body if isinstance(node, ast.FunctionDef)}
    return [
        f"line {call.lineno}: {why}"
        for function in _reachable(functions, "upgrade")
        for call in ast.walk(function)
        if isinstance(call, ast.Call) and (why := _fault(call)) is not None
    ]


def _reachable(functions: dict[str, ast.FunctionDef], start: str) -> Iterator[ast.FunctionDef]:
    """Walk through a function and those of the revision that it calls."""
    waiting, seen = [start], {start}
    while waiting:
        function = functions[waiting.pop()]
        yield function
        for call in ast.walk(function):
            if isinstance(call, ast.Call) and isinstance(call.func, ast.Name):
                name = call.func.id
                if name in functions and name not in seen:
                    seen.add(name)
                    waiting.append(name)


def _fault(call: ast.Call) -> str | None:
    if not (
        isinstance(call.func, ast.Attribute)
        and isinstance(call.func.value, ast.Name)
        and call.func.value.id == "op"
    ):
        return None
    operation = call.func.attr
    given = {keyword.arg: keyword.value for keyword in call.keywords}
    if operation in _DESTRUCTIVE:
        return operation
    if operation == "alter_column":
        if any(name in given for name in ("new_column_name", "type_")):
            return "alter_column that renames or changes the type"
        if "nullable" in given and not _is(given["nullable"], True):
            return "alter_column that forbids NULL"
        if "server_default" in given and _is(given["server_default"], None):
            return "alter_column that takes the default away"
    if operation == "add_column":
        return _fault_of_column(call)
    if operation == "execute":
        return _fault_of_sql(call)
    return None


def _fault_of_column(call: ast.Call) -> str | None:
    for column in ast.walk(call):
        if isinstance(column, ast.Call) and ast.unparse(column.func).endswith("Column"):
            given = {keyword.arg: keyword.value for keyword in column.keywords}
            if not _is(given.get("nullable", ast.Constant(True)), True) and "server_default" not in given:
                return "add_column that forbids NULL and has no default of the server"
    return None


def _fault_of_sql(call: ast.Call) -> str | None:
    text = " ".join(
        str(node.value).lower()
        for argument in call.args
        for node in ast.walk(argument)
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
    )
    found = next((word for word in _SQL if word in text), None)
    return None if found is None else f"execute with {found.strip().upper()}"


def _is(node: ast.expr, value: object) -> bool:
    return isinstance(node, ast.Constant) and node.value is value
