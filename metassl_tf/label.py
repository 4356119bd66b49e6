"""Lets a trained teacher label the training examples of a run, which then learns from its stored distributions.

    python -m metassl_tf.train --flagfile=flags/digits/supervised_40.flags --workdir=runs/teacher
    python -m metassl_tf.label --flagfile=flags/digits/noisy_student_40.flags --teacher=runs/teacher
    python -m metassl_tf.train --flagfile=flags/digits/noisy_student_40.flags --workdir=runs/student

The flagfile is that of the student's run, so that both mean the same examples; the labels go to its `--stored_labels`.
The same command again goes on where it was stopped. A student can be the next teacher, with another `--stored_labels`.
"""

from pathlib import Path

from absl import flags

from metassl_tf import flag_definitions
from metassl_tf.engine.labeling import label_examples
from metassl_tf.errors import UserError

_TEACHER = flags.DEFINE_string("teacher", None, "Workdir, export folder or .keras file of the model that labels.")
flags.adopt_module_key_flags(flag_definitions)


def main() -> None:
    """Runs the command line."""
    config = flag_definitions.read()
    if not _TEACHER.value:
        raise UserError("--teacher is missing. Expected the workdir, export folder or .keras file of a trained model.")
    print(label_examples(config, Path(_TEACHER.value)).describe())
    print(f"written to     {config.data.stored_labels}")


if __name__ == "__main__":
    flag_definitions.run_binary(main)
