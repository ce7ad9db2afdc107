"""Graph attention over spectral and temporal nodes, and pooling that keeps the order of its nodes.

Jung et al., "AASIST: audio anti-spoofing using integrated spectro-temporal graph attention
networks", arXiv 2110.01200: graph attention and pooling in sec. 2.2, heterogeneous attention and
the stack node in sec. 3.2 (HS-GAL).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from antispoof.lowering import current_lowering
from antispoof.models.layers.primitives import ahead, ahead_by, is_equal, selu

INPUT_DROPOUT = 0.2
POOL_DROPOUT = 0.3


class NodeBatchNorm(nn.BatchNorm1d):
    """Batch norm of features that lie last, as in ``(batch, nodes, features)``."""

    def forward(self, x: Tensor) -> Tensor:
        """Returns ``x`` normalised over batch and nodes."""
        return super().forward(x.flatten(0, 1)).view_as(x)


class NodeProjection(nn.Module):
    """``A x W + x V + b``: each node's features beside those its attention gathers (eq. 3)."""

    def __init__(self, in_features: int, out_features: int) -> None:
        super().__init__()
        self.gathered = nn.Linear(in_features, out_features)
        self.own = nn.Linear(in_features, out_features)

    def forward(self, attention: Tensor, x: Tensor, own: Tensor) -> Tensor:
        """Returns ``(batch, nodes, out)``.

        Args:
            attention: ``(batch, nodes, sources)``, each row a softmax.
            x: The sources ``(batch, sources, in)``.
            own: The nodes themselves ``(batch, nodes, in)``.
        """
        return self.gathered(attention @ x) + self.own(own)

    def freeze(self) -> None:
        """Adds both biases into one."""
        if self.own.bias is not None:
            self.gathered.bias.add_(self.own.bias)
            self.own.register_parameter("bias", None)

    def scale(self, factor: Tensor, shift: Tensor) -> None:
        """Applies ``factor * y + shift``, each ``(out,)``, to what the projection returns."""
        for linear in (self.gathered, self.own):
            linear.weight.mul_(factor[:, None])
            if linear.bias is not None:
                linear.bias.mul_(factor)
        self.gathered.bias.add_(shift)


def fold_batch_norm(norm: nn.BatchNorm1d, projection: NodeProjection) -> None:
    """Folds ``norm``, in its eval form, into the projection in front of it."""
    assert norm.running_var is not None
    assert norm.running_mean is not None
    factor = norm.weight / torch.sqrt(norm.running_var + norm.eps)
    projection.scale(factor, norm.bias - norm.running_mean * factor)


def node_pairs(x: Tensor) -> Tensor:
    """Returns the product of every two nodes, ``(batch, nodes, nodes, features)``."""
    return x.unsqueeze(2) * x.unsqueeze(1)


class GraphAttention(nn.Module):
    """Attention between the nodes of one graph (eq. 1 to 3)."""

    def __init__(self, in_features: int, out_features: int, temperature: float) -> None:
        super().__init__()
        self.temperature = temperature
        self.pair = nn.Linear(in_features, out_features)
        self.pair_weight = nn.Parameter(torch.empty(out_features, 1))
        self.project = NodeProjection(in_features, out_features)
        self.norm: nn.Module = NodeBatchNorm(out_features)
        self.dropout = nn.Dropout(INPUT_DROPOUT)
        nn.init.xavier_normal_(self.pair_weight)

    def forward(self, x: Tensor) -> Tensor:
        """Returns ``(batch, nodes, out)`` for ``x (batch, nodes, in)``."""
        x = self.dropout(x)
        affinity = torch.tanh(self.pair(node_pairs(x))) @ self.pair_weight[:, 0]  # (batch, nodes, nodes)
        attention = torch.softmax(affinity / self.temperature, dim=-1)
        return selu(self.norm(self.project(attention, x, x)))

    def freeze(self) -> None:
        """Folds the norm into the projection and the temperature into the affinity's weights."""
        if isinstance(self.norm, nn.BatchNorm1d):
            fold_batch_norm(self.norm, self.project)
            self.norm = nn.Identity()
            self.pair_weight.div_(self.temperature)
            self.temperature = 1.0


class HeterogeneousAttention(nn.Module):
    """Attention between two kinds of nodes, with a stack node that listens to all (sec. 3.2).

    The affinity of two nodes is weighed by which kinds they are: temporal with temporal, spectral
    with spectral, or mixed. The stack node (``master`` in the public code) gathers from every node
    and gives nothing back.
    """

    def __init__(self, in_features: int, out_features: int, temperature: float) -> None:
        super().__init__()
        self.temperature = temperature
        self.embed_first = nn.Linear(in_features, in_features)
        self.embed_second = nn.Linear(in_features, in_features)
        self.pair = nn.Linear(in_features, out_features)
        # One column each for first-first, second-second and mixed pairs.
        self.pair_weight = nn.ParameterList(torch.empty(out_features, 1) for _ in range(3))
        self.project = NodeProjection(in_features, out_features)
        self.stack_pair = nn.Linear(in_features, out_features)
        self.stack_weight = nn.Parameter(torch.empty(out_features, 1))
        self.stack_project = NodeProjection(in_features, out_features)
        self.norm: nn.Module = NodeBatchNorm(out_features)
        self.dropout = nn.Dropout(INPUT_DROPOUT)
        for weight in (*self.pair_weight, self.stack_weight):
            nn.init.xavier_normal_(weight)

    def forward(self, first: Tensor, second: Tensor, stack: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Returns the three kinds of nodes with ``out`` features each.

        Args:
            first: ``(batch, nodes1, in)``.
            second: ``(batch, nodes2, in)``.
            stack: The stack node ``(batch or 1, 1, in)``.
        """
        n1, n2 = first.shape[1], second.shape[1]
        x = torch.cat([self.embed_first(first), self.embed_second(second)], dim=1)
        x = self.dropout(x)
        new_stack = self.stack_project(self._stack_attention(x, stack), x, stack)
        x = selu(self.norm(self.project(self._attention(x, n1, n2), x, x)))
        return x[:, :n1], x[:, n1:], new_stack

    def _attention(self, x: Tensor, n1: int, n2: int) -> Tensor:
        kinds = torch.tanh(self.pair(node_pairs(x))) @ torch.cat(list(self.pair_weight), dim=1)
        affinity = (kinds * pair_kinds(n1, n2, x.device)).sum(-1)  # (batch, nodes, nodes)
        return torch.softmax(affinity / self.temperature, dim=-1)

    def _stack_attention(self, x: Tensor, stack: Tensor) -> Tensor:
        affinity = torch.tanh(self.stack_pair(x * stack)) @ self.stack_weight  # (batch, nodes, 1)
        return torch.softmax(affinity.transpose(1, 2) / self.temperature, dim=-1)

    def freeze(self) -> None:
        """Folds the norm into the projection and the temperature into the affinities' weights."""
        if isinstance(self.norm, nn.BatchNorm1d):
            fold_batch_norm(self.norm, self.project)
            self.norm = nn.Identity()
            for weight in (*self.pair_weight, self.stack_weight):
                weight.div_(self.temperature)
            self.temperature = 1.0


def pair_kinds(n1: int, n2: int, device: torch.device | None = None) -> Tensor:
    """Returns a one-hot ``(nodes, nodes, 3)``: first-first, second-second or mixed pair.

    A constant of the graph. The public code writes four blocks into a board in place, which
    exports as ``ScatterND``.
    """
    is_first = torch.arange(n1 + n2, device=device) < n1
    both_first = is_first[:, None] & is_first[None, :]
    both_second = ~is_first[:, None] & ~is_first[None, :]
    return torch.stack([both_first, both_second, ~(both_first | both_second)], dim=-1).float()


class GraphPool(nn.Module):
    """Keeps the nodes of highest score, in the order of their scores (sec. 2.2, graph pooling).

    Two branches of AASIST are combined node by node, so the order carries meaning. It is computed
    without ``TopK`` and ``Gather``, which most phone delegates refuse: a node's rank is the number
    of nodes ahead of it, and a one-hot matrix of ranks moves the nodes.
    """

    def __init__(self, features: int, ratio: float) -> None:
        super().__init__()
        self.ratio = ratio
        self.dropout = nn.Dropout(POOL_DROPOUT)
        self.gate = nn.Linear(features, 1)

    def kept(self, nodes: int) -> int:
        """Returns how many of ``nodes`` are kept."""
        return max(int(nodes * self.ratio), 1)

    def forward(self, x: Tensor) -> Tensor:
        """Returns ``(batch, kept, features)`` for ``x (batch, nodes, features)``."""
        x_dropped = self.dropout(x)
        score = torch.sigmoid(self.gate(x_dropped))  # (batch, nodes, 1)
        rank = self._rank(x_dropped) if current_lowering().compare == "half" else rank_descending(score)
        kept = torch.arange(self.kept(x.shape[1]), dtype=x.dtype, device=x.device)[:, None]
        return is_equal(rank, kept) @ (x * score)

    def _rank(self, x: Tensor) -> Tensor:
        """Returns `rank_descending` of the scores of ``x``, out of what every two nodes differ in.

        Half precision rounds a score near 1 to multiples of 0.0005, and a difference relative to its own
        size. This way, only rounding in the layers before can make nodes change places.
        """
        margin = F.linear(x.unsqueeze(2) - x.unsqueeze(1), self.gate.weight).squeeze(-1)
        return ahead_by(margin, _earlier(x.shape[1], x.device)).sum(dim=1, keepdim=True)


def rank_descending(score: Tensor) -> Tensor:
    """Returns how many nodes are ahead of each, ``(batch, 1, nodes)``, for ``score (batch, nodes, 1)``.

    Of equal scores the earlier node is ahead, so ranks are a permutation even in digital silence,
    where whole groups of nodes are equal.
    """
    earlier = _earlier(score.shape[1], score.device)
    # [row is ahead of column]
    return ahead(score, score.transpose(1, 2), earlier).sum(dim=1, keepdim=True)


def _earlier(nodes: int, device: torch.device) -> Tensor:
    """Returns which of two nodes comes first, ``(nodes, nodes)``: the row before the column."""
    return torch.ones(nodes, nodes, dtype=torch.bool, device=device).triu(1)
