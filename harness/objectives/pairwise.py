from __future__ import annotations
from torch.nn.functional import softplus
from harness.types import LossOutput

def _out(loss, cr, rr): return LossOutput(loss, loss, cr, rr)
def _h(p, r): return p.chosen - r.chosen, p.rejected - r.rejected
def dpo(p, r, beta):
    w, l = _h(p, r); return _out(softplus(-beta * (w - l)), beta * w, beta * l)
def ipo(p, r, beta, length_average):
    w, l = _h(p, r)
    if length_average: w, l = w / p.chosen_len, l / p.rejected_len
    return _out((w - l - 0.5 / beta) ** 2, beta * w, beta * l)
def robust_dpo(p, r, beta, eps):
    w, l = _h(p, r); z = beta * (w - l)
    return _out(((1 - eps) * softplus(-z) - eps * softplus(z)) / (1 - 2 * eps), beta * w, beta * l)
def simpo(p, r, beta, gamma):
    a, b = p.chosen / p.chosen_len, p.rejected / p.rejected_len
    return _out(softplus(-(beta * (a - b) - gamma)), beta * a, beta * b)
def hypo(p, r, beta):
    w, l = _h(p, r); d, d0 = p.chosen - p.rejected, r.chosen - r.rejected
    return _out(softplus(-beta * (d - d0.clamp(min=0))), beta * w, beta * l)
def cpo_smooth(p, r, beta, gamma, tau, alpha, reduction):
    if reduction == "mean":
        d = p.chosen / p.chosen_len - p.rejected / p.rejected_len; d0 = r.chosen / p.chosen_len - r.rejected / p.rejected_len
    else:
        d, d0 = p.chosen - p.rejected, r.chosen - r.rejected
    w, l = _h(p, r)
    m = softplus(tau * (gamma - d0)) / tau
    return _out(softplus(-(beta * (d - d0) - beta / alpha * m)), beta * w, beta * l)
def nll(p, r):
    loss = -p.chosen / p.chosen_len.clamp(min=1)
    return _out(loss, p.chosen, p.rejected)
