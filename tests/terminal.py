"""A terminal to look at."""

import io


class Terminal(io.StringIO):
    """What is written to it, as a terminal would show it."""

    def isatty(self) -> bool:
        return True
