"""The box-constrained L-BFGS attack of Szegedy et al. (2014), by scipy's L-BFGS-B.

For each frame x and each constant c,

    minimise ‖x' − x‖² + c · softplus(κ − m(x')) over x' in [0, 1],

where m is the logit of the target minus the log-sum-exp of the others. At κ = 0 the second term is thus the
cross-entropy to the target. Untargeted, m is the log-sum-exp of the other logits minus that of the label, and the term
is −log(1 − p_label).

A search over c finds the smallest constant that succeeds. At one constant the minimum is on the boundary: it is the
nearest adversarial frame. The search ends slightly beyond that constant, so the change found is finally shortened along
its own line until it barely succeeds.

Every frame has its own minimisation with its own line searches. A sum over the batch would couple the step lengths of
all frames.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from lab.attacks.contract import Logits, in_batches, margins, require_gradients
from lab.attacks.minimisers import Floats, minimise_together
from lab.attacks.norms import into_l2_ball, l2

_FIRST_CONSTANT = 0.03
_FACTOR = 10.0
_HALVINGS = 6


@dataclass(frozen=True)
class Lbfgs:
    """The smallest change in L2 found. `confidence` is κ, the margin between the logits that counts as success.

    `eps` bounds the L2 norm afterwards: an example beyond it is moved straight towards its frame until it keeps the
    bound. It may then have less than the requested confidence, or fail.
    """

    name: str
    eps: float | None = None
    confidence: float = 0.0
    searches: int = 4
    iterations: int = 15

    def __call__(
        self, logits: Logits, frames: Tensor, labels: Tensor, targets: Tensor | None, generator: torch.Generator
    ) -> Tensor:
        """Return adversarial frames. See `Attack`. The generator is not used."""
        require_gradients(logits, frames)
        found = []
        for part in in_batches(frames, labels, targets):
            adversarial = _Search(logits, *part, self.confidence).run(self.searches, self.iterations)
            found.append(adversarial if self.eps is None else into_l2_ball(adversarial, part[0], self.eps))
        return torch.cat(found)


class _Search:
    """The search over c for a batch, and the nearest success of any evaluation so far."""

    def __init__(self, logits: Logits, frames: Tensor, labels: Tensor, targets: Tensor | None, confidence: float):
        self.logits, self.frames, self.labels, self.targets = logits, frames, labels, targets
        self.confidence = confidence
        self.best = frames.clone()
        self.norms = torch.full((len(frames),), torch.inf, device=frames.device)
        self.constants = torch.full_like(self.norms, _FIRST_CONSTANT)

    def run(self, searches: int, iterations: int) -> Tensor:
        self._succeeds(torch.arange(len(self.frames), device=self.frames.device), self.frames)
        # A misclassified clean frame is its own nearest adversarial frame.
        rows = (self.norms > 0).nonzero()[:, 0]
        lower, upper = torch.zeros_like(self.norms), torch.full_like(self.norms, torch.inf)
        ends = self.frames.clone()
        for _ in range(searches if len(rows) else 0):
            ends[rows] = self._minimise(rows, ends[rows], iterations)
            reached = self._succeeds(rows, ends[rows])
            constants = self.constants[rows]
            upper[rows] = torch.where(reached, constants, upper[rows])
            lower[rows] = torch.where(reached, lower[rows], constants)
            smaller = torch.where(lower > 0, (lower * upper).sqrt(), upper / _FACTOR)
            self.constants = torch.where(upper.isinf(), self.constants * _FACTOR, smaller)
        self._shorten(rows)
        return torch.where(self.norms.isinf()[:, None, None, None], ends, self.best)

    def _minimise(self, rows: Tensor, starts: Tensor, iterations: int) -> Tensor:
        def evaluate(chosen: list[int], points: Floats) -> tuple[Floats, Floats]:
            index = rows[torch.tensor(chosen, device=rows.device)]
            shaped = torch.from_numpy(points).to(self.frames).view(-1, *self.frames.shape[1:]).requires_grad_()
            with torch.enable_grad():
                output = self.logits(shaped)
                change = (shaped - self.frames[index]).flatten(1).square().sum(1)
                losses = change + self.constants[index] * self._shortfall(output, index)
                (gradient,) = torch.autograd.grad(losses.sum(), shaped)
            self._keep(index, shaped.detach(), output.detach())
            return losses.detach().double().cpu().numpy(), gradient.flatten(1).double().cpu().numpy()

        flat = starts.flatten(1).double().cpu().numpy()
        ends = minimise_together(evaluate, flat, bounds=(0.0, 1.0), unit=0.1, iterations=iterations)
        return torch.from_numpy(ends).to(self.frames).view_as(starts)

    def _shortfall(self, output: Tensor, index: Tensor) -> Tensor:
        chosen = (self.labels if self.targets is None else self.targets)[index, None]
        own = output.gather(1, chosen)[:, 0]
        other = output.scatter(1, chosen, -torch.inf).logsumexp(1)
        margin = other - own if self.targets is None else own - other
        return F.softplus(self.confidence - margin)

    def _keep(self, index: Tensor, points: Tensor, output: Tensor) -> Tensor:
        margin = margins(output, self.labels[index], None if self.targets is None else self.targets[index])
        success = margin > self.confidence
        norms = l2(points - self.frames[index])
        nearer = success & (norms < self.norms[index])
        self.norms[index[nearer]] = norms[nearer]
        self.best[index[nearer]] = points[nearer]
        return success

    @torch.no_grad()
    def _succeeds(self, index: Tensor, points: Tensor) -> Tensor:
        return self._keep(index, points, self.logits(points))

    def _shorten(self, rows: Tensor) -> None:
        rows = rows[self.norms[rows].isfinite()]
        change = self.best[rows] - self.frames[rows]
        fails, works = torch.zeros_like(self.norms[rows]), torch.ones_like(self.norms[rows])
        for _ in range(_HALVINGS if len(rows) else 0):
            middle = (fails + works) / 2
            success = self._succeeds(rows, self.frames[rows] + change * middle[:, None, None, None])
            works = torch.where(success, middle, works)
            fails = torch.where(success, fails, middle)
