"""Names of files in tables that people open in a spreadsheet."""

# What a spreadsheet takes for the beginning of a formula.
_FORMULA = ("=", "+", "-", "@", "\t", "\r")


def file_cell(name: str) -> str:
    """A file's name as a cell: one that would be taken for a formula gets `./` before it, which names the same file."""
    return f"./{name}" if name.startswith(_FORMULA) else name
