"""Flagfiles of runs that take a second."""

HEADER = """# A title.
# Paper:     nobody's
# Command:   python -m metassl_tf.train --flagfile=flags/toy/{name}.flags
# Hardware:  one core
# Time:      seconds
# Expected:  {expected}
# Measured:  not yet

# A comment.
"""

SUPERVISED = """--dataset=linear
--num_train=60
--num_test=40
--num_labeled=6
--algorithm=supervised
--batch_size=6
--model=mlp
--hidden_units=4
--learning_rate=0.1
--schedule=constant
--steps=5
--eval_steps=2
"""
WEIGHTS = SUPERVISED.replace("supervised", "pseudo_label") + (
    "--num_meta_validation=10\n--unlabeled_ratio=2\n--threshold=0\n--meta=per_example_weights\n--weight_update_steps=1\n"
)
