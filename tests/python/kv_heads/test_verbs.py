"""calibrate --per-kv-head: every key head alone, and selections of heads in select, evaluate and export."""

import json

import h5py
import launch
import numpy as np
import pytest
import run_folder
import tiny

LENGTHS = [210, 190, 170, 230]
LAYERS, HEADS = 3, 4
WINDOW, SINKS, TAIL = 12, 2, 40
MEASURED = ["nll", "delta_nll", "exact_match", "token_accuracy"]


@pytest.fixture(scope="module")
def work(tmp_path_factory):
    directory = tmp_path_factory.mktemp("heads")
    tiny.write_checkpoint(directory / "model", layers=LAYERS, heads=8, kv_heads=HEADS)
    tiny.write_calibration(directory / "long.h5", LENGTHS)
    tiny.write_calibration(directory / "short.h5", [40, 50], seed=1, prefix="short")
    return directory


def winnow(work, *words, ranks=None):
    return launch.run(list(words), work / "cache", ranks, cwd=work)


def calibrate(work, out, *more, ranks=None):
    more = ["--window", WINDOW, "--sinks", SINKS, *more]
    return launch.run(run_folder.arguments("calibrate", work, out, *more), work / "cache", ranks)


def measured(work, out, *more, ranks=None):
    done = calibrate(work, out, "--per-kv-head", *more, ranks=ranks)
    assert done.returncode == 0, done.stderr
    return work / out / "results.h5"


@pytest.fixture(scope="module")
def run(work):
    return measured(work, "run", "--tail-rows", TAIL, "--control", f"short={work / 'short.h5'}", "--top-k", 1)


@pytest.fixture(scope="module")
def selected(work, run):
    done = winnow(work, "select", "run", "--per-kv-head", "--out", "heads.json")
    assert done.returncode == 0, done.stderr
    return json.loads((work / "heads.json").read_text())


def write_heads(path, selection, windowed):
    """A selection whose heads are those, [layers, heads] true where windowed; without its checksum."""
    full = [[int(head) for head in np.flatnonzero(~layer)] for layer in windowed]
    whole = [layer for layer, heads in enumerate(full) if len(heads) == HEADS]
    heads = {"full_kv_heads": full, "layers": whole, "keep": len(whole), "keep_kv_heads": int((~windowed).sum())}
    path.write_text(json.dumps({key: value for key, value in (selection | heads).items() if key != "content_sha256"}))
    return path


def evaluate(work, out, patterns, *more):
    words = [word for pattern in patterns for word in ("--pattern", pattern)]
    more = ["--window", WINDOW, "--sinks", SINKS, *words, *more]
    return launch.run(run_folder.arguments("evaluate", work, out, *more), work / "cache")


def test_every_head_is_its_own_pattern(work, run, selected):
    """And all heads of a layer are the layer, bit for bit."""
    places = [(layer, head) for layer in range(LAYERS) for head in [*range(HEADS), slice(None)]]
    files = []
    for n, place in enumerate(places):
        windowed = np.zeros((LAYERS, HEADS), bool)
        windowed[place] = True
        files.append(str(write_heads(work / f"single-{n}.json", selected, windowed)))
    layers = ["list:" + ",".join(str(i) for i in range(LAYERS) if i != layer) for layer in range(LAYERS)]
    done = evaluate(work, "singles", [*files, *layers], "--tail-rows", TAIL)
    assert done.returncode == 0, done.stderr
    with h5py.File(work / "singles/results.h5") as file, h5py.File(run) as calibration:
        nll = file["evaluation/nll"][()]
        names = list(file["evaluation/pattern"].asstr()[()])
        is_full = file["evaluation/full_attention_kv_head"][()]
        for layer, head in places:
            windowed = np.zeros((LAYERS, HEADS), bool)
            windowed[layer, head] = True
            (row,) = [i for i, name in enumerate(names) if "kv-heads" in name and ((is_full[i] == 0) == windowed).all()]
            if head == slice(None):
                assert nll[row].tobytes() == nll[names.index(layers[layer])].tobytes()
                assert nll[row].tobytes() == calibration["calibration/nll"][:, layer].tobytes()
            else:
                assert nll[row].tobytes() == calibration["heads/nll"][:, layer, head].tobytes()
        assert len({values.tobytes() for values in nll}) == 1 + LAYERS * (HEADS + 1)


def test_layers_are_as_without_heads(work, run):
    done = calibrate(work, "layers", "--tail-rows", TAIL, "--control", f"short={work / 'short.h5'}", "--top-k", 1)
    assert done.returncode == 0, done.stderr
    with_heads = tiny.tables(run)
    for name, values in tiny.tables(work / "layers/results.h5").items():
        same = np.asarray(values).dtype == object and np.array_equal(values, with_heads[name])
        assert same or np.asarray(values).tobytes() == np.asarray(with_heads[name]).tobytes(), name
    assert not any(name.startswith("heads/") for name in tiny.tables(work / "layers/results.h5"))
    assert not any("heads" in name for name in with_heads if name.startswith("control/"))


def test_rows_are_the_tail_unless_all_are_asked_for(work, run):
    for out, flags, rows in [("tail", [], 256), ("exact", ["--exact"], -1)]:
        with h5py.File(measured(work, out, *flags)) as file:
            assert file["provenance/tail_rows"][()] == rows
            alone = calibrate(work, f"{out}-layers", *(["--tail-rows", 256] if rows > 0 else []))
            assert alone.returncode == 0, alone.stderr
            with h5py.File(work / f"{out}-layers/results.h5") as layers:
                assert file["calibration/nll"][()].tobytes() == layers["calibration/nll"][()].tobytes()


def test_ranks_and_resumed_units_give_the_same(work, run):
    control = ["--tail-rows", TAIL, "--control", f"short={work / 'short.h5'}", "--top-k", 1]
    measured(work, "ranks", *control, ranks=2)
    tiny.assert_same_tables(run, work / "ranks/results.h5")
    lost = run_folder.shards(work / "ranks")[0]
    lost.unlink()
    (work / "ranks/results.h5").unlink()
    measured(work, "ranks", *control)
    assert run_folder.last_run(work / "ranks")["units_done"] == 1
    tiny.assert_same_tables(run, work / "ranks/results.h5")
    done = calibrate(work, "ranks", *control)
    assert done.returncode == 78
    assert "per_kv_head is true in this run directory, but none in this command" in done.stderr


def rank_of(values):
    return np.argsort(np.argsort(values)).astype(float)


def test_statistics_are_those_of_the_table(work, run):
    with h5py.File(run) as file:
        heads = file["heads"]
        delta = heads["nll"][()] - file["calibration/nll_base"][()][:, None, None]
        np.testing.assert_array_equal(heads["delta_nll"][()], delta)
        mean = delta.mean(axis=0)
        np.testing.assert_allclose(heads["mean_delta_nll"][()], mean, rtol=1e-12)
        order = np.argsort(-mean, axis=None)
        assert heads["rank"][()].ravel()[order].tolist() == list(range(1, LAYERS * HEADS + 1))
        assert (heads["ci_low"][()] <= mean).all() and (mean <= heads["ci_high"][()]).all()
        assert (heads["rank_low"][()] <= heads["rank"][()]).all()
        np.testing.assert_allclose(heads["layer_sum"][()], mean.sum(axis=1), rtol=1e-9)
        np.testing.assert_allclose(heads["layer_largest"][()], mean.max(axis=1), rtol=1e-12)
        layers = file["ranking/mean_delta_nll"][()]
        for name, by_layer in (("rho_sum", mean.sum(axis=1)), ("rho_largest", mean.max(axis=1))):
            rho = np.corrcoef(rank_of(layers), rank_of(by_layer))[0, 1]
            assert heads[name][()] == pytest.approx(rho, abs=1e-12)
        accuracy = file["calibration/token_accuracy_base"][()][:, None, None] - heads["token_accuracy"][()]
        np.testing.assert_allclose(heads["token_accuracy_drop"][()], accuracy.mean(axis=0), atol=1e-15)
        for name in MEASURED:
            assert heads[name].shape == (len(LENGTHS), LAYERS, HEADS)
        assert heads["budget"][()].tolist() == [1, 3, 4, 6]
    done = launch.run(["stats", run, "--out", work / "again.h5", "--top-k", 1], work / "cache")
    assert done.returncode == 0, done.stderr
    tiny.assert_same_tables(run, work / "again.h5")


def test_table_and_json_show_heads(work, run):
    control = ["--tail-rows", TAIL, "--control", f"short={work / 'short.h5'}", "--top-k", 1]
    table = calibrate(work, "run", "--per-kv-head", *control).stdout
    assert "the 12 of 12 that cost most" in table
    assert "rho with the sum of its heads" in table
    shown = json.loads(calibrate(work, "run", "--per-kv-head", *control, "--json").stdout)["heads"]
    with h5py.File(run) as file:
        mean = file["heads/mean_delta_nll"][()]
    assert [head["rank"] for head in shown["heads"]] == list(range(1, LAYERS * HEADS + 1))
    for head in shown["heads"]:
        assert head["mean_delta_nll"] == mean[head["layer"], head["kv_head"]]


def test_a_dry_run_prices_the_lanes(work):
    done = calibrate(work, "priced", "--per-kv-head", "--layers", "0,2", "--dry-run", "--json")
    assert done.returncode == 0, done.stderr
    forecast = json.loads(done.stdout)
    assert forecast["lanes_per_example"] == 2 * (1 + HEADS)
    assert forecast["cells_total"] == len(LENGTHS) * (1 + 2 * (1 + HEADS))
    assert forecast["predicted_seconds"] > 0
    assert (
        f"lanes   {2 * (1 + HEADS)} an example"
        in calibrate(work, "priced", "--per-kv-head", "--layers", "0,2", "--dry-run").stdout
    )
    assert not (work / "priced").exists()


@pytest.mark.parametrize("keep", [0, 1, 2, 3])
def test_heads_of_largest_deltas_are_the_best_there_are(work, run, keep):
    done = winnow(work, "select", "run", "--per-kv-head", "--keep", keep, "--json")
    assert done.returncode == 0, done.stderr
    selection = json.loads(done.stdout)
    assert (selection["format_version"], selection["kv_heads"]) == (4, HEADS)
    with h5py.File(run) as file:
        mean = file["heads/mean_delta_nll"][()]
        layers = file["ranking/mean_delta_nll"][()]
    windowed = np.ones((LAYERS, HEADS), bool)
    for layer, full in enumerate(selection["full_kv_heads"]):
        windowed[layer, full] = False
    assert (~windowed).sum() == keep * HEADS == selection["keep_kv_heads"]
    least = np.sort(mean, axis=None)[: (LAYERS - keep) * HEADS].sum()
    assert mean[windowed].sum() == pytest.approx(least, abs=1e-12)
    provenance = selection["provenance"]
    assert provenance["heads_predicted_delta_nll"] == pytest.approx(least, abs=1e-12)
    of_layers = np.sort(layers)[: LAYERS - keep].sum()
    assert provenance["heads_predicted_delta_nll_of_layers"] == pytest.approx(of_layers, abs=1e-12)
    np.testing.assert_allclose(selection["kv_head_delta_nll"], mean, rtol=1e-15)
    table = winnow(work, "select", "run", "--per-kv-head", "--keep", keep).stdout
    assert f"{keep * HEADS} of {LAYERS * HEADS} key heads" in table
    assert "heads save" in table


def test_layers_that_are_not_measured_are_windowed(work):
    measured(work, "some", "--layers", "0,2", "--tail-rows", TAIL)
    done = winnow(work, "select", "some", "--per-kv-head", "--keep", 1, "--json")
    assert done.returncode == 0, done.stderr
    selection = json.loads(done.stdout)
    assert selection["full_kv_heads"][1] == []
    assert selection["kv_head_delta_nll"][1] is None
    assert selection["keep_kv_heads"] == HEADS


def test_evaluate_counts_the_memory_of_heads(work, selected):
    patterns = [str(work / "heads.json"), "windowed"]
    done = evaluate(work, "memory", patterns)
    assert done.returncode == 0, done.stderr
    shown = json.loads(evaluate(work, "memory", patterns, "--json").stdout)
    by_name = {pattern["pattern"]: pattern for pattern in shown["patterns"]}
    heads = by_name[f"kv-heads:{selected['keep_kv_heads']}"]
    assert heads["full_kv_heads"] == selected["full_kv_heads"]
    full, windowed = by_name["full"]["kv_cache_bytes"], by_name["windowed"]["kv_cache_bytes"]
    share = selected["keep_kv_heads"] / (LAYERS * HEADS)
    for length in full:
        expected = share * full[length] + (1 - share) * windowed[length]
        assert heads["kv_cache_bytes"][length] == pytest.approx(expected, rel=1e-12)
    flop = [by_name[name]["prefill_flop"]["8192"] for name in ("windowed", heads["pattern"], "full")]
    assert flop == sorted(set(flop))
    assert "kv-heads:4" in done.stdout


def test_export_to_duoattention(work, selected):
    done = winnow(work, "export", "heads.json", "--target", "duoattention", "--out", "duo")
    assert done.returncode == 0, done.stderr
    scores = np.loadtxt(work / "duo/full_attention_heads.tsv", dtype=float, delimiter="\t")
    assert scores.shape == (LAYERS, HEADS)
    config = json.loads((work / "duo/config.json").read_text())
    assert config == {"sink_size": SINKS, "recent_size": WINDOW - 1}
    windowed = np.ones((LAYERS, HEADS), bool)
    for layer, full in enumerate(selected["full_kv_heads"]):
        windowed[layer, full] = False
    assert ((scores > 0.5) == ~windowed).all()
    assert (scores > 0).all() and (scores < 1).all()
    # As its sparsify_attention_heads() cuts: by the quantile of the sparsity that the command names.
    assert (scores >= np.quantile(scores, windowed.mean())).tolist() == (~windowed).tolist()
    assert (
        np.argsort(-scores, axis=None).tolist()
        == np.argsort(-np.array(selected["kv_head_delta_nll"]), axis=None).tolist()
    )
    assert f"sparsity={windowed.mean():.4g}" in done.stdout
    assert f"{selected['keep_kv_heads']} of {LAYERS * HEADS} key heads keep full attention" in done.stdout


def test_export_to_lu_kv(work, selected):
    tokens = 200
    done = winnow(work, "export", "heads.json", "--target", "lu-kv", "--out", "lukv", "--max-seq-len", tokens)
    assert done.returncode == 0, done.stderr
    curve = np.load(work / "lukv/budget_curve.npy", allow_pickle=False)
    assert (curve.shape, curve.dtype) == ((99, LAYERS, HEADS), np.dtype("<f4"))
    np.testing.assert_allclose(curve.mean(axis=(1, 2)), np.arange(1, 100) / 100, atol=1e-6)
    dropped = 1 - (WINDOW + SINKS) / tokens
    assert curve[:92].max() == pytest.approx(dropped, abs=1e-6)
    assert np.ptp(curve[95]) == 0
    # At the ratio of the selection itself the heads with full attention drop nothing, nearly.
    ratio = dropped * (1 - selected["keep_kv_heads"] / (LAYERS * HEADS))
    assert f"compression_ratio={ratio:.4g}" in done.stdout
    at = curve[round(ratio * 100) - 1]
    for layer, full in enumerate(selected["full_kv_heads"]):
        for head in range(HEADS):
            assert at[layer, head] == pytest.approx(0 if head in full else dropped, abs=0.06)
    cheapest = np.unravel_index(np.argmin(selected["kv_head_delta_nll"]), (LAYERS, HEADS))
    assert curve[0][cheapest] > 0
    assert (curve[0] > 0).sum() == 1


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--base", "windowed"], ["--base windowed", "--per-kv-head"]),
        (["--signals", "kl"], ["--signals", "--per-kv-head"]),
        (["--per-token"], ["--per-token"]),
        (["--exact", "--tail-rows", 4], ["--exact", "--tail-rows"]),
        (["--windows", "8,12"], ["--windows", "--per-kv-head"]),
        (["--kv", "bf16,fp8"], ["--kv", "--per-kv-head"]),
    ],
)
def test_what_calibrate_refuses(work, flags, words):
    done = calibrate(work, "refused", "--per-kv-head", *flags)
    assert done.returncode == 64
    (line,) = launch.error_lines(done.stderr)
    assert all(word in line for word in words), line
    assert not (work / "refused").exists()


def test_what_selections_of_heads_are_refused_for(work, selected):
    def refused(code, words, *command):
        done = winnow(work, *command)
        assert done.returncode == code, done.stderr
        (line,) = launch.error_lines(done.stderr)
        assert all(word in line for word in words), line

    for target in ("hf", "vllm", "trtllm", "sglang", "swaa", "json", "mlx", "llamacpp"):
        refused(
            65, ["single key heads", "duoattention or lu-kv"], "export", "heads.json", "--target", target, "--out", "x"
        )
        assert not (work / "x").exists()
    done = winnow(work, "select", "run", "--out", "layers.json")
    assert done.returncode == 0, done.stderr
    refused(65, ["selection of layers"], "export", "layers.json", "--target", "duoattention", "--out", "x")
    refused(64, ["--check"], "export", "heads.json", "--target", "duoattention", "--check", "--out", "x")
    refused(65, ["drops nothing"], "export", "heads.json", "--target", "lu-kv", "--max-seq-len", 14, "--out", "x")
    refused(64, ["--method exact-match"], "select", "run", "--per-kv-head", "--method", "exact-match")
    refused(64, ["--keep is 4"], "select", "run", "--per-kv-head", "--keep", 4)
    done = evaluate(work, "texts", [str(work / "heads.json")], "--generate", 4)
    assert done.returncode == 64
    assert "key heads a window" in launch.error_lines(done.stderr)[0]
    damaged = selected | {"full_kv_heads": [[1, 0], [], []]}
    (work / "damaged.json").write_text(json.dumps({k: v for k, v in damaged.items() if k != "content_sha256"}))
    refused(65, ["full_kv_heads", "rising"], "export", "damaged.json", "--target", "duoattention", "--out", "x")


def test_results_without_heads_are_refused_by_name(work):
    done = calibrate(work, "plain", "--tail-rows", TAIL)
    assert done.returncode == 0, done.stderr
    done = winnow(work, "select", "plain", "--per-kv-head")
    assert done.returncode == 66
    assert "calibrate --per-kv-head" in launch.error_lines(done.stderr)[0]
