"""winnow plan of models of any depth with many settings, on made-up results: as good as an independent programme over
sums of bytes says."""

import itertools
import json

import launch
import numpy as np
import pytest
import result_files
import run_folder
import tiny

TOKENS = 131072
HEADS, HEAD_DIM, ELEMENT_BYTES = 2, 8, 4  # of tiny's checkpoints
TYPES = {"bf16": HEAD_DIM * ELEMENT_BYTES, "fp8": HEAD_DIM}


def make(directory, n_layers, windows, types):
    """Returns the settings, full attention as computed last, and their mean deltas (layer, setting)."""
    tiny.write_checkpoint(directory / "model", layers=n_layers)
    settings = list(itertools.product(windows, types)) + [(0, kind) for kind in types if kind != "bf16"]
    tiny.write_calibration(directory / "long.h5", [24] * 24)
    done = launch.run(run_folder.arguments("calibrate", directory, "run", "--window", 8), directory / "cache")
    assert done.returncode == 0, done.stderr
    path = directory / "run/results.h5"
    delta = result_files.add_layer_settings(path, settings)
    result_files.seal(path)
    return [*settings, (0, "bf16")], np.hstack([delta.mean(axis=0), np.zeros((n_layers, 1))])


def plans(directory, *words):
    done = launch.run(
        ["plan", "run", "--model", "model", "--max-seq-len", TOKENS, *words, "--json"],
        directory / "cache",
        cwd=directory,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)["plans"]


def least_losses(deltas, prices, most):
    """By what is taken, in units of the greatest common divisor: the least loss that fits."""
    unit = np.gcd.reduce(prices)
    sizes = prices // unit
    least = np.full(int(most // unit) + 1, np.inf)
    least[0] = 0.0
    for layer in deltas:
        options = []
        for size, loss in zip(sizes, layer, strict=True):
            shifted = np.full_like(least, np.inf)
            shifted[size:] = least[: len(least) - size] + loss
            options.append(shifted)
        least = np.min(options, axis=0)
    return unit, np.minimum.accumulate(least)


@pytest.mark.parametrize(
    ("engine", "n_layers", "windows", "types"),
    [
        ("ideal", 94, [512, 1024, 2048, 4096, 8192], ["bf16", "fp8"]),
        ("trtllm", 80, [512, 1024, 2048, 4096, 8192, 16384, 32768], ["bf16"]),
    ],
)
def test_the_plan_of_a_deep_model_is_the_best_there_is(tmp_path, engine, n_layers, windows, types):
    settings, deltas = make(tmp_path, n_layers, windows, types)
    assert len(settings) == (12 if engine == "ideal" else 8)
    keys = np.array([size or TOKENS for size, _ in settings])
    if engine == "trtllm":  # blocks of 32, a chunk of 8192 besides, and a block more
        keys = np.where(keys == TOKENS, TOKENS, keys + 8192 + 32)
    prices = keys * np.array([2 * HEADS * TYPES[kind] for _, kind in settings])
    shares = [12, 25, 50]
    found = plans(tmp_path, "--engine", engine, *[word for share in shares for word in ("--budget", f"{share}%")])
    full = n_layers * prices[-1]
    unit, least = least_losses(deltas, prices, full)
    for share, plan in zip(shares, found, strict=True):
        assert plan["full_attention_bytes"] == full
        assert plan["least_bytes"] == n_layers * prices.min()
        loss = pytest.approx(plan["predicted_delta_nll"], rel=1e-12, abs=1e-13)
        assert least[int(share / 100 * full) // unit] == loss
        kinds = zip(plan["layer_windows"], plan.get("layer_kv", ["bf16"] * n_layers), strict=True)
        chosen = [settings.index((size or 0, kind)) for size, kind in kinds]
        assert prices[chosen].sum() == plan["bytes"] <= share / 100 * full
        assert deltas[range(n_layers), chosen].sum() == loss


def test_vllms_groups_of_a_deep_model(tmp_path):
    _, deltas = make(tmp_path, 64, [1024, 4096, 16384], ["bf16", "fp8"])
    budgets = ["--budget", "20%", "--budget", "35%", "--budget", "60%"]
    found = plans(tmp_path, "--engine", "vllm", *budgets, "--until", "95%")
    losses = [plan["predicted_delta_nll"] for plan in found]
    assert losses == sorted(losses, reverse=True)
    for plan in found:
        assert plan["bytes"] <= plan["budget_bytes"]
        assert plan["allocated_bytes"]["vllm"] == plan["bytes"]
        assert [look["examples"] for look in plan["looks"]] == [16, 24]
        # A window of 1024 in every layer is one of the plans.
        assert plan["predicted_delta_nll"] <= deltas[:, 0].sum() + 1e-12
    (one,) = plans(tmp_path, "--engine", "vllm", "--budget", "35%")
    assert one["layer_windows"] == found[1]["layer_windows"]
