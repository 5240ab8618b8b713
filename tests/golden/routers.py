"""Routers of mixtures of experts in float64, and how clear their choices are."""

import torch

# Experts whose scores are nearer than this, relative to them, could be chosen otherwise in float32: sequences in which
# two are so near, in any layer, row and pattern of windows, are not used.
SMALLEST_GAP = 2e-5


class Clearness:
    """The smallest gap between an expert, or a group, that was chosen and one that was not, since the last reset."""

    def __init__(self):
        self.reset()

    def reset(self):
        self.smallest = float("inf")

    def add(self, values, count):
        """Of the `count` largest along the last dimension."""
        if count == values.shape[-1]:
            return
        ordered = values.sort(-1, descending=True).values
        last, next_one = ordered[..., count - 1], ordered[..., count]
        self.smallest = min(self.smallest, float(((last - next_one) / last.abs()).min()))


def correction_of(router):
    """What is added to scores where experts are chosen; None where the router has none or is given it."""
    where = getattr(router, "moe_statics", router)
    return getattr(where, "e_score_correction_bias", None)


def in_best_groups(choice, router, clearness):
    """The scores, those of all but the best groups -inf."""
    n_groups = getattr(router, "num_group", 1)
    if n_groups == 1:
        return choice
    groups = choice.view(len(choice), n_groups, -1)
    sums = groups.sort(-1, descending=True).values[..., :2].sum(-1)
    clearness.add(sums, router.topk_group)
    kept = torch.zeros_like(sums).scatter(1, sums.topk(router.topk_group, -1).indices, 1.0)
    return groups.masked_fill(kept[..., None] == 0, float("-inf")).view_as(choice)


def router_in_float64(router, clearness):
    """A forward() of the router: logits, weights and numbers of the chosen experts."""
    kind = type(router).__name__
    is_sigmoid = kind.startswith(("Glm4Moe", "MiniMaxM2"))
    is_of_chosen = kind.startswith("GptOss")  # the softmax is over the chosen alone
    divides = is_of_chosen or getattr(router, "norm_topk_prob", True)
    scale = getattr(router, "routed_scaling_factor", 1.0)

    def forward(x, correction=None):
        logits = x.reshape(-1, x.shape[-1]).double() @ router.weight.double().T
        if is_of_chosen:
            logits = logits + router.bias.double()
        scores = torch.sigmoid(logits) if is_sigmoid else torch.softmax(logits, -1)
        correction = correction_of(router) if correction is None else correction
        choice = scores if correction is None else scores + correction.double().squeeze()
        choice = in_best_groups(choice, router, clearness)
        clearness.add(choice, router.top_k)
        chosen = choice.topk(router.top_k, -1).indices
        weights = scores.gather(1, chosen)
        if divides:
            weights = weights / weights.sum(-1, keepdim=True)
        return logits, weights * scale, chosen

    return forward
