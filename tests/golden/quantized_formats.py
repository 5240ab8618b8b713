"""The weight formats of make_quantized.py: how each packs a weight, and which program's code dequantises it.

Numbers are rounded here in the plainest way; what they are packed with, and what reads them again, is other people's.
"""

import torch
from quantized_experts import GptOssMxfp4, Mxfp4Blocks
from quantized_tools import GROUP, Format, blocks, gptqmodel, modules_with, spread, to_fp8
from safetensors import safe_open
from transformers.integrations.finegrained_fp8 import Fp8Dequantize


class Fp8Block(Format):
    rows, cols = 32, 32
    scale_dtype = torch.float32
    description = "fp8 in blocks of 32 x 32"
    reference = "transformers Fp8Dequantize, gptqmodel convert_fp8_shard"

    @property
    def config(self):
        return {
            "quant_method": "fp8",
            "fmt": "e4m3",
            "activation_scheme": "dynamic",
            "weight_block_size": [self.rows, self.cols],
            "modules_to_not_convert": ["lm_head", "model.layers.1.self_attn.o_proj"],
        }

    def leaves_out(self, module):
        return module == "model.layers.1.self_attn.o_proj"

    def scale_of(self, largest):
        return (largest / 448).to(self.scale_dtype)

    def parts(self, module, weight):
        scale = self.scale_of(blocks(weight, self.rows, self.cols))
        everywhere = spread(scale.float(), self.rows, self.cols, weight.shape)
        return {".weight": to_fp8(weight, everywhere), ".weight_scale_inv": scale}

    def dequantize(self, directory, stored):
        converters = gptqmodel("utils.model_dequant")
        lookup = converters._ShardTensorLookup(model_path=directory, device="cpu", weight_map=None)
        with safe_open(directory / "model.safetensors", framework="pt") as reader:
            converted = converters.convert_fp8_shard(
                reader, torch.float32, block_shape=(self.rows, self.cols), tensor_lookup=lookup
            )
        values = {key: converted[key] for key, t in stored.items() if t.dtype == torch.float8_e4m3fn}
        self.check(stored, values)
        return values

    def check(self, stored, values):
        for key, value in values.items():
            for dtype in (torch.float32, torch.bfloat16):
                other = Fp8Dequantize(None)._dequantize_one(stored[key], stored[key + "_scale_inv"], dtype)
                assert torch.equal(other, value.to(dtype)), key


class Fp8CeilBlock(Fp8Block):
    """Blocks that do not divide the weights, and exponents as scales: Transformers reads neither together."""

    rows, cols = 40, 48
    description = "fp8 in blocks of 40 x 48"
    reference = "gptqmodel convert_fp8_shard"

    @property
    def config(self):
        return super().config | {"scale_fmt": "ue8m0"}

    def scale_of(self, largest):
        return torch.exp2(torch.ceil(torch.log2(largest / 448))).to(torch.float8_e8m0fnu)

    def check(self, stored, values):
        pass


class Fp8Scaled(Format):
    """One scale for a weight, or for each row."""

    reference = "transformers Fp8Dequantize"
    scale_name = ".weight_scale"

    def scale_of(self, weight):
        return weight.abs().amax(1, keepdim=True) / 448

    def others(self):
        return {}

    def parts(self, module, weight):
        scale = self.scale_of(weight)
        return {".weight": to_fp8(weight, scale), self.scale_name: scale} | self.others()

    def dequantize(self, directory, stored):
        return {
            module + ".weight": Fp8Dequantize(None)._dequantize_one(
                stored[module + ".weight"], stored[module + self.scale_name], torch.float32
            )
            for module in modules_with(stored, self.scale_name)
        }


class Fp8Tensor(Fp8Scaled):
    config = {"quant_method": "fp8", "weight_block_size": None, "activation_scheme": "static"}
    description = "fp8 per tensor"
    scale_name = ".weight_scale_inv"

    def scale_of(self, weight):
        return (weight.abs().amax() / 448).bfloat16()

    def others(self):
        return {".activation_scale": torch.tensor(0.01, dtype=torch.bfloat16)}


class Fbgemm(Fp8Scaled):
    config = {"quant_method": "fbgemm_fp8", "activation_scale_ub": 1200.0, "modules_to_not_convert": ["lm_head"]}
    description = "fp8 per channel"


class ModelOptFp8(Fp8Scaled):
    config = {"quant_method": "modelopt", "quant_algo": "FP8", "kv_cache_quant_algo": None, "ignore": ["lm_head*"]}
    description = "fp8 per tensor"

    def scale_of(self, weight):
        return weight.abs().amax() / 448

    def others(self):
        return {".input_scale": torch.tensor(0.02)}


class CompressedTensors(Format):
    """Packed and read by compressed-tensors' own compressor; float32 scales keep it from rounding to bfloat16."""

    reference = "compressed-tensors decompress"
    scale_dtype = torch.bfloat16

    def __init__(self):
        self.arguments = self.weights | {"dynamic": False}

    @property
    def config(self):
        group = {"targets": ["Linear"], "weights": self.arguments, "input_activations": None}
        return {
            "quant_method": "compressed-tensors",
            "format": self.format,
            "quantization_status": "compressed",
            "config_groups": {"group_0": group},
            "ignore": ["lm_head", "re:.*layers\\.1\\.mlp\\.down_proj$"],
            "kv_cache_scheme": None,
        }

    def leaves_out(self, module):
        return module == "model.layers.1.mlp.down_proj"

    def tools(self):
        from compressed_tensors.compressors import BaseCompressor
        from compressed_tensors.quantization import QuantizationArgs, QuantizationScheme

        scheme = QuantizationScheme(targets=["Linear"], weights=QuantizationArgs(**self.arguments))
        return BaseCompressor.get_value_from_registry(self.format), scheme

    def scales(self, weight):
        groups = weight.reshape(weight.shape[0], -1, self.weights.get("group_size") or weight.shape[1])
        return {"weight_scale": (groups.abs().amax(2) / self.largest).to(self.scale_dtype)}

    def parts(self, module, weight):
        compressor, scheme = self.tools()
        compressed = compressor.compress({"weight": weight} | self.scales(weight), scheme)
        return {"." + name: tensor for name, tensor in compressed.items()}

    def exact(self, name, tensor):
        return tensor.float() if name == "weight_scale" and tensor.dtype == self.scale_dtype else tensor

    def dequantize(self, directory, stored):
        compressor, scheme = self.tools()
        values = {}
        for module in modules_with(stored, ".weight_scale"):
            parts = {key[len(module) + 1 :]: t for key, t in stored.items() if key.startswith(module + ".")}
            parts = {name: self.exact(name, tensor) for name, tensor in parts.items()}
            values[module + ".weight"] = compressor.decompress(parts, scheme)["weight"].float()
        return values


class Fp8Channel(CompressedTensors):
    format = "float-quantized"
    weights = {"num_bits": 8, "type": "float", "strategy": "channel", "symmetric": True}
    description = "fp8 per channel"
    largest = 448


class Int8Channel(CompressedTensors):
    format = "int-quantized"
    weights = {"num_bits": 8, "type": "int", "strategy": "channel", "symmetric": True}
    description = "int8 per channel"
    largest = 127


class Int4Packed(CompressedTensors):
    format = "pack-quantized"
    weights = {"num_bits": 4, "type": "int", "strategy": "group", "group_size": GROUP, "symmetric": True}
    description = "int4 in groups of 32"
    largest = 7


class Int4Zeros(Int4Packed):
    weights = Int4Packed.weights | {"symmetric": False}

    def scales(self, weight):
        groups = weight.reshape(weight.shape[0], -1, GROUP)
        low, high = groups.amin(2), groups.amax(2)
        scale = ((high - low) / 15).to(self.scale_dtype)
        zero = (-8 - low / scale.float()).round().clamp(-8, 7).to(torch.int8)
        return {"weight_scale": scale, "weight_zero_point": zero}


class Mxfp4(CompressedTensors):
    format = "mxfp4-pack-quantized"
    weights = {"num_bits": 4, "type": "float", "strategy": "group", "group_size": 32, "symmetric": True}
    description = "mxfp4 in groups of 32"
    largest = 4

    def scales(self, weight):
        scale = super().scales(weight)["weight_scale"].float()
        return {"weight_scale": torch.exp2(torch.floor(torch.log2(scale)))}


class Nvfp4(CompressedTensors):
    format = "nvfp4-pack-quantized"
    weights = {"num_bits": 4, "type": "float", "strategy": "tensor_group", "group_size": 16, "symmetric": True}
    description = "nvfp4 in groups of 16"

    def scales(self, weight):
        largest = weight.reshape(weight.shape[0], -1, 16).abs().amax(2)
        global_scale = (448 * 6 / largest.max()).reshape(1)
        return {
            "weight_scale": (largest / 6 * global_scale).to(torch.float8_e4m3fn).float(),
            "weight_global_scale": global_scale,
        }

    def dequantize(self, directory, stored):
        from compressed_tensors.compressors.nvfp4.helpers import unpack_fp4_from_uint8
        from compressed_tensors.quantization.lifecycle.forward import dequantize

        _, scheme = self.tools()
        values = {}
        for key, rounded in super().dequantize(directory, stored).items():
            # decompress() rounds to bfloat16 at the end.
            codes, scale, global_scale = (stored[key + end] for end in ("_packed", "_scale", "_global_scale"))
            numbers = unpack_fp4_from_uint8(codes, codes.shape[0], 2 * codes.shape[1], torch.float32)
            values[key] = dequantize(numbers, scale.float(), args=scheme.weights, global_scale=global_scale)
            assert torch.equal(values[key].bfloat16().float(), rounded), key
        return values


class Nvfp4ModelOpt(Format):
    """The same numbers as Nvfp4 with the reciprocal of its global scale."""

    config = {
        "quant_method": "modelopt",
        "quant_algo": "NVFP4",
        "group_size": 16,
        "kv_cache_quant_algo": None,
        "exclude_modules": ["lm_head", "*layers.0.self_attn*"],
    }
    description = "nvfp4 in groups of 16"
    reference = "gptqmodel dequantize_f4_e2m1"

    def leaves_out(self, module):
        return "layers.0.self_attn" in module

    def parts(self, module, weight):
        parts = Nvfp4().parts(module, weight)
        return {
            ".weight": parts[".weight_packed"],
            ".weight_scale": parts[".weight_scale"],
            ".weight_scale_2": (1 / parts[".weight_global_scale"]).reshape(()),
            ".input_scale": torch.tensor(0.003),
        }

    def dequantize(self, directory, stored):
        read = gptqmodel("quantization.dtype").dequantize_f4_e2m1
        values = {}
        for module in modules_with(stored, ".weight_scale_2"):
            scale = stored[module + ".weight_scale"].float() * stored[module + ".weight_scale_2"]
            key = module + ".weight"
            values[key] = read(stored[key], scale=scale, axis=None, target_dtype=torch.float32)
        return values


def rounded_to_int4(weight):
    """Codes 0..15, zero points and float16 scales of groups of columns."""
    groups = weight.reshape(weight.shape[0], -1, GROUP)
    low, high = groups.amin(2, keepdim=True), groups.amax(2, keepdim=True)
    scale = ((high - low) / 15).half()
    zero = (-low / scale.float()).round().clamp(1, 15)
    codes = (groups / scale.float() + zero).round().clamp(0, 15)
    return codes.reshape(weight.shape).int(), zero[..., 0].int(), scale[..., 0]


class Awq(Format):
    config = {
        "quant_method": "awq",
        "bits": 4,
        "group_size": GROUP,
        "version": "gemm",
        "zero_point": True,
        "modules_to_not_convert": ["down_proj"],
    }
    description = "awq int4 in groups of 32"
    reference = "gptqmodel unpack_awq, reverse_awq_order"

    def leaves_out(self, module):
        return module.endswith("down_proj")

    def parts(self, module, weight):
        codes, zeros, scales = rounded_to_int4(weight)
        packing = gptqmodel("quantization.awq.utils.packing_utils")
        qweight, qzeros = packing.pack_awq(codes.t(), zeros.t(), 4)
        return {".qweight": qweight, ".qzeros": qzeros, ".scales": scales.t()}

    def dequantize(self, directory, stored):
        packing = gptqmodel("quantization.awq.utils.packing_utils")
        values = {}
        for module in modules_with(stored, ".qweight"):
            codes, zeros = packing.unpack_awq(stored[module + ".qweight"], stored[module + ".qzeros"], 4)
            codes, zeros = packing.reverse_awq_order(codes, zeros, 4)
            codes, zeros = codes & 15, zeros.repeat_interleave(GROUP, 0) & 15
            scales = stored[module + ".scales"].float().repeat_interleave(GROUP, 0)
            values[module + ".weight"] = ((codes.int() - zeros.int()).float() * scales).t().contiguous()
        return values


class Gptq(Format):
    """The first version, which stores zero points less one."""

    config = {"quant_method": "gptq", "bits": 4, "group_size": GROUP, "desc_act": False, "sym": False}
    description = "gptq int4 in groups of 32"
    reference = "gptqmodel convert_gptq_file"
    zero_offset = 1

    def order_of(self, n):
        return torch.arange(n)

    def parts(self, module, weight):
        order = self.order_of(weight.shape[1])
        codes, zeros, scales = rounded_to_int4(weight[:, order])
        groups = torch.arange(weight.shape[1], dtype=torch.int32) // GROUP
        back = torch.argsort(order)
        pack = gptqmodel("utils.model_dequant").pack_cols
        return {
            ".qweight": pack(codes[:, back], 4, pack_dtype=torch.int32).t(),
            ".qzeros": pack((zeros - self.zero_offset).t(), 4, pack_dtype=torch.int32),
            ".scales": scales.t(),
            ".g_idx": groups[back],
        }

    def dequantize(self, directory, stored):
        convert = gptqmodel("utils.model_dequant").convert_gptq_file
        converted = convert(directory / "model.safetensors", torch.float32, self.config, "cpu")
        return {module + ".weight": converted[module + ".weight"] for module in modules_with(stored, ".qweight")}


class GptqActOrder(Gptq):
    """The second version, with columns in the groups in any order."""

    config = Gptq.config | {"checkpoint_format": "gptq_v2", "desc_act": True}
    zero_offset = 0

    def order_of(self, n):
        return torch.randperm(n, generator=torch.Generator().manual_seed(n))


class Nf4(Format):
    nested = False
    description = "bitsandbytes nf4 in groups of 64"
    reference = "bitsandbytes dequantize_4bit"

    @property
    def config(self):
        return {
            "quant_method": "bitsandbytes",
            "load_in_4bit": True,
            "load_in_8bit": False,
            "bnb_4bit_quant_type": "nf4",
            "bnb_4bit_use_double_quant": self.nested,
            "bnb_4bit_compute_dtype": "bfloat16",
            "llm_int8_skip_modules": ["lm_head", "down_proj"],
        }

    def leaves_out(self, module):
        # bitsandbytes 0.50 misreads on the CPU what has blocks that go on into the next row.
        return module.endswith("down_proj")

    def parts(self, module, weight):
        from bitsandbytes.functional import quantize_4bit

        codes, state = quantize_4bit(weight.bfloat16(), quant_type="nf4", compress_statistics=self.nested)
        return {".weight": codes} | {".weight." + k: v for k, v in state.as_dict(packed=True).items()}

    def dequantize(self, directory, stored):
        from bitsandbytes.functional import QuantState, dequantize_4bit

        values = {}
        for module in modules_with(stored, ".weight.absmax"):
            parts = {k: v for k, v in stored.items() if k.startswith(module + ".weight.")}
            state = QuantState.from_dict(parts, torch.device("cpu"))
            state.dtype = torch.float32
            values[module + ".weight"] = dequantize_4bit(stored[module + ".weight"], state)
        return values


class Nf4Nested(Nf4):
    nested = True
    description = "bitsandbytes nf4, nested, in groups of 64"


FORMATS = {
    "fp8_block": Fp8Block,
    "fp8_ceil_block": Fp8CeilBlock,
    "fp8_tensor": Fp8Tensor,
    "fp8_fbgemm": Fbgemm,
    "fp8_modelopt": ModelOptFp8,
    "fp8_channel": Fp8Channel,
    "int8_channel": Int8Channel,
    "mxfp4_blocks": Mxfp4Blocks,
    "mxfp4_gpt_oss": GptOssMxfp4,
    "mxfp4_packed": Mxfp4,
    "int4_packed": Int4Packed,
    "int4_zero_points": Int4Zeros,
    "nvfp4_modelopt": Nvfp4ModelOpt,
    "nvfp4_packed": Nvfp4,
    "awq": Awq,
    "gptq": Gptq,
    "gptq_act_order": GptqActOrder,
    "nf4": Nf4,
    "nf4_nested": Nf4Nested,
}
