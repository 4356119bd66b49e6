"""A whole run: from a config and a workdir to a trained, measured and exported model."""

import time
from pathlib import Path
from typing import Any

import tensorflow as tf

from metassl_tf.algorithms.base import Context
from metassl_tf.algorithms.batch import Batch
from metassl_tf.config import Config
from metassl_tf.data.pipeline import validation_batches
from metassl_tf.data.splits import load_split, save_split
from metassl_tf.engine import evaluated_sets, results, setup
from metassl_tf.engine.checkpoints import Checkpoints
from metassl_tf.engine.export import export_network
from metassl_tf.engine.fine_tune import fine_tune
from metassl_tf.engine.history import History, Row
from metassl_tf.engine.init_from import initialize
from metassl_tf.engine.learned_weights import learned_weights, write_weights
from metassl_tf.engine.lessons import lessons_of
from metassl_tf.engine.loop import Grid, run_loop
from metassl_tf.engine.report.build import write_report
from metassl_tf.engine.report.content import collect
from metassl_tf.engine.setup import Experiment
from metassl_tf.engine.steps import PlainStep, Step, WeightedStep
from metassl_tf.engine.summaries import Summaries
from metassl_tf.engine.trained import averaged_network, interface_of
from metassl_tf.engine.trainer import Trainer, check_finite_state
from metassl_tf.engine.weights import meta_validation_batch_size
from metassl_tf.engine.workdir import Workdir, disk_errors, write_atomically
from metassl_tf.errors import UserError
from metassl_tf.flagfile import to_flagfile
from metassl_tf.learner.schedules import ramp
from metassl_tf.learner.step import Sums


def train(config: Config, workdir: Workdir, *, strategy: tf.distribute.Strategy | None = None) -> dict[str, Any]:
    """Trains, or resumes, the run of a workdir and writes everything it leaves.

    Args:
      config: the run.
      workdir: where it lives; an earlier start of the same run is resumed.
      strategy: devices to use instead of those that the config names.

    Returns:
      The content of `result.json`.

    Raises:
      UserError: anything that the user can mend.
    """
    with disk_errors(workdir.root), workdir.alone():
        workdir.claim(to_flagfile(config))
        experiment = setup.build(config, strategy=strategy)
        run = Run(experiment, workdir)
        run.resume()
        run.train()
        return run.finish()


def make_trainer(experiment: Experiment) -> Trainer:
    """Builds the trainer of an experiment at step 0."""
    return Trainer(make_step(experiment), training_data(experiment, 0), total_steps=experiment.config.train.steps)


def make_step(experiment: Experiment) -> Step:
    """Builds what one training step does, over all replicas."""
    settings, strategy, xla = experiment.config.train, experiment.strategy, experiment.config.run.xla

    def unlabeled_weight(step: tf.Tensor) -> tf.Tensor:
        return settings.unlabeled_weight * ramp(
            settings.unlabeled_ramp, ramp_steps=settings.unlabeled_ramp_steps, step=step
        )

    if experiment.weighting:
        return WeightedStep(experiment.weighting, unlabeled_weight, strategy=strategy, xla=xla)

    def replica_step(batch: Batch, context: Context) -> Sums:
        weight = unlabeled_weight(context.step)
        return experiment.training.begin_step(batch, context, weight).apply()

    return PlainStep(replica_step, strategy=strategy, xla=xla)


def training_data(experiment: Experiment, start_step: int) -> Any:
    """What the step reads, from any step on: batches, and with learned weights validation examples beside them."""
    training = experiment.pipeline().batches(start_step=start_step, strategy=experiment.strategy)
    if not experiment.weighting:
        return training
    validation = validation_batches(
        experiment.meta_validation,
        experiment.views,
        batch_size=meta_validation_batch_size(experiment.config, experiment.meta_validation, experiment.strategy),
        first=experiment.weighting.first_due(start_step),
        every=experiment.weighting.every,
        seed=experiment.config.run.seed,
        strategy=experiment.strategy,
    )
    return {"training": training, "validation": validation}


def begin(experiment: Experiment) -> None:
    """Gives the networks of a run at step 0 the weights of other runs, where its settings name some.

    Raises:
      UserError: there are none, or they do not fit.
    """
    teaching, interface = experiment.teaching, interface_of(experiment)
    if experiment.config.train.init_from:
        initialize(experiment.learner, experiment.config.train.init_from, interface=interface)
    if teaching and teaching.settings.init_teacher_from:
        initialize(
            teaching.teacher,
            teaching.settings.init_teacher_from,
            role="teacher",
            interface=interface,
            frozen=teaching.settings.freeze_teacher,
        )


class Run:
    """One start of a run, up to its end."""

    def __init__(self, experiment: Experiment, workdir: Workdir) -> None:
        """Builds what the loop calls; nothing is trained yet."""
        self._experiment = experiment
        self._workdir = workdir
        self._config = experiment.config
        self._trainer = make_trainer(experiment)
        learner = experiment.learner
        self._state = learner.state_variables
        if experiment.teaching:
            self._state |= experiment.teaching.state_variables
        weights = {"weights": experiment.weighting.state_variables} if experiment.weighting else {}
        self._checkpoints = Checkpoints(
            workdir.checkpoints, {**self._state, **weights, "run": self._trainer.state_variables}
        )
        self._best = Checkpoints(workdir.best, learner.state_variables, max_to_keep=1)
        self._evaluators = evaluated_sets.held_out(experiment, learner)
        self._measured: dict[str, evaluated_sets.Measured] = {
            "labeled": evaluated_sets.labeled(experiment, learner),
            **self._evaluators,
        }
        if experiment.teaching:
            of_teacher = evaluated_sets.of_teacher(experiment, experiment.teaching)
            self._measured |= {f"teacher_{name}": measured for name, measured in of_teacher.items()}
        self._lessons = lessons_of(experiment)
        self._start_time = time.monotonic()

    def resume(self) -> None:
        """Restores the newest intact checkpoint, or begins with the weights of `--init_from`."""
        self._check_split()
        self._workdir.write_config(to_flagfile(self._config))
        write_atomically(self._workdir.interface, lambda file: file.write(interface_of(self._experiment).to_json()))
        restored = self._checkpoints.restore_newest()
        if restored and self._experiment.weighting:
            self._experiment.weighting.table.check_key()
        if restored is None:
            begin(self._experiment)
        self._start_step = int(self._trainer.step.numpy())
        self._history = History(self._workdir.metrics, restored_step=self._start_step)
        self._earlier_seconds = self._history.rows[-1]["seconds"] if self._history.rows else 0.0
        self._trainer.train_dataset = training_data(self._experiment, self._start_step)
        self._summaries = Summaries(self._workdir.tensorboard, self._experiment)
        if self._start_step == 0:
            self._summaries.views(self._experiment.pipeline())

    def _check_split(self) -> None:
        """Stores who is labeled, or compares with what an earlier start stored."""
        path = self._workdir.splits
        if not path.exists():
            write_atomically(path, lambda file: save_split(file, self._experiment.split))
        elif load_split(str(path)).hash != self._experiment.split.hash:
            raise UserError(
                f"The examples are no longer those of {path}: the data changed since this run began. Expected the same "
                "files. Bring them back, or start in a new --workdir."
            )

    def train(self) -> None:
        """Trains to the last step, evaluating and checkpointing on the way."""
        settings = self._config.run
        grid = Grid(
            total=self._config.train.steps,
            log=settings.log_steps,
            evaluate=settings.eval_steps,
            checkpoint=settings.checkpoint_steps,
        )
        run_loop(
            self._trainer,
            grid,
            on_metrics=self._summaries.training,
            on_evaluation=self._evaluate,
            save=self._save,
            examples_per_step=self._experiment.examples_per_step,
        )

    def _save(self, step: int) -> None:
        check_finite_state(self._state, step)
        self._checkpoints.save(step)

    def _evaluate(self, step: int, training_metrics: dict[str, float]) -> str:
        check_finite_state(self._state, step)
        seconds = time.monotonic() - self._start_time
        row: Row = {
            "step": step,
            "seconds": round(self._earlier_seconds + seconds, 3),
            "examples_per_second": round((step - self._start_step) * self._experiment.examples_per_step / seconds, 1),
            "train": training_metrics,
            **{name: evaluator.metrics(step) for name, evaluator in self._measured.items()},
        }
        if self._lessons:
            row["lessons"] = self._lessons.record(step, self._history.rows)
        if self._experiment.weighting:
            row["weights"] = self._experiment.weighting.table.summary()
        self._history.append(row)
        self._summaries.evaluation(step, row)
        if results.best_row(self._history.rows, self._config.run.best_metric) is row:
            self._best.save(step)
        return ", ".join(f"{name} {row[name]['ema']['accuracy']:.2%}" for name in self._evaluators)

    def finish(self) -> dict[str, Any]:
        """Fine-tunes where asked to, then writes result, report and export of a run that is at its last step."""
        fine_tuned = fine_tune(self._experiment, self._workdir)
        weights = learned_weights(self._experiment)
        result = results.summarize(self._history.rows, self._experiment, weights, fine_tuned)
        if weights:
            write_weights(weights, self._experiment, self._workdir)
        self._summaries.finish(result)
        write_atomically(self._workdir.result, lambda file: file.write(results.to_json(result)))
        content = collect(
            self._experiment,
            self._evaluators,
            workdir=self._workdir,
            rows=self._history.rows,
            result=result,
            weights=weights,
        )
        write_report(content, self._workdir)
        export_network(
            averaged_network(self._experiment),
            interface_of(self._experiment),
            saved_model=self._workdir.export,
            keras_model=self._workdir.model,
        )
        return result


def default_workdir(config: Config) -> Path:
    """Where a run goes that was given no workdir: `runs/<dataset>-<algorithm>-<labels>-<seed>`."""
    dataset = config.data.dataset.replace(":", "-").replace("/", "-")
    return Path("runs") / f"{dataset}-{config.train.algorithm}-{config.data.num_labeled}-{config.run.seed}"


def describe(result: dict[str, Any], workdir: Workdir) -> str:
    """The last lines a user sees: how good the model is, with what stands beside it, and where everything lies."""
    accuracy = result["test_accuracy"]
    beside = {name: result[name]["test"] for name in ("fine_tuned", "teacher") if "test" in result.get(name, {})}
    lines = [
        f"test accuracy  {accuracy:.4f}" if accuracy is not None else "test accuracy  not measured: no test set",
        *(f"{name.replace('_', '-'):15}{test['ema']['accuracy']:.4f}" for name, test in beside.items()),
        f"result         {workdir.result}",
        f"report         {workdir.report / 'index.html'}",
        *([f"weights        {workdir.weights}"] if workdir.weights.exists() else []),
        f"export         {workdir.export}",
        f"TensorBoard    tensorboard --logdir {workdir.tensorboard}",
    ]
    return "\n".join(lines)
