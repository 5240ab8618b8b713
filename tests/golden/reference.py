"""Windowed attention in Transformers, per layer: the independent statement of what winnow computes.

Nothing here is shared with winnow's own code. Row t sees key j iff j <= t and, where the row obeys the window,
t - j < window_keys or j < sinks. A row obeys iff it is not before the tail rows and not an answer row that is decoded
with full attention.
"""

from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class WindowRule:
    """The window of a windowed layer."""

    window_keys: int  # the row itself included
    sinks: int = 0
    decode: str = "windowed"  # or "full": answer rows see everything
    tail_rows: int | None = None  # rows before the answer that obey, besides the answer; None: all

    def visible(self, n_rows, answer_start, device=None):
        """(n_rows, n_rows) bool: row t sees key j."""
        t = torch.arange(n_rows, device=device)[:, None]
        j = torch.arange(n_rows, device=device)[None, :]
        obeys = t >= (0 if self.tail_rows is None else answer_start - self.tail_rows)
        if self.decode == "full":
            obeys = obeys & (t < answer_start)
        inside = (t - j < self.window_keys) | (j < self.sinks)
        return (j <= t) & (inside | ~obeys)


@dataclass
class AnswerScores:
    """Scores of the answer tokens of one sequence, one entry each."""

    nll: torch.Tensor  # nats
    hit: torch.Tensor  # bool: the token is the most likely one
    margin: torch.Tensor  # |log p(token) - max of the others' log p|: how near the hit is to flipping

    def summary(self):
        return float(self.nll.mean()), bool(self.hit.all()), float(self.hit.double().mean())


def text_model(model):
    """The decoder of a model, or of its tower for text."""
    return getattr(model.model, "language_model", model.model)


def forget_longer_sequences(model):
    """The frequencies of a "dynamic" rotary embedding are those of the longest sequence so far."""
    text_model(model).rotary_emb.max_seq_len_cached = 0


class WindowedModel:
    """A Transformers causal LM whose decoder layers each get their own attention mask."""

    def __init__(self, model):
        self.model = model.eval()
        self.layers = text_model(model).layers
        self._masks = [None] * len(self.layers)
        for index, layer in enumerate(self.layers):
            layer.register_forward_pre_hook(self._hook(index), with_kwargs=True)

    def _hook(self, index):
        def replace_mask(module, args, kwargs):
            return args, {**kwargs, "attention_mask": self._masks[index]}

        return replace_mask

    def _additive(self, visible):
        dtype = self.model.dtype
        mask = torch.zeros(visible.shape, dtype=dtype, device=self.model.device)
        return mask.masked_fill_(~visible.to(self.model.device), torch.finfo(dtype).min)[None, None]

    @torch.inference_mode()
    def score(self, tokens, answer_start, patterns, rule):
        """AnswerScores of each pattern; tokens (T); a pattern is one bool a layer, True where windowed."""
        n_rows = len(tokens) - 1  # the last token predicts nothing
        full = self._additive(torch.ones(n_rows, n_rows, dtype=torch.bool).tril())
        windowed = self._additive(rule.visible(n_rows, answer_start))
        inputs = torch.as_tensor(tokens, dtype=torch.long, device=self.model.device)[None]
        n_answer = len(tokens) - answer_start
        scores = []
        for pattern in patterns:
            forget_longer_sequences(self.model)
            self._masks[:] = [windowed if is_windowed else full for is_windowed in pattern]
            logits = self.model(inputs[:, :n_rows], logits_to_keep=n_answer, use_cache=False).logits[0]
            scores.append(score_rows(logits, inputs[0, answer_start:]))
        return scores


def score_rows(logits, targets):
    """AnswerScores of logits (rows, vocabulary) against targets (rows)."""
    log_p = torch.log_softmax(logits.float() if logits.dtype == torch.bfloat16 else logits, dim=-1)
    of_target = log_p.gather(1, targets[:, None])[:, 0]
    others = log_p.scatter(1, targets[:, None], float("-inf")).max(dim=-1).values
    return AnswerScores(nll=-of_target, hit=of_target > others, margin=(of_target - others).abs())


def drop_one(n_layers):
    """The patterns of a calibration: all full, then each layer windowed alone."""
    return [[False] * n_layers] + [[layer == windowed for layer in range(n_layers)] for windowed in range(n_layers)]
