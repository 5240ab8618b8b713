"""winnow import of GGUF files: figures, names, config.json, tokenizer, and that the program loads what comes out."""

import json
import subprocess

import gguf
import gguf_files
import launch
import numpy as np
import pytest
from gguf import GGMLQuantizationType as Type

from winnow.importing import checkpoint_files, rope, weights
from winnow.importing.gguf_file import GgufFile
from winnow.importing.main import main

NAMES = {
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}


def import_file(path, out, *more):
    assert main([str(path), "--out", str(out), *more]) == 0
    return json.loads((out / "config.json").read_text()), gguf_files.read_folder(out)


def expected_name(name):
    top = {"token_embd": "model.embed_tokens", "output_norm": "model.norm", "output": "lm_head"}
    if name.startswith("blk."):
        _, layer, tensor, kind = name.split(".")
        return f"model.layers.{layer}.{NAMES[tensor]}.{kind}"
    return f"{top[name.split('.')[0]]}.weight"


@pytest.mark.parametrize(
    "kind", [Type.F32, Type.F16, Type.BF16, Type.Q8_0, Type.Q4_0, Type.Q4_1, Type.Q5_0, Type.Q4_K], ids=lambda k: k.name
)
@pytest.mark.parametrize("architecture", ["llama", "qwen3"])
def test_figures_are_those_of_the_package_rounded_to_bf16(tmp_path, architecture, kind):
    norms = {"attn_q_norm": (gguf_files.HEAD_DIM,), "attn_k_norm": (gguf_files.HEAD_DIM,)}
    tensors = gguf_files.matrices(names=norms if architecture == "qwen3" else None, head=True)
    written = gguf_files.write_gguf(
        tmp_path / "model.gguf", gguf_files.metadata(architecture), tensors, kind, architecture
    )
    config, found = import_file(tmp_path / "model.gguf", tmp_path / "out")
    assert config["model_type"] == architecture and config["tie_word_embeddings"] is False
    assert len(found) == len(written)
    names = NAMES | {"attn_q_norm": "self_attn.q_norm", "attn_k_norm": "self_attn.k_norm"}
    for name, (data, its_kind) in written.items():
        figures = gguf_files.bf16(gguf.quants.dequantize(data, its_kind))
        part = name.split(".")[2] if name.startswith("blk.") else ""
        target = f"model.layers.{name.split('.')[1]}.{names[part]}.weight" if part else expected_name(name)
        got = found[target]
        if architecture == "llama" and part in ("attn_q", "attn_k"):
            got = gguf_files.reordered(got, gguf_files.HEADS if part == "attn_q" else gguf_files.KV_HEADS)
        assert np.array_equal(got, figures), name


def test_config_of_a_llama(tmp_path):
    gguf_files.write_gguf(tmp_path / "model.gguf")
    config, found = import_file(tmp_path / "model.gguf", tmp_path / "out")
    assert "lm_head.weight" not in found
    assert config == {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "torch_dtype": "bfloat16",
        "vocab_size": len(gguf_files.TOKENS),
        "hidden_size": 256,
        "intermediate_size": 512,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 64,
        "max_position_embeddings": 512,
        "rms_norm_eps": 1e-5,
        "tie_word_embeddings": True,
        "rope_theta": 500000.0,
        "attention_bias": False,
        "mlp_bias": False,
        "bos_token_id": len(gguf_files.TOKENS) - 2,
        "eos_token_id": len(gguf_files.TOKENS) - 1,
        "hidden_act": "silu",
    }
    generation = json.loads((tmp_path / "out/generation_config.json").read_text())
    assert generation == {"bos_token_id": 259, "eos_token_id": 260}


@pytest.mark.parametrize(
    "changes, expected",
    [
        ({"general.name": "Mistral 7B v0.3"}, {"model_type": "mistral", "sliding_window": None}),
        (
            {"llama.rope.scaling.type": "linear", "llama.rope.scaling.factor": 4.0},
            {"rope_scaling": {"rope_type": "linear", "factor": 4.0}},
        ),
        (
            {
                "llama.rope.scaling.type": "yarn",
                "llama.rope.scaling.factor": 4.0,
                "llama.rope.scaling.original_context_length": 128,
            },
            {"rope_scaling": {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 128}},
        ),
        ({"llama.attention.head_count_kv": [2, 2]}, {"num_key_value_heads": 2}),
        ({"llama.rope.freq_base": None}, {"rope_theta": 10000.0}),
        ({"llama.attention.layer_norm_rms_epsilon": 1e-6}, {"rms_norm_eps": 1e-6}),
        ({"tokenizer.ggml.padding_token_id": 3}, {"pad_token_id": 3}),
    ],
)
def test_metadata_becomes_fields_of_the_config(tmp_path, changes, expected):
    gguf_files.write_gguf(tmp_path / "model.gguf", gguf_files.metadata(**changes))
    config, _ = import_file(tmp_path / "model.gguf", tmp_path / "out")
    assert {key: config[key] for key in expected} == expected


def test_llama3_scaling_is_found_from_its_factors(tmp_path):
    """As the converter of llama.cpp writes them, by wavelengths."""
    wavelengths = 2 * np.pi * 500000.0 ** (np.arange(0, 64, 2) / 64)
    smooth = (8192 / wavelengths - 1) / 3
    factors = np.where(wavelengths < 2048, 1, np.where(wavelengths > 8192, 8, 1 / ((1 - smooth) / 8 + smooth)))
    tensors = gguf_files.matrices() | {rope.LLAMA3_FACTORS: factors.astype("<f4")}
    gguf_files.write_gguf(tmp_path / "model.gguf", tensors=tensors)
    config, found = import_file(tmp_path / "model.gguf", tmp_path / "out")
    assert config["rope_scaling"] == {
        "rope_type": "llama3",
        "factor": 8.0,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": 8192,
    }
    assert len(found) == len(tensors) - 1


def test_gemma3_has_its_own_norms_windows_and_scale(tmp_path):
    norms = {"post_attention_norm": (256,), "post_ffw_norm": (256,), "attn_q_norm": (64,), "attn_k_norm": (64,)}
    tensors = gguf_files.matrices(names=norms)
    fields = gguf_files.metadata("gemma3", gemma3__attention__sliding_window=128)
    written = gguf_files.write_gguf(tmp_path / "model.gguf", fields, tensors, architecture="gemma3")
    config, found = import_file(tmp_path / "model.gguf", tmp_path / "out")
    expected = {
        "model_type": "gemma3_text",
        "sliding_window": 128,
        "layer_types": ["sliding_attention"] * 2,
        "query_pre_attn_scalar": 64,
        "rope_local_base_freq": 10000.0,
        "hidden_activation": "gelu_pytorch_tanh",
        "tie_word_embeddings": True,
    }
    assert {key: config[key] for key in expected} == expected and "hidden_act" not in config
    for source, target in {
        "blk.1.ffn_norm": "model.layers.1.pre_feedforward_layernorm",
        "blk.1.post_ffw_norm": "model.layers.1.post_feedforward_layernorm",
        "blk.1.post_attention_norm": "model.layers.1.post_attention_layernorm",
        "blk.0.attn_k_norm": "model.layers.0.self_attn.k_norm",
        "output_norm": "model.norm",
    }.items():
        one_less = written[f"{source}.weight"][0] - np.float32(1)
        assert np.array_equal(found[f"{target}.weight"], gguf_files.bf16(one_less))


def test_phi3_keeps_its_fused_tensors_and_long_factors(tmp_path):
    names = dict.fromkeys(("attn_q", "attn_k", "attn_v", "ffn_gate"))
    names |= {"attn_qkv": (512, 256), "ffn_up": (1024, 256)}
    factors = {rope.LONG_FACTORS: np.linspace(1, 8, 32), rope.SHORT_FACTORS: np.ones(32)}
    tensors = gguf_files.matrices(names=names) | {name: each.astype("<f4") for name, each in factors.items()}
    fields = gguf_files.metadata("phi3", phi3__rope__scaling__original_context_length=128)
    gguf_files.write_gguf(tmp_path / "model.gguf", fields, tensors, architecture="phi3")
    config, found = import_file(tmp_path / "model.gguf", tmp_path / "out")
    assert config["original_max_position_embeddings"] == 128 and config["sliding_window"] is None
    assert config["rope_scaling"]["rope_type"] == "longrope" and config["rope_scaling"]["long_factor"][-1] == 8.0
    assert found["model.layers.0.self_attn.qkv_proj.weight"].shape == (512, 256)
    assert found["model.layers.1.mlp.gate_up_proj.weight"].shape == (1024, 256)


def test_biases_of_qwen2(tmp_path):
    random = np.random.default_rng(1)
    sizes = {"attn_q": 256, "attn_k": 128, "attn_v": 128}
    biases = {
        f"blk.{n}.{name}.bias": random.standard_normal(size).astype("<f4")
        for n in range(2)
        for name, size in sizes.items()
    }
    fields = gguf_files.metadata("qwen2")
    tensors = gguf_files.matrices() | biases
    gguf_files.write_gguf(tmp_path / "model.gguf", fields, tensors, architecture="qwen2")
    _, found = import_file(tmp_path / "model.gguf", tmp_path / "out")
    assert np.array_equal(found["model.layers.1.self_attn.k_proj.bias"], gguf_files.bf16(biases["blk.1.attn_k.bias"]))


def test_biases_of_llama_are_reordered_with_their_rows(tmp_path):
    sizes = {"attn_q": 256, "attn_k": 128, "attn_v": 128, "attn_output": 256}
    biases = {f"blk.{n}.{name}.bias": np.arange(size, dtype="<f4") for n in range(2) for name, size in sizes.items()}
    gguf_files.write_gguf(tmp_path / "model.gguf", tensors=gguf_files.matrices() | biases)
    config, found = import_file(tmp_path / "model.gguf", tmp_path / "out")
    assert config["attention_bias"] is True
    got = gguf_files.reordered(found["model.layers.0.self_attn.q_proj.bias"], 4)
    assert np.array_equal(got, gguf_files.bf16(np.arange(256, dtype="<f4")))


def test_parts_of_a_split_file_are_read_together(tmp_path):
    tensors = gguf_files.matrices()
    names = list(tensors)
    for number, chosen in ((1, names[:7]), (2, names[7:])):
        fields = {"split.no": number - 1, "split.count": 2, "split.tensors.count": len(names)}
        if number == 1:
            fields |= gguf_files.metadata()
        part = tmp_path / f"model-{number:05}-of-00002.gguf"
        gguf_files.write_gguf(part, fields, {name: tensors[name] for name in chosen})
    _, found = import_file(tmp_path / "model-00002-of-00002.gguf", tmp_path / "out")
    assert len(found) == len(names)
    assert np.array_equal(found["model.norm.weight"], gguf_files.bf16(tensors["output_norm.weight"]))


def test_large_weights_are_written_in_shards_and_in_pieces(tmp_path, monkeypatch):
    gguf_files.write_gguf(tmp_path / "model.gguf")
    _, whole = import_file(tmp_path / "model.gguf", tmp_path / "whole")
    monkeypatch.setattr(weights, "PIECE", 1000)  # 3 rows of 256 at once
    monkeypatch.setattr(checkpoint_files.write_weights, "__defaults__", (500_000,))
    _, found = import_file(tmp_path / "model.gguf", tmp_path / "out")
    shards = sorted(path.name for path in (tmp_path / "out").glob("*.safetensors"))
    assert len(shards) > 2 and shards[0] == f"model-00001-of-{len(shards):05}.safetensors"
    index = json.loads((tmp_path / "out" / checkpoint_files.INDEX).read_text())
    assert set(index["weight_map"]) == set(whole) and set(index["weight_map"].values()) == set(shards)
    assert index["metadata"]["total_size"] == sum(array.nbytes for array in whole.values())
    assert all(np.array_equal(found[name], whole[name]) for name in whole)


def test_rounding_is_to_the_nearest_even():
    random = np.random.default_rng(0)
    bits = random.integers(0, 2**32, 200_000, np.uint32)
    figures = bits.view("<f4")[np.isfinite(bits.view("<f4"))]
    figures = figures[np.abs(figures) < 3e38]
    ties = np.array([1.00390625, 1.01171875, -1.00390625, 0.0, -0.0, 1e-45], "<f4")
    for values in (figures.reshape(1, -1), ties.reshape(1, -1)):
        assert np.array_equal(weights.to_bf16(values), gguf_files.bf16(values))
    for bad in (np.inf, -np.inf, np.nan, 3.4e38):
        assert weights.to_bf16(np.array([1.0, bad], "<f4")) is None


def test_the_tokenizer_splits_text_as_the_model_learnt_it(tmp_path):
    from transformers import AutoTokenizer

    gguf_files.write_gguf(tmp_path / "model.gguf", gguf_files.metadata(**{"tokenizer.ggml.pre": "smollm"}))
    import_file(tmp_path / "model.gguf", tmp_path / "out")
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "out")
    assert tokenizer.convert_ids_to_tokens(tokenizer("hello 12<|im_end|>")["input_ids"]) == [
        *["hell", "o", "Ġ", "1", "2"],
        "<|im_end|>",
    ]
    rendered = tokenizer.apply_chat_template([{"role": "user", "content": "hell"}], tokenize=False)
    assert rendered == "<|im_start|>user\nhell<|im_end|>\n" and tokenizer.eos_token == "<|im_end|>"
    config = json.loads((tmp_path / "out/tokenizer_config.json").read_text())
    assert config["tokenizer_class"] == "PreTrainedTokenizerFast"


def test_a_vocabulary_of_llama_3_takes_whole_words_and_begins_a_text(tmp_path):
    from transformers import AutoTokenizer

    tokens = [*gguf_files.TOKENS[:-2], "hello", *gguf_files.SPECIAL]  # no merge leads to "hello"
    fields = gguf_files.metadata() | {
        "tokenizer.ggml.pre": "llama-bpe",
        "tokenizer.ggml.tokens": tokens,
        "tokenizer.ggml.token_type": [1] * (len(tokens) - 2) + [3, 3],
    }
    fields |= {"tokenizer.ggml.bos_token_id": len(tokens) - 2, "tokenizer.ggml.eos_token_id": len(tokens) - 1}
    tensors = gguf_files.matrices()
    tensors["token_embd.weight"] = np.zeros((len(tokens), 256), "<f4")
    gguf_files.write_gguf(tmp_path / "model.gguf", fields, tensors)
    import_file(tmp_path / "model.gguf", tmp_path / "out")
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "out")
    assert tokenizer.convert_ids_to_tokens(tokenizer("hello")["input_ids"]) == ["<|im_start|>", "hello"]


def test_a_sentencepiece_vocabulary_puts_a_beginning_before_the_text(tmp_path):
    from transformers import AutoTokenizer

    pieces = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256)), "▁", "h", "e", "▁h", "▁he"]
    fields = gguf_files.metadata(
        **{
            "tokenizer.ggml.model": "llama",
            "tokenizer.ggml.pre": "default",
            "tokenizer.ggml.tokens": pieces,
            "tokenizer.ggml.scores": [-float(i) for i in range(len(pieces))],
            "tokenizer.ggml.token_type": [2, 3, 3, *[6] * 256, *[1] * (len(pieces) - 259)],
            "tokenizer.ggml.merges": None,
            "tokenizer.ggml.bos_token_id": 1,
            "tokenizer.ggml.eos_token_id": 2,
        }
    )
    tensors = gguf_files.matrices()
    tensors["token_embd.weight"] = np.resize(tensors["token_embd.weight"], (len(pieces), 256))
    gguf_files.write_gguf(tmp_path / "model.gguf", fields, tensors)
    import_file(tmp_path / "model.gguf", tmp_path / "out")
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "out")
    assert tokenizer.convert_ids_to_tokens(tokenizer("he")["input_ids"]) == ["<s>", "▁he"]


def test_reading_takes_no_time_for_a_vocabulary_of_usual_size(tmp_path):
    """A number at a time, as the package reads it, this takes minutes."""
    tokens = [f"token{i}" for i in range(250_000)]
    fields = gguf_files.metadata() | {
        "tokenizer.ggml.tokens": tokens,
        "tokenizer.ggml.scores": [0.5] * len(tokens),
        "tokenizer.ggml.token_type": [1] * len(tokens),
    }
    gguf_files.write_gguf(tmp_path / "model.gguf", fields)
    file = GgufFile(tmp_path / "model.gguf")
    assert file.field("tokenizer.ggml.tokens") == tokens
    assert file.field("tokenizer.ggml.scores") == [0.5] * len(tokens)
    assert len(file.fields["tokenizer.ggml.scores"].parts) < 10


def test_winnow_starts_it_and_loads_what_it_writes(tmp_path):
    gguf_files.write_gguf(tmp_path / "model.gguf", kind=Type.Q8_0)
    done = launch.run(["import", tmp_path / "model.gguf", "--out", tmp_path / "out", "--json"], tmp_path / "cache")
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert report["tensor_types"] == ["F32", "Q8_0"] and report["layers"] == 2 and report["has_chat_template"]
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == report["files"]
    seen = launch.run(["inspect", tmp_path / "out", "--json"], tmp_path / "cache")
    assert seen.returncode == 0, seen.stderr
    assert json.loads(seen.stdout)["family"] == "llama"
    text = subprocess.run([launch.WINNOW, "import", "--help"], capture_output=True, text=True).stdout
    assert "--out DIR" in text and "Exit codes:" in text
