"""Trains a model: `python -m metassl_tf.train --flagfile=flags/digits/quickstart.flags --workdir=runs/quickstart`.

The same command again resumes; `--help` lists every setting.
"""

from absl import flags

from metassl_tf import flag_definitions
from metassl_tf.engine import run
from metassl_tf.engine.workdir import Workdir

_WORKDIR = flags.DEFINE_string(
    "workdir", None, "Folder of the run; default: runs/<dataset>-<algorithm>-<num_labeled>-<seed>."
)
flags.adopt_module_key_flags(flag_definitions)


def main() -> None:
    """Runs the command line."""
    config = flag_definitions.read()
    workdir = Workdir(_WORKDIR.value or run.default_workdir(config))
    print(run.describe(run.train(config, workdir), workdir))


if __name__ == "__main__":
    flag_definitions.run_binary(main)
