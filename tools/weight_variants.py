"""What is varied about learned weights (arXiv:2007.01293, section 4.3)."""

from tools.variants import Group, Variant

_ITERATED = ("neumann", "conjugate_gradient", "stochastic", "unrolled")
_ITERATIONS = 10
_MOST_VALIDATION, _BASE_VALIDATION = 200, 100


def _inverse(method: str, scope: str) -> Variant:
    iterations = {"solver_iterations": _ITERATIONS} if method in _ITERATED else {}
    return Variant({"inverse_hessian": method, "influence_scope": scope, **iterations})


def _labels(number: int) -> dict[str, Variant]:
    """A weight for each, one for all, and none, with so many labels."""
    labels, each = {"num_labeled": number}, f"one for each, {number} labels"
    return {
        each: Variant(labels, reference=each),
        f"one for all, {number} labels": Variant({"single_weight": True, **labels}, reference=each),
        f"none, {number} labels": Variant({"meta": (), **labels}, reference=each),
    }


def _validation(number: int) -> Variant:
    """So many validation examples; the others are left unused, so that the unlabeled ones are the same for all."""
    changes = {"num_meta_validation": number, "num_validation": _MOST_VALIDATION - number}
    return Variant(changes, reference=f"{_BASE_VALIDATION} examples")


GROUPS = {
    "inverse": Group(
        "Inverse Hessian, and the parameters that the validation loss is followed through",
        "Figure 3",
        {
            f"{method}, {scope}": _inverse(method, scope)
            for method, scope in (
                ("exact", "last_layer"),
                ("identity", "last_layer"),
                ("identity", "last_block"),
                ("identity", "all"),
                ("neumann", "last_layer"),
                ("neumann", "last_block"),  # as in the paper
                ("conjugate_gradient", "last_layer"),
                ("conjugate_gradient", "last_block"),
                ("stochastic", "last_layer"),
                ("unrolled", "last_layer"),
            )
        },
        over_steps=True,
    ),
    "single_weight": Group(
        "A weight for each example, one for all, or none",
        "Figure 4, left",
        {name: variant for number in (20, 40, 100) for name, variant in _labels(number).items()},
    ),
    "optimizer": Group(
        "Update rule of the weights",
        "Figure 4, center",
        {
            **{
                rule: Variant({"weight_optimizer": rule}) for rule in ("masked_adam", "masked_adam_global_step", "adam")
            },
            # Its steps are as long as the derivatives, which are small.
            **{
                f"sgd, rate {rate}": Variant({"weight_optimizer": "sgd", "weight_learning_rate": float(rate)})
                for rate in (1, 10, 100)
            },
        },
        over_steps=True,
    ),
    "validation_size": Group(
        "Number of validation examples",
        "Figure 4, right",
        {f"{number} examples": _validation(number) for number in (16, 32, 64, 100, 200)},
    ),
    "updates": Group(
        "Steps between updates, and learning rate of the weights",
        "Table 3",
        {
            **{f"every {steps} steps": Variant({"weight_update_steps": steps}) for steps in (1, 2, 5, 20, 100)},
            **{f"rate {rate}": Variant({"weight_learning_rate": rate}) for rate in (0.001, 0.003, 0.01, 0.03, 0.1)},
        },
    ),
    "pollution": Group(
        "What could let weights find unknown classes",
        "",
        {
            "none": Variant({"meta": ()}),
            "masked examples move": Variant({"move_masked": True}),
            "no threshold": Variant({"threshold": 0.0}),
            "damping 0.001": Variant({"damping": 0.001}),
            "damping 10": Variant({"damping": 10.0}),
            "30 validation examples": Variant({"num_meta_validation": 30, "num_validation": 30}),
            "identity, all": _inverse("identity", "all"),
            "saturating validation loss": Variant({"meta_validation_loss": "squared_error"}),
        },
    ),
}
"""Name -> question."""
