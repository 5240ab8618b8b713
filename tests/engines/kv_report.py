"""Starts an engine as serve.sh does, and prints the memory that it says its keys and values take, as JSON.

kv_report.py ENGINE MODEL N_TOKENS N_SEQUENCES OVERRIDES RATIO, in the engine's own Python. bytes: what vLLM's own
accounting gives; else pools: [tokens, layers] of each, as the engine's log has them on standard error.
"""

import json
import os
import sys


def end(**found):
    """At once: threads that an engine leaves behind are not waited for."""
    print(json.dumps(found))
    sys.stdout.flush()
    os._exit(0)


def llamacpp(model, n_tokens, n_sequences, *_):
    import xllamacpp

    params = xllamacpp.CommonParams()
    params.model.path = model
    params.n_ctx, params.n_parallel = n_tokens * n_sequences, n_sequences
    params.n_gpu_layers, params.warmup, params.fit_params, params.verbosity = 0, False, False, 5
    for processor in (params.cpuparams, params.cpuparams_batch):
        processor.n_threads = 1  # two wait for each other in a loop
    server = xllamacpp.Server(params)  # noqa: F841 - its end takes long
    end()


def vllm(model, n_tokens, n_sequences, overrides, _):
    os.environ["VLLM_ENABLE_V1_MULTIPROCESSING"] = "0"
    import dataclasses

    from vllm import LLM
    from vllm.v1.core.kv_cache_utils import _max_memory_usage_bytes_from_groups

    engine = LLM(
        model=model,
        hf_overrides=overrides,
        model_impl="transformers",
        skip_tokenizer_init=True,
        enforce_eager=True,
        max_model_len=n_tokens,
        max_num_batched_tokens=8192,
        max_num_seqs=n_sequences,
    )
    core = engine.llm_engine.engine_core.engine_core
    # As on a GPU, where serve.sh starts it: blocks of 16, and a step that is scheduled while another runs.
    core.vllm_config.scheduler_config.async_scheduling = True
    groups = core.scheduler.kv_cache_config.kv_cache_groups
    groups = [
        dataclasses.replace(group, kv_cache_spec=dataclasses.replace(group.kv_cache_spec, block_size=16))
        for group in groups
    ]
    end(bytes=n_sequences * _max_memory_usage_bytes_from_groups(core.vllm_config, groups))


def sglang(model, n_tokens, n_sequences, overrides, ratio):
    os.environ["SGLANG_USE_CPU_ENGINE"] = "1"
    from sglang import Engine

    engine = Engine(
        model_path=model,
        json_model_override_args=json.dumps(overrides),
        device="cpu",
        attention_backend="torch_native",
        sampling_backend="pytorch",
        skip_tokenizer_init=True,
        disable_cuda_graph=True,
        swa_full_tokens_ratio=ratio,
        max_total_tokens=n_tokens * n_sequences,
        max_running_requests=n_sequences,
        log_level="info",
    )
    engine.shutdown()
    end()


if __name__ == "__main__":
    name, path, tokens, sequences, changes, share = sys.argv[1:]
    globals()[name](path, int(tokens), int(sequences), json.loads(changes), float(share))
