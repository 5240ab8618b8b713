"""The weight formats of make_quantized.py that experts alone come in, all of a layer in one tensor."""

import torch
from quantized_tools import GROUP, Format, modules_with, nearest_e2m1


class Mxfp4Blocks(Format):
    """The experts of gpt-oss, alone."""

    config = {"quant_method": "mxfp4", "modules_to_not_convert": ["model.layers.*.self_attn", "lm_head"]}
    description = "mxfp4 in groups of 32"
    reference = "transformers convert_moe_packed_tensors"
    module = "model.layers.0.mlp.experts.gate_up_proj"

    def tensors(self):
        bits = torch.Generator().manual_seed(7)
        return {
            self.module + "_blocks": torch.randint(0, 256, (3, 6, 2, 16), generator=bits, dtype=torch.uint8),
            self.module + "_scales": torch.randint(110, 140, (3, 6, 2), generator=bits, dtype=torch.uint8),
        }

    def dequantize(self, directory, stored):
        from transformers.integrations.mxfp4 import convert_moe_packed_tensors

        value = convert_moe_packed_tensors(
            stored[self.module + "_blocks"], stored[self.module + "_scales"], dtype=torch.float32
        )
        return {self.module: value.transpose(1, 2).contiguous()}


class GptOssMxfp4(Format):
    """A whole gpt-oss, whose experts alone are quantised."""

    config = {
        "quant_method": "mxfp4",
        "modules_to_not_convert": [
            "model.layers.*.self_attn",
            "model.layers.*.mlp.router",
            "model.embed_tokens",
            "lm_head",
        ],
    }
    description = "mxfp4 in groups of 32"
    reference = "transformers convert_moe_packed_tensors"
    model = {
        "architectures": ["GptOssForCausalLM"],
        "model_type": "gpt_oss",
        "intermediate_size": 32,
        "num_local_experts": 4,
        "num_experts_per_tok": 2,
        "sliding_window": 128,
        "tie_word_embeddings": False,
        "swiglu_limit": 7.0,
    }

    def takes(self, key):
        return key.endswith(("experts.gate_up_proj", "experts.down_proj"))

    def as_loaded(self, value):
        return value.transpose(1, 2).contiguous()

    def parts(self, module, weight):
        groups = weight.transpose(1, 2).unflatten(-1, (-1, GROUP))
        exponents = torch.floor(torch.log2(groups.abs().amax(-1))) - 2  # the largest number of a group becomes 4 to 8
        codes = nearest_e2m1(groups / torch.exp2(exponents)[..., None])
        return {"_blocks": codes[..., 0::2] | codes[..., 1::2] << 4, "_scales": (exponents + 127).to(torch.uint8)}

    def dequantize(self, directory, stored):
        from transformers.integrations.mxfp4 import convert_moe_packed_tensors

        values = {}
        for module in modules_with(stored, "_blocks"):
            value = convert_moe_packed_tensors(
                stored[module + "_blocks"], stored[module + "_scales"], dtype=torch.float32
            )
            values[module] = value.transpose(1, 2).contiguous()
        return values
