"""Rules with a teacher in a run: two networks, built from the settings, and said clearly when one cannot teach."""

import dataclasses

from metassl_tf.config import Config, Network
from metassl_tf.data.examples import Dataset
from metassl_tf.engine.networks import build_learner
from metassl_tf.errors import UserError
from metassl_tf.learner.learner import Learner, Optimization
from metassl_tf.learner.schedules import Constant
from metassl_tf.meta.meta_pseudo_labels import MetaPseudoLabels, TeachingSettings
from metassl_tf.meta.reduced_meta_pseudo_labels import ReducedMetaPseudoLabels
from metassl_tf.meta.roles import calibrating_teacher, classifying_teacher
from metassl_tf.meta.teaching import Teaching
from metassl_tf.models.calibrator import build_calibrator


def build_teaching(config: Config, dataset: Dataset) -> Teaching | None:
    """Builds the rule with a teacher that `--meta` asks for, and both networks. Call it inside `strategy.scope()`.

    The network that `--algorithm` trains comes first. It starts from the weights and sees the dropout masks that it has
    without a rule as well, so that what such a run measures of it differs by what the rule does, and by nothing else:
    by the feedback, and of an algorithm without a strong view of unlabeled examples by the student's images, which
    batch normalisation sees in the same pass.

    Args:
      config: of the run.
      dataset: gives the shape of the inputs and the number of classes.

    Returns:
      The rule, or None where the run does not ask for one.

    Raises:
      UserError: the settings do not fit the data or each other, or a teacher is to stay what it was, which was nothing.
    """
    seed = config.run.seed
    reduced, settings = config.meta_rule(ReducedMetaPseudoLabels), config.meta_rule(MetaPseudoLabels)
    if reduced:
        student = build_learner(_network_of_student(config), dataset, seed=seed)
        calibrator = _calibrator(config, reduced, dataset, seed=seed + 1)
        return Teaching(reduced, calibrator, student, calibrating_teacher(config.algorithm), seed=seed)
    if settings is None or config.teacher is None:
        return None
    if settings.freeze_teacher and not settings.init_teacher_from:
        raise UserError(
            "--freeze_teacher keeps the teacher's weights, and they are random. Expected --init_teacher_from: the "
            "workdir of a run that has trained one."
        )
    teacher = build_learner(config.teacher, dataset, seed=seed)
    student = build_learner(_network_of_student(config), dataset, seed=seed + 1)
    return Teaching(settings, teacher, student, classifying_teacher(config.algorithm, settings), seed=seed)


def _network_of_student(config: Config) -> Network:
    """The run's own network; one that waits for its teacher has a schedule of the steps that remain.

    Raises:
      UserError: it would wait to the end, or warm up to it.
    """
    settings, network = config.meta_rule(TeachingSettings), config.student
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


def _calibrator(config: Config, settings: ReducedMetaPseudoLabels, dataset: Dataset, *, seed: int) -> Learner:
    model = build_calibrator(dataset.num_classes, units=settings.calibrator_units, start=settings.calibrator_start)
    optimization = Optimization(
        rule=settings.rule,
        schedule=Constant(),
        learning_rate=settings.calibrator_learning_rate,
        total_steps=config.train.steps,
        l2_weight_decay=settings.calibrator_l2_weight_decay,
    )
    return Learner(model, optimization, seed=seed)
