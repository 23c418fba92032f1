"""Laws of objectives with a loss of given pairs, on drawn pairs."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Collection, Iterable, Mapping
from typing import Any

import torch
from torch import Tensor

from harness.laws import hold
from harness.objectives.registry import resolve
from harness.objectives.row import Objective, StepZero
from harness.types import InputError, LossOutput, PairLogps, Parameter

FIELDS = ("loss", "base_loss", "chosen_reward", "rejected_reward")


def extras(logps: PairLogps, seed: int) -> dict[str, Tensor]:
    """Plausible values of every key of `PairLogps.extra`: log-probs below 0, KLs above, shares in (0, 1)."""
    draw = torch.Generator().manual_seed(seed)

    def uniform(low: float, high: float) -> Tensor:
        noise = torch.rand(logps.chosen.shape, generator=draw, dtype=torch.float64)
        return (low + (high - low) * noise).to(logps.chosen.dtype)

    return {
        "mismatched": uniform(-60.0, -20.0),
        "chosen_log_weight": uniform(-1.0, 0.5),
        "rejected_log_weight": uniform(-1.0, 0.5),
        "chosen_head": logps.chosen.detach() * uniform(0.5, 1.0),
        "rejected_head": logps.rejected.detach() * uniform(0.5, 1.0),
        "chosen_kl": uniform(0.0, 5.0),
        "rejected_kl": uniform(0.0, 5.0),
        "entropy_share": uniform(0.1, 0.9),
    }


def with_extras(policy: PairLogps, reference: PairLogps) -> tuple[PairLogps, PairLogps]:
    """Both models' log-probs with every extra key."""
    first, second = extras(policy, 0), extras(reference, 1)
    return dataclasses.replace(policy, extra=first), dataclasses.replace(reference, extra=second)


def batch(
    shape: tuple[int, ...] = (3, 16), seed: int = 0, dtype: torch.dtype = torch.float64
) -> tuple[PairLogps, PairLogps]:
    """Random pairs of moderate size with every extra key; policy and reference differ by a few nats."""
    draw = torch.Generator().manual_seed(seed)
    n, m = (torch.randint(2, 20, shape, generator=draw).to(dtype) for _ in range(2))
    a, b = (-x * (0.5 + torch.rand(shape, generator=draw, dtype=torch.float64)).to(dtype) for x in (n, m))
    c, d = (x + torch.randn(shape, generator=draw, dtype=torch.float64).to(dtype) for x in (a, b))
    return with_extras(PairLogps(c.clamp(max=-1e-3), d.clamp(max=-1e-3), n, m), PairLogps(a, b, n, m))


def needed(logps: PairLogps, keys: Iterable[str]) -> PairLogps:
    """The same log-probs with the extra keys `keys` alone."""
    return dataclasses.replace(logps, extra={key: logps.extra[key] for key in keys})


def at(logps: PairLogps, index: Any) -> PairLogps:
    """The pairs or lanes at `index`."""
    a, b, n, m = (x[index] for x in (logps.chosen, logps.rejected, logps.chosen_len, logps.rejected_len))
    return PairLogps(a, b, n, m, {key: x[index] for key, x in logps.extra.items()})


def uneven_state(row: Objective, policy: PairLogps) -> dict[str, Tensor]:
    """State with different values for different pairs and lanes."""
    state = row.initial_state(policy.chosen)
    return {key: value + 0.1 * torch.arange(value.numel()).reshape(value.shape) for key, value in state.items()}


def run(
    row: Objective, policy: PairLogps, reference: PairLogps | None, state: Mapping[str, Tensor], **given: Any
) -> LossOutput:
    """The loss, with state for the rows that carry it."""
    return row.loss(policy, reference, state=state if row.state else None, **given)


def states_itself(row: Objective) -> None:
    """Name, summary, source and failure are stated; the defaults and every preset resolve."""
    stated = (row.name, row.summary, row.citation, row.breaks)
    hold(all(stated), "name, summary, citation and breaks must not be empty")
    hold(row.family in ("pair", "batch", "token"), f"family '{row.family}'; expected pair, batch or token")
    hold(row.reduction in ("sum", "mean", "tokens"), f"reduction '{row.reduction}'; expected sum, mean or tokens")
    required = {key: knob.default for key, knob in row.hyperparameters.items() if knob.kind == "table"}
    hold(resolve(row.name, required).name == row.name, "does not resolve by its name")
    for name, preset in row.presets.items():
        hold(bool(preset.source), f"preset {name} states no source")
        hold(resolve(row.name, {"preset": name}).name == row.name, f"preset {name} does not resolve")


def shapes(row: Objective, shape: tuple[int, ...] = (3, 5)) -> None:
    """Every output has the shape of the pairs, the state the shape of its scope and no gradient."""
    policy, reference = batch(shape)
    out = run(row, policy, reference, uneven_state(row, policy))
    for name in FIELDS:
        hold(getattr(out, name).shape == shape, f"{name} has shape {tuple(getattr(out, name).shape)} for pairs {shape}")
    after = out.state or {}
    hold(set(after) == set(row.state), f"returns state {sorted(after)}, declares {sorted(row.state)}")
    for key, kind in row.state.items():
        wanted = shape if kind.scope == "pair" else (*shape[:-1], 1)
        hold(after[key].shape == wanted and not after[key].requires_grad, f"state {key}: shape {wanted}, no gradient")
    per_pair = out.base_loss if row.family != "batch" else out.loss[..., :1].expand(shape)
    hold(torch.equal(out.loss, per_pair), f"loss of family {row.family}: each pair's own, or the batch's repeated")
    hold(not row.bounded_below or bool((out.loss >= 0).all()), "a loss below 0 needs bounded_below=False")


def permutes(row: Objective) -> None:
    """Another order of the pairs gives the same values in that order."""
    policy, reference = batch((2, 11), seed=1)
    order = torch.randperm(11, generator=torch.Generator().manual_seed(0))
    state = uneven_state(row, policy)
    moved = {key: v[..., order] if row.state[key].scope == "pair" else v for key, v in state.items()}
    before = run(row, policy, reference, state)
    after = run(row, at(policy, (..., order)), at(reference, (..., order)), moved)
    for name in FIELDS:
        _close(getattr(after, name), getattr(before, name)[..., order], 1e-12, f"{name} depends on the order of pairs")


def lanes_are_apart(row: Objective, dtype: torch.dtype = torch.float64) -> None:
    """A lane of a pack has the values it has alone, its hyperparameters as a column `(K, 1)`."""
    policy, reference = batch((3, 8), seed=2, dtype=dtype)
    columns = {
        key: torch.tensor([[knob.default * f] for f in (1.0, 0.5, 0.9)], dtype=dtype)
        for key, knob in row.hyperparameters.items()
        if knob.kind == "float" and knob.default is not None
    }
    state = {key: value.to(dtype) for key, value in uneven_state(row, policy).items()}
    stacked = run(row, policy, reference, state, **columns)
    bits = 64 * torch.finfo(dtype).eps  # last bits of vectorised exp
    for k in range(3):
        lane = slice(k, k + 1)
        own = {key: value[lane] for key, value in columns.items()}
        alone = run(row, at(policy, lane), at(reference, lane), {key: v[lane] for key, v in state.items()}, **own)
        for name in FIELDS:
            _close(getattr(stacked, name)[lane], getattr(alone, name), bits, f"{name} of a lane depends on other lanes")
        for key in row.state:
            assert stacked.state is not None
            assert alone.state is not None
            _close(stacked.state[key][lane], alone.state[key], bits, f"state {key} of a lane depends on other lanes")


def divergence_stays_in_its_lane(row: Objective) -> None:
    """A lane whose log-probs are NaN leaves the others bitwise alone."""
    policy, reference = batch((2, 8), seed=4)
    state = uneven_state(row, policy)
    clean = run(row, policy, reference, state).loss[1]
    broken = dataclasses.replace(policy, chosen=policy.chosen.clone())
    broken.chosen[0] = torch.nan
    hold(torch.equal(run(row, broken, reference, state).loss[1], clean), "a diverged lane changes its neighbour")


def finite_at(row: Objective, columns: Iterable[Iterable[float]]) -> None:
    """Loss and gradient are finite at pairs (chosen, rejected, both of the reference, both lengths), as float32."""
    a, b, a0, b0, n, m = (torch.tensor(list(column), dtype=torch.float32) for column in columns)
    sides = PairLogps(a.requires_grad_(), b.requires_grad_(), n, m)
    policy, reference = with_extras(sides, PairLogps(a0, b0, n, m))
    out = row.loss(policy, reference)
    for name in FIELDS:
        hold(bool(torch.isfinite(getattr(out, name)).all()), f"{name} is not finite at extreme log-probs")
    gradients = [g for g in torch.autograd.grad(out.loss.sum(), [a, b], allow_unused=True) if g is not None]
    hold(bool(gradients), "no gradient reaches the policy's log-probs")
    hold(all(bool(torch.isfinite(g).all()) for g in gradients), "the gradient is not finite at extreme log-probs")


def finite(row: Objective) -> None:
    """Loss and gradient are finite for any log-probs from 0 to -10,000."""
    values = (-1e4, -300.0, -1.0, 0.0)
    sides = [(a, b, a0, b0, 1.0, 500.0) for a in values for b in values for a0 in values for b0 in values]
    finite_at(row, zip(*sides, strict=True))


def needs_what_it_declares(row: Objective) -> None:
    """It reads the reference and the extra keys that it declares, and nothing else."""
    policy, reference = batch((4,), seed=7)
    full = row.loss(policy, reference).loss
    enough = row.loss(needed(policy, row.needs), needed(reference, row.needs)).loss
    hold(torch.equal(full, enough), "reads extra keys that `needs` does not name")
    for key in row.needs:
        rest = [other for other in policy.extra if other != key]
        try:
            row.loss(needed(policy, rest), needed(reference, rest))
        except InputError:
            continue
        hold(False, f"does not miss extra['{key}'], which `needs` names")
    if row.needs_reference:
        moved = dataclasses.replace(reference, chosen=reference.chosen - 1.3, rejected=reference.rejected - 9.0)
        same = torch.equal(full, row.loss(policy, moved).loss)
        hold(not same, "needs_reference=True, but the reference changes nothing")
    else:
        hold(torch.equal(full, row.loss(policy, None).loss), "needs_reference=False, but the reference is read")


def reads_every_hyperparameter(row: Objective, others: Collection[str] = ()) -> None:
    """Another value of each number, flag or choice, but of `others`, changes the loss or the state."""
    policy, reference = batch((12,), seed=9)
    state = uneven_state(row, policy)
    defaults = {key: knob.default for key, knob in row.hyperparameters.items()}
    before = run(row, policy, reference, state, **defaults)
    for key, knob in row.hyperparameters.items():
        other = another(knob)
        if other is None or key in others:
            continue
        out = run(row, policy, reference, state, **defaults | {key: other})
        old, new = before.state or {}, out.state or {}
        same = torch.equal(out.loss, before.loss) and all(torch.equal(old[name], new[name]) for name in row.state)
        hold(not same, f"hyperparameter '{key}' changes nothing")


def another(knob: Parameter) -> Any:
    """A value well away from the default that is allowed; None where there is none (a text, a table)."""
    if knob.kind == "bool":
        return not knob.default
    if knob.kind == "choice":
        return next((word for word in reversed(knob.choices) if word != knob.default), None)
    if knob.kind not in ("float", "int"):
        return None
    tried = (*((knob.default * 0.02,) if knob.default else ()), 0.25, 0.01, *(knob.search or ()), 2.0)
    values = [int(value) if knob.kind == "int" else value for value in tried]
    return next((value for value in values if value != knob.default and knob.problem(value) is None), None)


def starts_at_step_zero(row: Objective, changed: Mapping[str, Any] | None = None) -> None:
    """Where policy and reference agree every pair's loss is `step0`, which every sweep checks."""
    if row.step0 is None:
        return
    _, same = batch((6,), seed=3)
    nothing = torch.zeros_like(same.chosen)
    same = dataclasses.replace(same, extra={**same.extra, "chosen_kl": nothing, "rejected_kl": nothing})
    given = {key: knob.default for key, knob in row.hyperparameters.items()} | dict(changed or {})
    losses = row.loss(same, same, **given).loss.tolist()
    columns = (same.chosen, same.rejected, same.chosen_len, same.rejected_len)
    for loss, pair in zip(losses, zip(*columns, strict=True), strict=True):
        stated = row.step0(given, StepZero(*map(float, pair)))
        hold(math.isclose(loss, stated, rel_tol=1e-9, abs_tol=1e-12), f"step0 says {stated:g}, the loss is {loss:g}")


def _close(found: Tensor, wanted: Tensor, tolerance: float, text: str) -> None:
    hold(torch.allclose(found, wanted, rtol=tolerance, atol=tolerance), text)


LAWS = (
    states_itself, shapes, permutes, lanes_are_apart, divergence_stays_in_its_lane, finite, needs_what_it_declares,
    reads_every_hyperparameter, starts_at_step_zero,
)  # fmt: skip
