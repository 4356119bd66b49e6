"""A weight for every unlabeled example, learned from the validation loss (Ren, Yeh and Schwing, arXiv:2007.01293).

The unlabeled loss of any algorithm becomes sum_u lambda_u l_U(u). Every N steps the derivative of the validation loss
by the weights of the batch's examples is taken through the solution of the training problem, by influence functions,
and the weights move along it.

| paper                                    | here                                              | source            |
|------------------------------------------|---------------------------------------------------|-------------------|
| lambda_u, Lambda                         | `WeightTable`                                     | Eq. 2             |
| l_U(u), L_S(V)                           | `learner.step.contributions`, `validation_share`  | Eq. 1, 2          |
| theta step with Lambda fixed             | `learner.step.Training`                           | Eq. 3             |
| lambda_u <- lambda_u - eta dL_S/dlambda_u| `WeightTable.update`                              | Eq. 4             |
| -g_val^T H^-1 g_u                        | `meta.influence.influence`                        | Eq. 6             |
| N, eta                                   | `weight_update_steps`, `weight_learning_rate`     | Algorithm 1       |
| M-Adam                                   | `meta.masked_adam`                                | Algorithm 2       |
| last layer only                          | `influence_scope`                                 | section 3.2       |

Departs from the paper: the examples whose weights move are those of the training batch, at the weights before that
step, so that its forward pass is shared (Algorithm 1, line 7, samples other batches). H and all gradients belong to
the loss that is minimised: means over the batches, the scalar unlabeled weight, the confidence mask and L2 included.
Departs from the released code (jason718/semi-sup): its damping is 1, from a weight decay whose factor was forgotten;
its bias is left out of the last layer; masked examples move (`move_masked` does so); weights end at 2 and are not in
the checkpoint; and the training step at an update uses weights from before it, as here, which its comment denies.
"""

import dataclasses

from metassl_tf.algorithms.base import Needs
from metassl_tf.meta.influence import INVERSES
from metassl_tf.meta.masked_adam import RULES
from metassl_tf.meta.scopes import SCOPES, VALIDATION_LOSSES
from metassl_tf.settings import setting


@dataclasses.dataclass(frozen=True, kw_only=True)
class PerExampleWeights:
    """A learned weight for every unlabeled example."""

    weight_update_steps: int = setting(
        0, "Steps between two updates of the weights, N; 0 chooses it by --weight_updates_per_example.", minimum=0
    )
    weight_updates_per_example: float = setting(
        50.0, "Updates that every example's weight shall have at the end of the run.", above=0.0
    )
    weight_learning_rate: float = setting(0.01, "Step size of the weights.", above=0.0)
    weight_optimizer: str = setting("masked_adam", "Update rule of the weights.", choices=tuple(RULES))
    initial_weight: float = setting(1.0, "Weight that every example starts with.", minimum=0.0)
    max_weight: float = setting(0.0, "Largest weight; 0: none.", minimum=0.0)
    weight_warmup_steps: int = setting(0, "Steps before the first update of the weights.", minimum=0)
    single_weight: bool = setting(False, "One learned weight for all examples together, for comparison.")
    meta_validation_batch_size: int = setting(
        0, "Validation examples per update; 0: as many as the batch has unlabeled ones.", minimum=0
    )
    meta_validation_loss: str = setting(
        "cross_entropy",
        "Loss of the validation examples that weights are fitted by; squared_error saturates where they are wrong.",
        choices=tuple(VALIDATION_LOSSES),
    )
    influence_scope: str = setting(
        "last_layer", "Parameters that the validation loss is followed through.", choices=SCOPES
    )
    inverse_hessian: str = setting("exact", "How the inverse Hessian is applied.", choices=INVERSES)
    damping: float = setting(1e-3, "Added to the Hessian's diagonal.", minimum=0.0)
    solver_iterations: int = setting(20, "Terms of a series, or steps of conjugate gradients.", minimum=1)
    series_step_size: float = setting(0.1, "Step size of neumann, stochastic and unrolled.", above=0.0)
    move_masked: bool = setting(
        False, "Weights of examples that the algorithm's mask removes move too, by the loss they would have."
    )
    influence_batch_norm: str = setting(
        "training",
        "Mode of the passes an influence is taken from; training shares the step's own pass.",
        choices=("training", "inference"),
    )
    weights_on_host: bool = setting(False, "Keep the weights in the host's memory instead of the accelerator's.")

    def needs(self, own: Needs) -> Needs:
        """What the algorithm needs; validation examples are batches of their own."""
        return own

    def unused(self) -> dict[str, str]:
        """Settings without an effect under the others -> the reason."""
        reasons: dict[str, str] = {}
        inverse = self.inverse_hessian
        if self.weight_update_steps:
            reasons["weight_updates_per_example"] = "--weight_update_steps says when weights are updated"
        if inverse in ("exact", "identity"):
            reasons["solver_iterations"] = f"--inverse_hessian={inverse} is not iterated"
        if inverse not in ("neumann", "stochastic", "unrolled"):
            reasons["series_step_size"] = f"--inverse_hessian={inverse} is not a series"
        if inverse == "identity":
            reasons["damping"] = "--inverse_hessian=identity uses no Hessian"
        return reasons

    def update_steps(self, *, total_steps: int, batch_size: int, num_unlabeled: int) -> int:
        """N: given, or as large as the wanted number of updates per example allows.

        Args:
          total_steps: of the run.
          batch_size: unlabeled examples per step.
          num_unlabeled: unlabeled examples in all.
        """
        if self.weight_update_steps:
            return self.weight_update_steps
        visits = (total_steps - self.weight_warmup_steps) * self._visits_per_step(batch_size, num_unlabeled)
        return max(1, int(visits / self.weight_updates_per_example))

    def expected_updates(self, *, total_steps: int, batch_size: int, num_unlabeled: int) -> float:
        """Updates per example by the end of the run, if every visit at an update counts."""
        every = self.update_steps(total_steps=total_steps, batch_size=batch_size, num_unlabeled=num_unlabeled)
        first = -(-self.weight_warmup_steps // every) * every
        return max(0, -(-(total_steps - first) // every)) * self._visits_per_step(batch_size, num_unlabeled)

    def _visits_per_step(self, batch_size: int, num_unlabeled: int) -> float:
        return 1.0 if self.single_weight else batch_size / num_unlabeled  # every batch moves a weight that all share
