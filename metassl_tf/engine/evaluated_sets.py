"""The sets of a run that its networks are measured on: labeled training examples, validation and test.

How often a network is right about the labeled examples it learns from tells whether it has settled: Figure 9 of version
1 of arXiv:2003.10580 and Figure 5.4 of H. Pham's thesis (5.7.11) compare supervised learning with a teacher and its
student by it.
"""

from metassl_tf.algorithms.base import Parameters
from metassl_tf.data.examples import Examples, spread
from metassl_tf.engine.evaluator import PARAMETERS, Evaluator
from metassl_tf.engine.setup import Experiment
from metassl_tf.learner.learner import Learner

_MOST_LABELED = 1_000


def evaluator_of(
    experiment: Experiment, learner: Learner, examples: Examples, *, kinds: tuple[Parameters, ...] = PARAMETERS
) -> Evaluator:
    """Predicts a set without augmentation and dropout, on the devices of a run.

    Args:
      experiment: the run.
      learner: whose weights predict.
      examples: the set.
      kinds: of weights to predict with.
    """
    return Evaluator(
        learner,
        examples,
        experiment.views,
        batch_size=experiment.config.run.eval_batch_size,
        strategy=experiment.strategy,
        kinds=kinds,
    )


def held_out(experiment: Experiment, learner: Learner) -> dict[str, Evaluator]:
    """Of `validation` and `test`, as far as there are any, with the trained weights and with their average.

    Args:
      experiment: the run.
      learner: whose weights predict.
    """
    sets = {"validation": experiment.validation, "test": experiment.test}
    return {name: evaluator_of(experiment, learner, examples) for name, examples in sets.items() if len(examples)}


def labeled(experiment: Experiment, learner: Learner) -> Evaluator:
    """Of the labeled training examples, or of 1,000 spread evenly over their list, with the trained weights.

    Args:
      experiment: the run.
      learner: whose weights predict.
    """
    examples = experiment.labeled.take(spread(len(experiment.labeled), most=_MOST_LABELED))
    return evaluator_of(experiment, learner, examples, kinds=("raw",))
