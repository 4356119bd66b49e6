"""Meta Pseudo Labels in a run: a second network, built from the settings, and said clearly when it cannot teach."""

import dataclasses

from metassl_tf.config import Config, Network
from metassl_tf.data.examples import Dataset
from metassl_tf.engine.networks import build_learner
from metassl_tf.errors import UserError
from metassl_tf.learner.learner import Learner
from metassl_tf.meta.meta_pseudo_labels import MetaPseudoLabels
from metassl_tf.meta.teaching import Teaching


def network_of_student(config: Config) -> Network:
    """The run's own network; one that waits for its teacher has a schedule of the steps that remain.

    Raises:
      UserError: it would wait to the end, or warm up to it.
    """
    settings, network = config.meta_rule(MetaPseudoLabels), config.student
    if settings is None or not settings.student_wait_steps:
        return network
    if settings.student_wait_steps >= config.train.steps:
        raise UserError(
            f"--student_wait_steps={settings.student_wait_steps} does not end before --steps={config.train.steps}, so "
            "that the student would never learn. Expected fewer steps of waiting than of training."
        )
    steps = config.train.steps - settings.student_wait_steps
    if config.train.warmup_steps >= steps:
        raise UserError(
            f"--student_wait_steps={settings.student_wait_steps} and --warmup_steps={config.train.warmup_steps} behind "
            f"them do not end before --steps={config.train.steps}. Expected fewer steps of both than of training."
        )
    return dataclasses.replace(network, train=dataclasses.replace(network.train, steps=steps))


def build_teaching(config: Config, dataset: Dataset, student: Learner) -> Teaching | None:
    """Builds the rule that `--meta=meta_pseudo_labels` asks for, with its teacher. Call it inside `strategy.scope()`.

    Args:
      config: of the run.
      dataset: gives the shape of the inputs and the number of classes.
      student: the run's own learner.

    Returns:
      The rule, or None where the run does not ask for it.

    Raises:
      UserError: the teacher is to stay what it was, which was nothing, or it cannot be built.
    """
    settings = config.meta_rule(MetaPseudoLabels)
    if settings is None or config.teacher is None:
        return None
    if settings.freeze_teacher and not settings.init_teacher_from:
        raise UserError(
            "--freeze_teacher keeps the teacher's weights, and they are random. Expected --init_teacher_from: the "
            "workdir of a run that has trained one."
        )
    # Other weights and other dropout masks than the student's.
    teacher = build_learner(config.teacher, dataset, seed=config.run.seed + 1)
    return Teaching(settings, teacher, student, config.algorithm, seed=config.run.seed)
