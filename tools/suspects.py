"""Draws the most suspicious images of a finished run with learned weights, as a picture for a page or a paper.

    python -m tools.suspects --workdir=runs/suspicious --output=suspicious.png

An image stands over the label that came with it; the report of the run shows the same with more about each. Where the
truth is known, labels that are wrong are red and those that are right are grey.
"""

from absl import flags

from metassl_tf import flag_definitions
from metassl_tf.engine.workdir import Workdir
from metassl_tf.errors import UserError
from tools.outputs import output_file
from tools.suspect_figure import draw, suspects

_WORKDIR = flags.DEFINE_string("workdir", None, "Folder of a finished run, as given to metassl_tf.train.")
_OUTPUT = flags.DEFINE_string("output", "suspicious.png", "Picture to write, PNG.")
_COUNT = flags.DEFINE_integer("count", 36, "Number of images.", lower_bound=1)


def main() -> None:
    """Runs the command line."""
    flag_definitions.given((), why="a picture: the workdir's own settings hold")
    if not _WORKDIR.value:
        raise UserError("--workdir is missing. Expected the folder of a run, as given to metassl_tf.train.")
    output = output_file(_OUTPUT)
    found = suspects(Workdir(_WORKDIR.value), _COUNT.value)
    draw(found, output)
    known = [suspect.right for suspect in found if suspect.right is not None]
    wrong = f", of which {known.count(False)} of {len(known)} labels are wrong" if known else ""
    print(f"{output}: the {len(found)} lowest weights{wrong}")


if __name__ == "__main__":
    flag_definitions.run_binary(main)
