"""Draws how fast approximate inverse Hessians come to the exact influence: `python -m tools.convergence`."""

from absl import flags

from metassl_tf import flag_definitions
from tools.outputs import output_file
from tools.solver_figure import digits, draw, errors

_OUTPUT = flags.DEFINE_string("output", "convergence.png", "Picture to write, PNG.")
_TERMS = (1, 2, 3, 5, 10, 20, 50, 100, 200, 500)


def main() -> None:
    """Runs the command line."""
    flag_definitions.given((), why="a picture of solvers")
    path = output_file(_OUTPUT)
    draw(errors(digits(), _TERMS), path)
    print(path)


if __name__ == "__main__":
    flag_definitions.run_binary(main)
