"""Scores tokens and writes text with a serving engine.

    runner.py ENGINE REQUEST.json RESULT.json

It runs in the Python in which the engine is installed, which need not have anything of winnow: nothing but the standard
library and the engine is imported. Exit code 69: the engine is not installed there.

Request: model (folder, or a GGUF), overrides (of config.json), model_impl (of vLLM and SGLang), n_vocabulary, tokens,
first (token to score), n_new (tokens to write), threads (or null). Result: version, nll (of tokens[first:], nats), text
(token ids, greedy) and margins (log-probability of each over the next best, nats). All in float32 on the CPU.
"""

import json
import os
import sys
from typing import Any

UNAVAILABLE = 69
Result = dict[str, Any]


def run_transformers(request: Result) -> Result:
    import torch
    import transformers

    if request["threads"]:
        torch.set_num_threads(request["threads"])
    transformers.logging.set_verbosity_error()
    config = transformers.AutoConfig.from_pretrained(request["model"], local_files_only=True)
    config.update(request["overrides"])
    model = transformers.AutoModelForCausalLM.from_pretrained(
        request["model"], config=config, dtype=torch.float32, local_files_only=True
    ).eval()
    tokens = torch.tensor([request["tokens"]])
    n_scored = tokens.shape[1] - request["first"]
    result: Result = {"version": transformers.__version__, "text": [], "margins": []}
    with torch.inference_mode():
        logits = model(tokens, use_cache=False, logits_to_keep=n_scored + 1).logits[0, :-1].double()
        log_p = torch.log_softmax(logits, -1).gather(1, tokens[0, request["first"] :, None])
        result["nll"] = (-log_p[:, 0]).tolist()
        if request["n_new"]:
            # In place of the checkpoint's own, which would fill in what is left out: its stop tokens, sampling.
            model.generation_config = transformers.GenerationConfig(
                do_sample=False, max_new_tokens=request["n_new"], eos_token_id=None, pad_token_id=0
            )
            written = model.generate(tokens, output_logits=True, return_dict_in_generate=True)
            result["text"] = written.sequences[0, tokens.shape[1] :].tolist()
            for rows in written.logits:
                best = rows[0].double().topk(2).values
                result["margins"].append(float(best[0] - best[1]))
    return result


def run_llamacpp(request: Result) -> Result:
    """Through llama.cpp's own server, with the cache of keys and values that it would serve with. It has no
    log-probabilities of prompts, so the sequence goes in token by token: each time the next token is forced, and its
    log-probability, which is that before the force, is read."""
    import math

    import xllamacpp

    tokens, first = request["tokens"], request["first"]
    params = xllamacpp.CommonParams()
    params.model.path = request["model"]
    params.n_ctx = len(tokens) + request["n_new"] + 64
    params.n_batch = params.n_ubatch = 512
    params.n_parallel = 1
    params.n_gpu_layers = 0
    params.warmup = False
    params.fit_params = False
    params.cache_type_k = params.cache_type_v = xllamacpp.ggml_type.GGML_TYPE_F32
    params.flash_attn_type = xllamacpp.llama_flash_attn_type.LLAMA_FLASH_ATTN_TYPE_DISABLED
    for processor in (params.cpuparams, params.cpuparams_batch):
        processor.n_threads = request["threads"] or 1
    server = xllamacpp.Server(params)

    def step(prompt: "list[int]", forced: int, n_probs: int = 2) -> "tuple[float, list[Result]] | None":
        """Log-probability of the forced token, and the likeliest tokens. None where the token's text ends within a
        character: it is held back then, and its figures with it."""
        body: Result = {"prompt": prompt, "n_predict": 1, "n_probs": n_probs, "temperature": 0.0}
        body |= {"samplers": ["temperature"], "cache_prompt": True, "logit_bias": [[forced, 1e6]]}
        answer = server.handle_completions(body)
        try:
            rows = answer["choices"][0]["logprobs"]
            if rows is None:
                return None
            row = rows["content"][0]
        except (LookupError, TypeError):
            raise RuntimeError(f"llama.cpp answers {json.dumps(answer)[:300]}") from None
        if row["id"] != forced:
            raise RuntimeError(f"llama.cpp gives token {row['id']} where {forced} was forced")
        return row["logprob"], row["top_logprobs"]

    # A token whose text is whole: forced in place of one that is held back, it shows the figures of all.
    whole = next((token for token in tokens if step(tokens[:1], token) is not None), None)
    if whole is None:
        raise RuntimeError("llama.cpp gives no log-probability of any token of the sequence")
    nll = []
    for place in range(first, len(tokens)):
        found = step(tokens[:place], tokens[place])
        if found is not None:
            log_p = found[0]
        else:
            _, rows = step(tokens[:place], whole, request["n_vocabulary"]) or (0.0, [])
            log_p = next((row["logprob"] for row in rows if row["id"] == tokens[place]), math.nan)
        if not math.isfinite(log_p):
            raise RuntimeError(f"llama.cpp gives {log_p} as log-probability of token {tokens[place]}")
        nll.append(-log_p)
    text: list[int] = []
    margins = []
    for _ in range(request["n_new"]):
        _, rows = step(tokens + text, whole) or (0.0, [])
        text.append(rows[0]["id"])
        margins.append(rows[0]["logprob"] - rows[1]["logprob"])
    version = getattr(xllamacpp, "__version__", "")
    return {"version": f"{version}", "nll": nll, "text": text, "margins": margins}


def run_mlx(request: Result) -> Result:
    import pathlib
    from importlib.metadata import version

    import mlx.core as mx
    from mlx_lm.models.cache import make_prompt_cache
    from mlx_lm.utils import load_model

    mx.set_default_device(mx.cpu)
    model, _ = load_model(pathlib.Path(request["model"]), model_config=request["overrides"])
    model.set_dtype(mx.float32)
    tokens, first = request["tokens"], request["first"]
    cache = make_prompt_cache(model)

    def log_p(ids: "list[int]") -> "mx.array":
        logits = model(mx.array([ids]), cache=cache)[0].astype(mx.float32)
        return logits - mx.logsumexp(logits, axis=-1, keepdims=True)

    rows = log_p(tokens)
    nll = [-rows[place - 1, tokens[place]].item() for place in range(first, len(tokens))]
    text: list[int] = []
    margins = []
    row = rows[-1]
    for _ in range(request["n_new"]):
        best = mx.sort(row)[-2:]
        text.append(int(mx.argmax(row).item()))
        margins.append(float((best[1] - best[0]).item()))
        row = log_p(text[-1:])[-1]
    return {"version": version("mlx-lm"), "nll": nll, "text": text, "margins": margins}


def run_vllm(request: Result) -> Result:
    import vllm

    tokens, n_new = request["tokens"], request["n_new"]
    engine = vllm.LLM(
        model=request["model"],
        hf_overrides=request["overrides"],
        model_impl=request["model_impl"] or "auto",
        dtype="float32",
        skip_tokenizer_init=True,
        enforce_eager=True,
        enable_prefix_caching=False,
        max_model_len=len(tokens) + n_new + 1,
        max_num_seqs=1,
    )
    wanted = vllm.SamplingParams(
        temperature=0.0, max_tokens=max(n_new, 1), ignore_eos=True, detokenize=False, prompt_logprobs=0, logprobs=2
    )
    done = engine.generate([{"prompt_token_ids": tokens}], wanted, use_tqdm=False)[0]
    places = range(request["first"], len(tokens))
    nll = [-done.prompt_logprobs[place][tokens[place]].logprob for place in places]
    margins = []
    for row in done.outputs[0].logprobs[:n_new]:
        best = sorted((each.logprob for each in row.values()), reverse=True)
        margins.append(best[0] - best[1])
    text = list(done.outputs[0].token_ids)[:n_new]
    return {"version": vllm.__version__, "nll": nll, "text": text, "margins": margins}


def run_sglang(request: Result) -> Result:
    os.environ["SGLANG_USE_CPU_ENGINE"] = "1"
    import sglang

    tokens, n_new = request["tokens"], request["n_new"]
    n_positions = len(tokens) + n_new + 8  # it ends some tokens before the last position
    engine = sglang.Engine(
        model_path=request["model"],
        json_model_override_args=json.dumps(request["overrides"]),
        model_impl=request["model_impl"] or "auto",
        device="cpu",
        dtype="float32",
        attention_backend="torch_native",
        sampling_backend="pytorch",
        skip_tokenizer_init=True,
        disable_cuda_graph=True,
        disable_overlap_schedule=True,
        disable_radix_cache=True,
        swa_full_tokens_ratio=1.0,
        context_length=n_positions,
        max_total_tokens=2 * n_positions,
        max_running_requests=1,
        log_level="warning",
    )
    wanted = {"temperature": 0.0, "max_new_tokens": max(n_new, 1), "ignore_eos": True}
    answer = engine.generate(
        input_ids=tokens, sampling_params=wanted, return_logprob=True, logprob_start_len=0, top_logprobs_num=2
    )
    about = answer["meta_info"]
    rows = about["input_token_logprobs"]
    if [row[1] for row in rows] != tokens:
        raise RuntimeError(f"SGLang scored other tokens than it was given: {rows[:4]}")
    margins = [best[0][0] - best[1][0] for best in about["output_top_logprobs"][:n_new]]
    nll = [-row[0] for row in rows[request["first"] :]]
    return {"version": sglang.__version__, "nll": nll, "text": answer["output_ids"][:n_new], "margins": margins}


RUN = {
    "transformers": run_transformers,
    "llamacpp": run_llamacpp,
    "mlx": run_mlx,
    "vllm": run_vllm,
    "sglang": run_sglang,
}


def main() -> int:
    engine, request_path, result_path = sys.argv[1:]
    with open(request_path, encoding="utf-8") as file:
        request = json.load(file)
    try:
        result = RUN[engine](request)
    except ImportError as error:
        print(f"{sys.executable} lacks a package: {error}", file=sys.stderr)
        return UNAVAILABLE
    with open(result_path, "w", encoding="utf-8") as file:
        json.dump(result, file)
    # Threads that an engine leaves behind are not waited for.
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)


if __name__ == "__main__":
    sys.exit(main())
