"""winnow export without an engine: the files against the engines' documented forms, warnings, refusals."""

import json

import launch
import pytest
import tiny
from export_files import KEPT, LAYERS, LLAMA, MISTRAL, WINDOW, config_only, export, served, types, write_selection

GLM4 = {"model_type": "glm4", "num_hidden_layers": LAYERS}
# Every sixth layer of a Gemma 3 is full.
GEMMA3 = {"model_type": "gemma3_text", "num_hidden_layers": LAYERS, "sliding_window": 512}


@pytest.fixture
def checkpoint(tmp_path):
    """(selection of it, checkpoint)."""
    model = tiny.write_checkpoint(tmp_path / "model", layers=LAYERS)
    (model / "tokenizer.json").write_text("{}")
    (model / ".hidden").write_text("")
    return write_selection(tmp_path / "selection.json", model), model


def test_hf_is_a_checkpoint_with_other_windows(checkpoint, tmp_path):
    selection, model = checkpoint
    result = export(tmp_path, selection, "hf")
    assert result.returncode == 0 and result.stderr == "", result.stderr
    out = tmp_path / "out"
    before, after = (json.loads((folder / "config.json").read_text()) for folder in (model, out))
    patch = {"use_sliding_window": True, "sliding_window": WINDOW, "max_window_layers": LAYERS, "layer_types": types()}
    assert after == before | patch
    record = json.loads((out / "winnow-export.json").read_text())
    # 4 layers of 8 and 2 of 4096 keys, each of 2 heads of 8 in float32.
    assert record["kv_cache"] == {
        "max_seq_len": 4096,
        "concurrency": 1,
        "ideal_bytes": (4 * 8 + 2 * 4096) * 2 * 2 * 8 * 4,
        "engine_bytes": (4 * 8 + 2 * 4096) * 2 * 2 * 8 * 4,
        "full_attention_bytes": 6 * 4096 * 2 * 2 * 8 * 4,
    }
    assert "Keys and values of a sequence of 4096 tokens" in result.stdout
    assert list(after)[: len(before)] == list(before)  # what was there stays where it was
    assert json.loads((out / "config_patch.json").read_text()) == patch
    for name in ("model.safetensors", "tokenizer.json"):
        assert (out / name).is_symlink() and (out / name).samefile(model / name)
    assert not (out / ".hidden").exists()
    assert record["windows"] == [None if layer in KEPT else WINDOW for layer in range(LAYERS)]
    told = {"engine": "transformers", "route": "native", "served_model_type": "qwen3", "source": str(model)}
    assert {key: record[key] for key in told} == told
    assert sorted(p.name for p in tmp_path.iterdir()) == ["model", "out", "selection.json"] + (
        ["winnow"] if (tmp_path / "winnow").exists() else []
    )


def test_hf_patch_only(checkpoint, tmp_path):
    result = export(tmp_path, checkpoint[0], "hf", "--patch-only")
    assert result.returncode == 0, result.stderr
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == ["config_patch.json", "winnow-export.json"]


@pytest.mark.parametrize("config", [LLAMA, MISTRAL], ids=["llama", "mistral"])
def test_llama_and_mistral_become_ministral(tmp_path, config):
    result = export(tmp_path, config_only(tmp_path, config), "hf")
    assert result.returncode == 0, result.stderr
    after = json.loads((tmp_path / "out" / "config.json").read_text())
    assert after["model_type"] == "ministral" and after["architectures"] == ["MinistralForCausalLM"]
    assert after["layer_types"] == types() and after["sliding_window"] == WINDOW
    # What the two families default differently is written out.
    assert after["head_dim"] == 8
    assert after["num_key_value_heads"] == (4 if config is LLAMA else 8)
    assert after["rope_theta"] == config["rope_theta"]
    assert ("window of its own" in result.stderr) == (config is MISTRAL)


@pytest.mark.parametrize(
    "own, warned",
    [
        ({"use_sliding_window": True, "max_window_layers": LAYERS}, False),  # no layer is windowed
        ({"use_sliding_window": True, "max_window_layers": 4}, True),  # layer 4 is
        ({"use_sliding_window": True, "max_window_layers": 5}, False),  # layer 5 only, which stays windowed
        ({"use_sliding_window": True, "layer_types": types([0, 1, 2, 3, 4])}, False),
        ({"use_sliding_window": True, "layer_types": types([0])}, True),
        ({"use_sliding_window": False, "max_window_layers": 0}, False),
    ],
)
def test_own_windows_are_warned_of_where_a_kept_layer_has_one(checkpoint, tmp_path, own, warned):
    selection, model = checkpoint
    config = json.loads((model / "config.json").read_text()) | {"sliding_window": 4096} | own
    (model / "config.json").write_text(json.dumps(config))
    result = export(tmp_path, selection, "hf")
    assert result.returncode == 0 and ("window of its own" in result.stderr) == warned, result.stderr


def test_vllm_overrides(checkpoint, tmp_path):
    selection, model = checkpoint
    result = export(tmp_path, selection, "vllm")
    assert result.returncode == 0, result.stderr
    words = served(tmp_path)
    assert words[:3] == ["vllm", "serve", str(model)]
    flags = dict(zip(words[3::2], words[4::2], strict=True))
    assert set(flags) == {"--hf-overrides", "--model-impl"} and flags["--model-impl"] == "transformers"
    # vLLM asserts max_window_layers == num_hidden_layers where layers are of two kinds.
    assert json.loads(flags["--hf-overrides"]) == {
        "use_sliding_window": True,
        "max_window_layers": LAYERS,
        "sliding_window": WINDOW,
        "layer_types": types(),
    }
    assert json.loads((tmp_path / "out" / "hf_overrides.json").read_text()) == json.loads(flags["--hf-overrides"])


def test_vllm_runs_llama_itself(tmp_path):
    selection = config_only(tmp_path, LLAMA, layers=[0, 1, 2, 3])
    result = export(tmp_path, selection, "vllm")
    assert result.returncode == 0, result.stderr
    words = served(tmp_path)
    assert json.loads(words[words.index("--hf-overrides") + 1]) == {
        "sliding_window": WINDOW,
        "layer_types": types([0, 1, 2, 3]),
    }
    assert "--model-impl" not in words
    # 4 full and 2 windowed layers make groups of 2: nothing is padded; 5 and 1 neither.
    assert "padding" not in result.stderr and "--disable-hybrid-kv-cache-manager" in result.stderr


def test_vllm_padding_is_pointed_out(tmp_path):
    config = LLAMA | {"num_hidden_layers": 36}
    selection = config_only(tmp_path, config, n_layers=36, layers=list(range(8)))
    result = export(tmp_path, selection, "vllm")
    assert result.returncode == 0 and "4 padding layers" in result.stderr and "K = 9" in result.stderr


def test_trtllm_lists_every_layer(checkpoint, tmp_path):
    result = export(tmp_path, checkpoint[0], "trtllm", "--max-seq-len", 131072)
    assert result.returncode == 0 and "--tail-rows 0" in result.stderr, result.stderr
    lines = [
        line
        for line in (tmp_path / "out" / "llm_api_options.yaml").read_text().splitlines()
        if not line.startswith("#")
    ]
    assert lines[:3] == ["max_seq_len: 131072", "kv_cache_config:", "  enable_block_reuse: false"]
    name, value = lines[3].split(": ")
    assert name == "  max_attention_window" and len(lines) == 4
    assert json.loads(value) == [131072 if layer in KEPT else WINDOW for layer in range(LAYERS)]
    words = served(tmp_path)
    assert words[0] == "trtllm-serve" and words[2] == "--extra_llm_api_options"


def test_trtllm_takes_what_was_measured_as_it_runs(checkpoint, tmp_path):
    selection = write_selection(tmp_path / "tail.json", checkpoint[1], tail_rows=0)
    result = export(tmp_path, selection, "trtllm")
    assert result.returncode == 0 and result.stderr == "", result.stderr
    assert "max_seq_len: 4096" in (tmp_path / "out" / "llm_api_options.yaml").read_text()


@pytest.mark.parametrize(
    "target, keys, size", [("swaa-hf", WINDOW, WINDOW), ("swaa-vllm", WINDOW + 1, WINDOW), ("", WINDOW, WINDOW)]
)
def test_swaa_settings_list(checkpoint, tmp_path, target, keys, size):
    selection = write_selection(
        tmp_path / "swaa.json", checkpoint[1], target=target, window_keys=keys, sinks=4, decode="full"
    )
    result = export(tmp_path, selection, "swaa")
    assert result.returncode == 0, result.stderr
    # The form of Eval/settings_list/*.json.
    assert json.loads((tmp_path / "out" / "swaa_settings.json").read_text()) == [
        {
            "swaa_config": {
                "sliding_window_size": size,
                "keep_first": 4,
                "force_fa_decode": True,
                "non_sliding_layers": KEPT,
            },
            "model_list": [str(checkpoint[1])],
        }
    ]
    assert ("sees 9 keys" in result.stderr) == (target != "swaa-vllm")


@pytest.mark.parametrize("target", ["hf", "vllm", "trtllm"])
def test_other_semantics_are_warned_about(checkpoint, tmp_path, target):
    selection = write_selection(
        tmp_path / "swaa.json", checkpoint[1], target="swaa-vllm", window_keys=WINDOW + 1, sinks=4, decode="full"
    )
    result = export(tmp_path, selection, target)
    assert result.returncode == 0, result.stderr
    warnings = json.loads((tmp_path / "out" / "winnow-export.json").read_text())["warnings"]
    for words in ("4 sink tokens", "full attention for answer rows", "asks for 9"):
        assert words in result.stderr and any(words in warning for warning in warnings), result.stderr


def test_tail_rows_are_warned_about(checkpoint, tmp_path):
    result = export(tmp_path, write_selection(tmp_path / "t.json", checkpoint[1], tail_rows=32), "hf")
    assert result.returncode == 0 and "last 32 prompt rows" in result.stderr and "winnow evaluate" in result.stderr


@pytest.mark.parametrize("keep", [[], list(range(LAYERS))], ids=["none", "all"])
@pytest.mark.parametrize("target", ["hf", "vllm", "sglang", "llamacpp", "trtllm", "swaa", "json"])
def test_extreme_budgets(checkpoint, tmp_path, keep, target):
    result = export(tmp_path, write_selection(tmp_path / "k.json", checkpoint[1], layers=keep), target)
    assert result.returncode == 0, result.stderr
    record = json.loads((tmp_path / "out" / "winnow-export.json").read_text())
    assert record["windows"] == [None if layer in keep else WINDOW for layer in range(LAYERS)]


@pytest.mark.parametrize(
    "config, target, flags, words",
    [
        (GLM4, "hf", [], ["glm4", "qwen3_moe", "--target json"]),
        (GLM4, "vllm", [], ["glm4", "--target json"]),
        (
            {"model_type": "qwen3", "num_hidden_layers": LAYERS},
            "vllm",
            ["--model-impl", "vllm"],
            ["full attention everywhere", "--model-impl vllm"],
        ),
        ({"model_type": "qwen2", "num_hidden_layers": LAYERS}, "vllm", ["--model-impl", "vllm"], ["qwen2"]),
        (LLAMA, "vllm", ["--model-impl", "transformers"], ["llama", "--model-impl transformers"]),
        (MISTRAL | {"attention_bias": True}, "hf", [], ["attention_bias", "Transformers"]),
        (GLM4, "swaa", [], ["glm4", "qwen3_moe"]),
        (MISTRAL, "swaa", [], ["SWAA", "mistral"]),
        (GEMMA3, "hf", [], ["layer 1", "rotary"]),
        (GEMMA3, "vllm", [], ["layer 1", "rotary"]),
        ({"model_type": "falcon", "num_hidden_layers": LAYERS}, "hf", [], ["falcon", "--target json"]),
        ({"model_type": "qwen3", "num_hidden_layers": LAYERS}, "trtllm", [], ["--max-seq-len"]),
        (GEMMA3 | {"sliding_window_pattern": "x"}, "hf", [], ["sliding_window_pattern", "whole number"]),
        (GEMMA3 | {"sliding_window_pattern": None}, "vllm", [], ["rotary"]),
    ],
)
def test_refusals_give_the_reason(tmp_path, config, target, flags, words):
    result = export(tmp_path, config_only(tmp_path, config), target, *flags)
    assert result.returncode == 65, (result.returncode, result.stderr)
    assert result.stderr.count("\n") == 1 and all(word in result.stderr for word in words), result.stderr
    assert not (tmp_path / "out").exists()


def test_gemma3_may_keep_its_own_pattern(tmp_path):
    result = export(tmp_path, config_only(tmp_path, GEMMA3, layers=[5]), "hf")
    assert result.returncode == 0, result.stderr
    assert json.loads((tmp_path / "out" / "config_patch.json").read_text()) == {
        "sliding_window": WINDOW,
        "layer_types": types([5]),
    }


def test_another_model_is_refused(checkpoint, tmp_path):
    selection, model = checkpoint
    result = export(tmp_path, selection, "hf", hashed=True)
    assert result.returncode == 78 and "SHA-256" in result.stderr and result.stderr.count("\n") == 1
    config = json.loads((model / "config.json").read_text())
    for field, value in (("num_hidden_layers", 5), ("model_type", "qwen2")):
        (model / "config.json").write_text(json.dumps(config | {field: value}))
        result = export(tmp_path, selection, "json")
        assert result.returncode == 78 and field in result.stderr, result.stderr
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "flags, code, words",
    [
        (["--target", "gguf"], 64, ["gguf", "trtllm"]),
        (["--target", "hf", "--llama-cpp", "."], 64, ["--llama-cpp"]),
        (["--target", "trtllm", "--max-seq-len", "0"], 64, ["--max-seq-len"]),
        (["--target", "hf", "--concurrency", "0"], 64, ["--concurrency"]),
        (["--target", "hf", "--model-impl", "vllm"], 64, ["--model-impl"]),
        (["--target", "vllm", "--model-impl", "x"], 64, ["--model-impl"]),
        (["--target", "sglang", "--model-impl", "plugin"], 64, ["--model-impl", "sglang takes transformers"]),
        (["--target", "vllm", "--patch-only"], 64, ["--patch-only"]),
        (["--target", "hf", "--patch-only", "--check"], 64, ["--patch-only"]),
        (["--target", "hf", "--model", "/nowhere"], 66, ["/nowhere/config.json", "--model"]),
        (["--target", "hf", "--out", "/nowhere/out"], 73, ["/nowhere/out"]),
    ],
)
def test_bad_flags_are_one_line(checkpoint, tmp_path, flags, code, words):
    if "--out" not in flags:
        flags = [*flags, "--out", str(tmp_path / "out")]
    result = launch.run(["export", checkpoint[0], "--no-hash", *flags], tmp_path)
    assert result.returncode == code, result.stderr
    assert result.stderr.count("\n") == 1 and all(word in result.stderr for word in words), result.stderr
    assert not (tmp_path / "out").exists()


def test_what_is_there_is_not_touched(checkpoint, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine").write_text("mine")
    result = export(tmp_path, checkpoint[0], "hf")
    assert result.returncode == 73 and "exists" in result.stderr
    assert [p.name for p in (tmp_path / "out").iterdir()] == ["mine"]
    (tmp_path / "out" / "mine").unlink()
    assert export(tmp_path, checkpoint[0], "hf").returncode == 0  # an empty folder will do


@pytest.mark.parametrize("text", ["", "[]", '{"format": "winnow-selection", "format_version": 2}', '{"a": 1'])
def test_bad_selections_are_one_line(checkpoint, tmp_path, text):
    (tmp_path / "bad.json").write_text(text)
    result = export(tmp_path, tmp_path / "bad.json", "hf")
    assert result.returncode == 65 and "bad.json" in result.stderr and result.stderr.count("\n") == 1, result.stderr


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        '{"model_type": 3}',
        '{"model_type": "qwen3", "model_type": "x"}',
        '{"model_type": "qwen3", "num_hidden_layers": "six"}',
    ],
)
def test_bad_configs_are_one_line(checkpoint, tmp_path, text):
    selection, model = checkpoint
    (model / "config.json").write_text(text)
    result = export(tmp_path, selection, "hf")
    assert result.returncode in (65, 78), result.stderr
    assert "config.json" in result.stderr and result.stderr.count("\n") == 1, result.stderr


def test_model_paths_are_quoted(checkpoint, tmp_path):
    selection, model = checkpoint
    odd = model.rename(tmp_path / 'it\'s a "model" $HOME')
    result = export(tmp_path, selection, "vllm", "--model", odd)
    assert result.returncode == 0, result.stderr
    assert served(tmp_path)[2] == str(odd)


def test_check_says_when_nobody_can_check(checkpoint, tmp_path):
    result = export(tmp_path, checkpoint[0], "trtllm", "--check")
    assert result.returncode == 0 and "not checked" in result.stdout
    rows = [line.split() for line in result.stdout.splitlines() if line.split()[:1] and line.split()[0].isdigit()]
    assert rows == [[str(layer), "full" if layer in KEPT else str(WINDOW)] for layer in range(LAYERS)]
