"""Names that mean something else elsewhere: aliases, refusals with their reason, and TRL's names. Imports no torch."""

from __future__ import annotations

ALIASES = {"constrained_cpo": "cpo_smooth"}

_ECPO = "is read in different ways: use `ecpo_released` (the authors' code), `cpo_eq17` or `cpo_smooth`."
_RDPO = (
    "is ambiguous: use `robust_dpo` (label noise, arXiv 2403.00409) or `rdpo_length` "
    "(length penalty, arXiv 2403.19159)."
)

REFUSED = {
    "cpo": (
        "is ambiguous: use `contrastive_cpo` (Contrastive Preference Optimization, arXiv 2401.08417, TRL's CPOTrainer) "
        "or `constrained_cpo` (Constrained Preference Optimization, arXiv 2605.20834)."
    ),
    **dict.fromkeys(("ecpo", "e_cpo", "ecpoc", "e_cpoc"), _ECPO),
    **dict.fromkeys(("rdpo", "r_dpo"), _RDPO),
    "rpo": (
        "names three unrelated methods and none of them is here: for an added SFT term use the option `rpo_alpha`, "
        "e.g. `{name: dpo, rpo_alpha: 1}`."
    ),
    **dict.fromkeys(
        ("fdpo", "f_dpo"),
        "needs its divergence: use `fdpo_forward_kl`, `fdpo_js` or `fdpo_alpha` (reverse KL is `dpo`).",
    ),
    "tdpo": "is ambiguous: use `tdpo1` or `tdpo2` (arXiv 2404.11999).",
}

# TRL's loss types that mean exactly one row here. `ipo` is missing on purpose: TRL's is `length_average: true`.
TRL_NAMES = {
    "sigmoid": "`dpo`",
    "robust": "`robust_dpo`",
    "exo_pair": "`exo`",
    "nca_pair": "`nca`",
    "bco_pair": "`bco` with its running shift held at 0",
    "sppo_hard": "`sppo`",
    "aot_pair": "`aot_unpaired`",
    "sigmoid_norm": "`ln_dpo`",
}
