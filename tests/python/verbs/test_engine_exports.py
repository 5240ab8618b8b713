"""winnow export to engines that run a model under another family's name: config.json, tensors, programs, refusals."""

import json
import os
import shlex
import struct
import subprocess

import export_files as files
import launch
import pytest
import tiny

GOLDEN = launch.REPOSITORY / "tests" / "golden"
LAYERS, KEPT, WINDOW = files.LAYERS, files.KEPT, files.WINDOW


@pytest.fixture
def checkpoint(tmp_path):
    """(selection of it, checkpoint): a Qwen3."""
    model = tiny.write_checkpoint(tmp_path / "model", layers=LAYERS)
    (model / "tokenizer.json").write_text("{}")
    return files.write_selection(tmp_path / "selection.json", model), model


def read_tensors(path):
    """Name -> (type, shape, bytes) of a safetensors file."""
    data = path.read_bytes()
    (length,) = struct.unpack("<Q", data[:8])
    header = json.loads(data[8 : 8 + length])
    header.pop("__metadata__", None)
    begin = 8 + length
    return {
        name: (
            entry["dtype"],
            entry["shape"],
            data[begin + entry["data_offsets"][0] : begin + entry["data_offsets"][1]],
        )
        for name, entry in header.items()
    }


def all_tensors(folder):
    """Those of the files that the index names; it names each tensor, in the file that has it."""
    index = json.loads((folder / "model.safetensors.index.json").read_text())
    found = {}
    for file in sorted(set(index["weight_map"].values())):
        for name, tensor in read_tensors(folder / file).items():
            assert index["weight_map"][name] == file
            found[name] = tensor
    assert set(found) == set(index["weight_map"])
    assert index["metadata"]["total_size"] == sum(len(data) for _, _, data in found.values())
    assert not (folder / "model.safetensors").exists()  # which a reader would take for the whole
    return found


def test_a_qwen3_is_a_mellum_with_one_expert(checkpoint, tmp_path):
    selection, model = checkpoint
    result = files.export(tmp_path, selection, "llamacpp")
    assert result.returncode == 0, result.stderr
    out = tmp_path / "out"
    before, after = (json.loads((folder / "config.json").read_text()) for folder in (model, out))
    rope = {"rope_type": "default", "rope_theta": before["rope_theta"]}
    expected = {
        "model_type": "mellum",
        "architectures": ["MellumForCausalLM"],
        "layer_types": files.types(),
        "sliding_window": WINDOW,
        "mlp_layer_types": ["sparse"] * LAYERS,
        "num_experts": 1,
        "num_experts_per_tok": 1,
        "moe_intermediate_size": before["intermediate_size"],
        "norm_topk_prob": True,
        "rope_parameters": {"full_attention": rope, "sliding_attention": rope},
        "head_dim": before["head_dim"],
    }
    assert {key: after[key] for key in expected} == expected
    assert not {"use_sliding_window", "max_window_layers", "rope_theta"} & set(after)
    # The MLPs have new names and the bytes that they had; the router of each is one row of zeros.
    old, new = read_tensors(model / "model.safetensors"), all_tensors(out)
    # llama.cpp's Mellum has no output that is the embeddings.
    assert before["tie_word_embeddings"] and not after["tie_word_embeddings"]
    assert new.pop("lm_head.weight") == old["model.embed_tokens.weight"]
    gates = {name: new.pop(name) for name in list(new) if name.endswith("mlp.gate.weight")}
    assert new == {name.replace(".mlp.", ".mlp.experts.0."): tensor for name, tensor in old.items()}
    assert [shape for _, shape, _ in gates.values()] == [[1, before["hidden_size"]]] * LAYERS
    assert all(not any(data) for _, _, data in gates.values())
    record = json.loads((out / "winnow-export.json").read_text())
    told = {"engine": "llamacpp", "route": "relabelled", "served_model_type": "mellum", "model_type": "qwen3"}
    assert {key: record[key] for key in told} == told


def test_a_llama_is_a_granite_swa_without_sinks(tmp_path):
    model = GOLDEN / "llama"
    selection = files.write_selection(tmp_path / "selection.json", model, "llama", n_layers=4, layers=[1])
    result = files.export(tmp_path, selection, "sglang")
    assert result.returncode == 0, result.stderr
    out = tmp_path / "out"
    after = json.loads((out / "config.json").read_text())
    assert after["model_type"] == "granite_swa" and after["layer_types"] == files.types([1])[:4]
    assert after["attention_multiplier"] == pytest.approx(after["head_dim"] ** -0.5)
    assert [after[f"{key}_multiplier"] for key in ("embedding", "residual")] == [1.0, 1.0]
    assert after["attention_bias"] is False and after["logits_scaling"] == 1.0
    first, second = (f"model-0000{i}-of-00002.safetensors" for i in (1, 2))
    assert (out / first).is_symlink() and (out / first).samefile(model / "model.safetensors")
    added = read_tensors(out / second)
    assert set(added) == {f"model.layers.{layer}.self_attn.sinks" for layer in range(4)}
    for dtype, shape, data in added.values():
        assert dtype == "F32" and shape == [after["num_attention_heads"]]
        assert struct.unpack("<f", data[:4]) == (-10000.0,)
    assert set(all_tensors(out)) == set(added) | set(read_tensors(model / "model.safetensors"))


def test_a_sharded_checkpoint_gets_one_more_shard(tmp_path):
    model = GOLDEN / "qwen2"
    names = json.loads((model / "model.safetensors.index.json").read_text())["weight_map"]
    selection = files.write_selection(tmp_path / "selection.json", model, "qwen2", n_layers=4, layers=[1])
    result = files.export(tmp_path, selection, "sglang")
    assert result.returncode == 0, result.stderr
    tensors = all_tensors(tmp_path / "out")
    dtype, shape, data = tensors["model.layers.3.self_attn.sinks"]  # in the type of the other weights
    assert (dtype, struct.unpack(f"<{shape[0]}e", data)) == ("F16", (-10000.0,) * shape[0])
    assert set(tensors) - set(names) == {
        f"model.layers.{layer}.self_attn.{name}" for layer in range(4) for name in ("sinks", "o_proj.bias")
    }
    assert (tmp_path / "out" / "model-00001-of-00003.safetensors").is_symlink()


def test_mlx_reads_the_rotary_base_at_the_top(tmp_path):
    rope = {"rope_type": "llama3", "factor": 8.0, "rope_theta": 5e5, "original_max_position_embeddings": 512}
    rope |= {"low_freq_factor": 1.0, "high_freq_factor": 4.0}
    config = files.LLAMA | {"rope_parameters": rope}
    del config["rope_theta"]
    result = files.export(tmp_path, files.config_only(tmp_path, config), "mlx")
    assert result.returncode == 0, result.stderr
    after = json.loads((tmp_path / "out" / "config.json").read_text())
    assert after["model_type"] == "llama" and after["layer_types"] == files.types()
    assert after["rope_theta"] == 5e5 and after["rope_scaling"] == rope and after["sliding_window"] == WINDOW
    assert files.served(tmp_path)[0] == "mlx_lm.server"


def test_a_qwen2_is_a_llama_with_biases_for_mlx(tmp_path):
    model = GOLDEN / "qwen2"
    selection = files.write_selection(tmp_path / "selection.json", model, "qwen2", n_layers=4, layers=[1])
    result = files.export(tmp_path, selection, "mlx")
    assert result.returncode == 0, result.stderr
    before, after = (json.loads((folder / "config.json").read_text()) for folder in (model, tmp_path / "out"))
    assert after["model_type"] == "llama" and after["attention_bias"] and not after["mlp_bias"]
    assert after["rope_theta"] == before["rope_theta"] and "max_window_layers" not in after
    tensors = all_tensors(tmp_path / "out")
    biases = [tensors[f"model.layers.{layer}.self_attn.o_proj.bias"] for layer in range(4)]
    assert all(shape == [before["hidden_size"]] and not any(data) for _, shape, data in biases)
    assert not any("sinks" in name for name in tensors)


def test_sglang_serves_the_folder_with_a_second_pool(checkpoint, tmp_path):
    result = files.export(tmp_path, checkpoint[0], "sglang", "--max-seq-len", 100000)
    assert result.returncode == 0, result.stderr
    after = json.loads((tmp_path / "out" / "config.json").read_text())
    assert after["mlp_layer_types"] == ["dense"] * LAYERS  # SGLang has these: no tensor is renamed
    assert (tmp_path / "out" / "model-00001-of-00002.safetensors").is_symlink()
    words = files.served(tmp_path)
    assert words[:4] == ["python3", "-m", "sglang.launch_server", "--model-path"]
    # The window of 8, the row itself and a chunk of 8192 tokens: 8201 of 100,000, in hundredths.
    assert words[words.index("--swa-full-tokens-ratio") + 1] == "0.09"


def test_sglang_is_given_an_output_where_the_embeddings_are_it(tmp_path):
    """Its Mellum has one in any case, of zeros where no file has any: all tokens were as likely."""
    model = GOLDEN / "qwen3"
    assert json.loads((model / "config.json").read_text())["tie_word_embeddings"]
    selection = files.write_selection(tmp_path / "selection.json", model, n_layers=4, layers=[1])
    result = files.export(tmp_path, selection, "sglang")
    assert result.returncode == 0, result.stderr
    tensors = all_tensors(tmp_path / "out")
    assert tensors["lm_head.weight"] == tensors["model.embed_tokens.weight"]
    assert json.loads((tmp_path / "out" / "config.json").read_text())["tie_word_embeddings"] is False


def test_sglang_through_transformers_asks_for_one_key_less(checkpoint, tmp_path):
    selection, model = checkpoint
    result = files.export(tmp_path, selection, "sglang", "--model-impl", "transformers")
    assert result.returncode == 0, result.stderr
    words = files.served(tmp_path)
    assert words[4] == str(model) and words[5:7] == ["--model-impl", "transformers"]
    assert json.loads(words[words.index("--json-model-override-args") + 1]) == {
        "use_sliding_window": True,
        "max_window_layers": LAYERS,
        "sliding_window": WINDOW - 1,
        "layer_types": files.types(),
        "is_hybrid_swa": True,
        "hybrid_layer_pattern": [0 if layer in KEPT else 1 for layer in range(LAYERS)],
    }
    record = json.loads((tmp_path / "out" / "winnow-export.json").read_text())
    assert record["windows"] == [None if layer in KEPT else WINDOW for layer in range(LAYERS)]
    assert (record["engine"], record["route"]) == ("sglang", "transformers")


def test_the_plugin_is_told_each_window(checkpoint, tmp_path):
    result = files.export(tmp_path, checkpoint[0], "vllm", "--model-impl", "plugin")
    assert result.returncode == 0, result.stderr
    words = files.served(tmp_path)
    overrides = json.loads(words[words.index("--hf-overrides") + 1])
    assert overrides["layer_windows"] == [None if layer in KEPT else WINDOW for layer in range(LAYERS)]
    assert overrides["layer_types"] == files.types() and overrides["sliding_window"] == WINDOW
    assert words[-2:] == ["--model-impl", "vllm"]


@pytest.mark.parametrize("target", ["sglang", "llamacpp"])
def test_a_pattern_without_windows_keeps_the_model_as_it_is(checkpoint, tmp_path, target):
    """Under the other name these engines end with an assertion."""
    selection = files.write_selection(tmp_path / "all.json", checkpoint[1], layers=list(range(LAYERS)))
    result = files.export(tmp_path, selection, target)
    assert result.returncode == 0, result.stderr
    before, after = (json.loads((folder / "config.json").read_text()) for folder in (checkpoint[1], tmp_path / "out"))
    assert after == before  # whose sliding_window is null
    record = json.loads((tmp_path / "out" / "winnow-export.json").read_text())
    assert (record["route"], record["served_model_type"]) == ("native", "qwen3")


@pytest.mark.parametrize(
    "config, target, changes, words",
    [
        ({"model_type": "qwen3_moe", "num_hidden_layers": LAYERS}, "llamacpp", {}, ["norm_topk_prob", "llama.cpp"]),
        (files.LLAMA, "mlx", {"layers": []}, ["full attention", "one layer"]),
        ({"model_type": "phi3", "num_hidden_layers": LAYERS}, "mlx", {}, ["phi3", "MLX-LM", "llama, mistral"]),
        (files.LLAMA | {"head_dim": 16}, "llamacpp", {}, ["16 dimensions", "hidden_size / heads"]),
        (
            {"model_type": "qwen3", "num_hidden_layers": LAYERS, "rope_scaling": {"type": "linear", "factor": 2.0}},
            "llamacpp",
            {},
            ["scaling", "rotary"],
        ),
        ({"model_type": "phi3", "num_hidden_layers": LAYERS}, "sglang", {}, ["phi3", "SGLang"]),
        ({"model_type": "gpt_oss", "num_hidden_layers": LAYERS}, "vllm", {}, ["layer 3", "one layer in 2"]),
        (
            {"model_type": "qwen3_moe", "num_hidden_layers": LAYERS, "decoder_sparse_step": 2},
            "mlx",
            {},
            ["no experts", "MLX-LM"],
        ),
    ],
)
def test_what_an_engine_would_not_run_is_refused(tmp_path, config, target, changes, words):
    result = files.export(tmp_path, files.config_only(tmp_path, config, **changes), target)
    assert result.returncode == 65, (result.returncode, result.stderr)
    assert result.stderr.count("\n") == 1 and all(word in result.stderr for word in words), result.stderr
    assert not (tmp_path / "out").exists()


def test_the_converter_of_a_checkout_is_run(checkpoint, tmp_path):
    """A stand-in for llama.cpp's converter: it gets the folder and the name of the file."""
    checkout = tmp_path / "llama.cpp"
    checkout.mkdir()
    converter = checkout / "convert_hf_to_gguf.py"
    converter.write_text(
        "import json, pathlib, sys\nfolder, flag, out = sys.argv[1:]\nassert flag == '--outfile'\n"
        "config = json.loads((pathlib.Path(folder) / 'config.json').read_text())\n"
        "pathlib.Path(out).write_text(config['model_type'])\n"
    )
    result = files.export(tmp_path, checkpoint[0], "llamacpp", "--llama-cpp", checkout)
    assert result.returncode == 0, result.stderr
    assert (tmp_path / "out" / "model.gguf").read_text() == "mellum"
    # convert.sh does the same later, from anywhere.
    (tmp_path / "out" / "model.gguf").unlink()
    environment = os.environ | {"LLAMA_CPP": str(checkout)}
    subprocess.run([tmp_path / "out" / "convert.sh"], env=environment, check=True, timeout=launch.TIMEOUT_SECONDS)
    assert (tmp_path / "out" / "model.gguf").read_text() == "mellum"
    assert files.served(tmp_path)[:2] == ["llama-server", "--model"]


@pytest.mark.parametrize(
    "flags, wanted",
    [
        ([], ["--parallel", "1"]),
        (["--max-seq-len", "2000"], ["--parallel", "1", "--ctx-size", "2000"]),
        (["--concurrency", "3"], ["--parallel", "3", "--ctx-size", str(3 * 4096)]),
        (["--concurrency", "3", "--max-seq-len", "2000"], ["--parallel", "3", "--ctx-size", "6000"]),
    ],
)
def test_llama_server_has_the_sequences_whose_memory_is_reckoned(checkpoint, tmp_path, flags, wanted):
    """Its context is that of all sequences together; by itself it would take four of them."""
    result = files.export(tmp_path, checkpoint[0], "llamacpp", *flags)
    assert result.returncode == 0, result.stderr
    assert [word for word in files.served(tmp_path)[3:] if word != "$@"] == wanted
    kv = json.loads((tmp_path / "out" / "winnow-export.json").read_text())["kv_cache"]
    n_tokens = int(wanted[-1]) if "--ctx-size" in wanted else kv["max_seq_len"]
    assert n_tokens == kv["max_seq_len"] * kv["concurrency"] and kv["concurrency"] == int(wanted[1])


@pytest.mark.parametrize("text, code", [(None, 66), ("raise SystemExit('no such architecture')", 69)])
def test_a_converter_that_fails_leaves_nothing(checkpoint, tmp_path, text, code):
    checkout = tmp_path / "llama.cpp"
    checkout.mkdir()
    if text:
        (checkout / "convert_hf_to_gguf.py").write_text(text)
    result = files.export(tmp_path, checkpoint[0], "llamacpp", "--llama-cpp", checkout)
    assert result.returncode == code and result.stderr.count("\n") == 1, result.stderr
    assert str(checkout) in result.stderr and (text is None or "no such architecture" in result.stderr)
    assert not (tmp_path / "out").exists()


def test_the_programs_are_words_that_a_shell_reads(checkpoint, tmp_path):
    for target in ("sglang", "llamacpp"):
        result = files.export(tmp_path, checkpoint[0], target, out=target)
        assert result.returncode == 0, result.stderr
        for script in (tmp_path / target).glob("*.sh"):
            subprocess.run(["sh", "-n", script], check=True)
            assert shlex.split(script.read_text(), comments=True)[0] == "exec"
