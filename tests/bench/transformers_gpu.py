"""Transformers in bfloat16 with sdpa: the times that winnow is compared with."""

import sys
import time
from functools import partial
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "golden"))

from reference import WindowedModel, drop_one
from reference import WindowRule as WindowRule  # what compare_transformers_gpu.py takes from here


def seconds_of(call, device):
    """Time of one call on the device, by CUDA events where it is a GPU."""
    if device != "cuda":
        begin = time.perf_counter()
        call()
        return time.perf_counter() - begin
    first, last = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    first.record()
    call()
    last.record()
    last.synchronize()
    return first.elapsed_time(last) / 1e3


class Peer(WindowedModel):
    """A checkpoint on the device. Layers without a window get no mask, which is sdpa's fast causal path."""

    def __init__(self, directory, device):
        model = AutoModelForCausalLM.from_pretrained(directory, dtype=torch.bfloat16, attn_implementation="sdpa")
        super().__init__(model.to(device))
        self.device = device

    def _windowed(self, rule, n_rows, answer_start):
        return self._additive(rule.visible(n_rows, answer_start, self.device))

    def _logits(self, inputs, n_rows):
        return self.model(inputs, logits_to_keep=n_rows, use_cache=False).logits

    @torch.inference_mode()
    def time_forward(self, tokens, answer_start, repeats, rule=None):
        """(seconds of each repeat after a warm-up, NLL of the answer). rule: the middle layer alone is windowed."""
        self._masks[:] = [None] * len(self.layers)
        if rule is not None:
            self._masks[len(self.layers) // 2] = self._windowed(rule, len(tokens), answer_start)
        inputs = tokens[None].to(self.device)
        n_answer = len(tokens) - answer_start
        logits = self._logits(inputs, n_answer + 1)[0, :-1].float()
        nll = torch.nn.functional.cross_entropy(logits, inputs[0, answer_start:]).item()
        del logits
        seconds = [seconds_of(lambda: self._logits(inputs, n_answer + 1), self.device) for _ in range(repeats)]
        self.release()
        return seconds, nll

    @torch.inference_mode()
    def time_drop_one(self, examples, rule):
        """Seconds of each example: a forward for every pattern, one after another. The first call warms up."""
        seconds = []
        for tokens, start in examples:
            mask = self._windowed(rule, len(tokens) - 1, start)
            inputs = tokens[None, :-1].to(self.device)

            def passes(tokens=tokens, start=start, mask=mask, inputs=inputs):
                for pattern in drop_one(len(self.layers)):
                    self._masks[:] = [mask if is_windowed else None for is_windowed in pattern]
                    self._logits(inputs, len(tokens) - start)

            seconds.append(seconds_of(passes, self.device))
        return seconds

    @torch.inference_mode()
    def time_drop_one_batch(self, examples, rule):
        """The same with all patterns of an example as one batch, where every layer needs a mask a pattern."""
        seconds = []
        for tokens, start in examples:
            n_rows, patterns = len(tokens) - 1, drop_one(len(self.layers))
            full = self._additive(torch.ones(n_rows, n_rows, dtype=torch.bool, device=self.device).tril())
            windowed = self._windowed(rule, n_rows, start)
            self._masks[:] = [
                torch.cat([windowed if pattern[layer] else full for pattern in patterns])
                for layer in range(len(self.layers))
            ]
            inputs = tokens[None, :-1].to(self.device).expand(len(patterns), -1)
            seconds.append(seconds_of(partial(self._logits, inputs, len(tokens) - start), self.device))
        return seconds

    def release(self):
        """Gives back all but the weights, for winnow to use."""
        self._masks[:] = [None] * len(self.layers)
        if self.device == "cuda":
            torch.cuda.empty_cache()
