"""Trains a model: `python -m metassl_tf.train --flagfile=flags/digits/quickstart.flags --workdir=runs/quickstart`.

The same command again resumes; `--help` lists every setting.
"""

import sys

from absl import app, flags

from metassl_tf import flag_definitions
from metassl_tf.engine import run
from metassl_tf.engine.workdir import Workdir
from metassl_tf.errors import UserError

_WORKDIR = flags.DEFINE_string(
    "workdir", None, "Folder of the run; default: runs/<dataset>-<algorithm>-<num_labeled>-<seed>."
)
flags.adopt_module_key_flags(flag_definitions)


def main(arguments: list[str]) -> None:
    """Runs the command line."""
    try:
        if arguments[1:]:
            raise UserError(f"Unexpected argument {arguments[1]!r}. Expected flags only, written as --name=value.")
        flag_definitions.check_flagfile_first(sys.argv[1:])
        config = flag_definitions.read()
        workdir = Workdir(_WORKDIR.value or run.default_workdir(config))
        result = run.train(config, workdir)
    except UserError as error:
        sys.exit(f"error: {error}")
    except KeyboardInterrupt:
        sys.exit("\nStopped. Give the same command again to resume from the last checkpoint.")
    print(run.describe(result, workdir))


if __name__ == "__main__":
    app.run(main)
