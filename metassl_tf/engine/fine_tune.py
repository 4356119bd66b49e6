"""The phase behind the training: a student that has never seen a label learns from the labeled examples.

"Meta Pseudo Labels", section 5.2 and 5.7.7 of the thesis: plain gradient descent at a small, fixed learning rate, and
the last step counts, for there is nothing left to choose by. It begins with the averaged weights, those that were
evaluated, and is a small run of its own: it has its own checkpoints, and goes on where it was killed.

What changes in a short phase at the thesis' rate of 1e-5 is batch normalisation: its moving statistics become those of
weakly augmented labeled images. The weights hardly move: on digits, 200 steps at 1e-12 end with the same accuracy.
"""

from typing import Any

import tensorflow as tf

from metassl_tf.algorithms.base import Context
from metassl_tf.algorithms.batch import Batch
from metassl_tf.algorithms.supervised import Supervised
from metassl_tf.data.pipeline import Pipeline
from metassl_tf.engine import evaluated_sets
from metassl_tf.engine.checkpoints import Checkpoints
from metassl_tf.engine.loop import Grid, run_loop
from metassl_tf.engine.networks import build_network
from metassl_tf.engine.setup import Experiment
from metassl_tf.engine.steps import PlainStep
from metassl_tf.engine.trainer import Trainer, check_finite_state
from metassl_tf.engine.workdir import Workdir
from metassl_tf.errors import UserError
from metassl_tf.learner.learner import Learner, Optimization
from metassl_tf.learner.schedules import Constant
from metassl_tf.learner.step import Sums, Training
from metassl_tf.learner.update_rules import Sgd
from metassl_tf.meta.meta_pseudo_labels import TeachingSettings


def fine_tune(experiment: Experiment, workdir: Workdir) -> dict[str, Any] | None:
    """Trains, or resumes, the phase; the experiment's own weights stay as they are.

    Args:
      experiment: a run at its last step.
      workdir: of the run; the phase's checkpoints lie in `fine_tuned/`.

    Returns:
      Set -> metrics of its `raw` and `ema` weights, which are the same; None for a run that has no such phase.

    Raises:
      UserError: the loss is no longer finite, or a checkpoint cannot be written.
    """
    settings = experiment.config.meta_rule(TeachingSettings)
    if settings is None or not settings.fine_tune_steps:
        return None
    learner = _copy_of_average(experiment, settings)
    trainer = _trainer(experiment, settings, learner)
    checkpoints = Checkpoints(
        workdir.fine_tuned, {**learner.state_variables, "run": trainer.state_variables}, max_to_keep=1
    )
    checkpoints.restore_newest()
    trainer.train_dataset = _batches(experiment, settings, start_step=int(trainer.step.numpy()))

    def save(step: int) -> None:
        check_finite_state(learner.state_variables, step)
        checkpoints.save(step)

    run = experiment.config.run
    grid = Grid(
        total=settings.fine_tune_steps,
        log=run.log_steps,
        evaluate=settings.fine_tune_steps,
        checkpoint=run.checkpoint_steps,
    )
    try:
        run_loop(
            trainer,
            grid,
            on_metrics=lambda *_: None,
            on_evaluation=lambda *_: "fine-tuned",
            save=save,
            examples_per_step=_batch_size(experiment, settings),
            title="fine-tuning",
        )
    except UserError as error:
        rate = settings.fine_tune_learning_rate
        raise UserError(f"While fine-tuning, with --fine_tune_learning_rate={rate:g}: {error}") from error
    measured = evaluated_sets.held_out(experiment, learner)
    evaluators = {"labeled": evaluated_sets.labeled(experiment, learner), **measured}
    return {name: evaluator.metrics(settings.fine_tune_steps) for name, evaluator in evaluators.items()}


def _copy_of_average(experiment: Experiment, settings: TeachingSettings) -> Learner:
    """A learner whose network has the averaged weights of the run's."""
    config = experiment.config
    with experiment.strategy.scope():
        learner = Learner(
            build_network(config.student, experiment.dataset.train.shape, experiment.dataset.num_classes),
            Optimization(
                rule=Sgd(momentum=0.0, nesterov=False),
                schedule=Constant(),
                learning_rate=settings.fine_tune_learning_rate,
                total_steps=settings.fine_tune_steps,
                ema_decay=0.0,  # the last step counts
            ),
            seed=config.run.seed,
        )
    for role in ("model", "ema"):
        for variable, average in zip(learner.state_variables[role], experiment.learner.ema, strict=True):
            variable.assign(average.value.numpy())
    return learner


def _trainer(experiment: Experiment, settings: TeachingSettings, learner: Learner) -> Trainer:
    training = Training(learner, Supervised())

    def replica_step(batch: Batch, context: Context) -> Sums:
        return training.begin_step(batch, context, tf.ones([])).apply()

    step = PlainStep(replica_step, strategy=experiment.strategy, xla=experiment.config.run.xla)
    return Trainer(step, _batches(experiment, settings, start_step=0), total_steps=settings.fine_tune_steps)


def _batches(experiment: Experiment, settings: TeachingSettings, *, start_step: int) -> tf.data.Dataset:
    pipeline = Pipeline(
        labeled=experiment.labeled,
        unlabeled=experiment.unlabeled,
        views=experiment.views,
        needs=Supervised().needs(),
        batch_size=_batch_size(experiment, settings),
        unlabeled_batch_size=0,
        seed=experiment.config.run.seed,
    )
    return pipeline.batches(start_step=start_step, strategy=experiment.strategy)


def _batch_size(experiment: Experiment, settings: TeachingSettings) -> int:
    """As many as asked for, at most all, a share for each replica."""
    replicas = experiment.strategy.num_replicas_in_sync
    return max(1, min(settings.fine_tune_batch_size, len(experiment.labeled)) // replicas) * replicas
