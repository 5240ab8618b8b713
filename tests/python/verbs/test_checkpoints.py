"""Checkpoints as people have them: of other programs, damaged, changed under a run."""

import json
import os
import pathlib
import subprocess

import launch
import numpy as np
import pytest
import tiny

LFS_POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:" + "0f" * 32 + "\nsize 3087467144\n"


@pytest.fixture(scope="module")
def work(tmp_path_factory):
    folder = tmp_path_factory.mktemp("checkpoints")
    tiny.write_checkpoint(folder / "model")
    tiny.write_calibration(folder / "long.h5", [40, 48])
    done = calibrate(folder, folder / "model", folder / "plain")
    assert done.returncode == 0, done.stderr
    return folder


def calibrate(work, model, out):
    words = ["calibrate", "--model", model, "--data", work / "long.h5", "--window", 8, "--out", out, "--device", "cpu"]
    return launch.run(words, work / "cache")


def read(model):
    """{name: array} of what tiny wrote."""
    blob = (model / "model.safetensors").read_bytes()
    size = int.from_bytes(blob[:8], "little")
    header, data = json.loads(blob[8 : 8 + size]), blob[8 + size :]
    return {
        name: np.frombuffer(data[entry["data_offsets"][0] : entry["data_offsets"][1]], "<f4").reshape(entry["shape"])
        for name, entry in header.items()
    }


def changed(work, name, change=None, **fields):
    """A copy of the model whose tensors went through change(tensors), with more fields in its config.json."""
    model = work / name
    model.mkdir()
    tensors = read(work / "model")
    tiny.write_safetensors(model / "model.safetensors", change(tensors) if change else tensors)
    config = json.loads((work / "model/config.json").read_text())
    (model / "config.json").write_text(json.dumps(config | fields))
    return model


def expect_line(done, code, *parts):
    """The last line of a run, which ended with that code, has these parts."""
    assert done.returncode == code, done.stderr
    line = done.stderr.strip().splitlines()[-1]
    for part in parts:
        assert part in line, line


def test_a_file_of_another_kind_is_named(work):
    model = changed(work, "pointer")
    (model / "model.safetensors").write_text(LFS_POINTER)
    expect_line(
        calibrate(work, model, work / "pointer-run"), 65, "model.safetensors", "Git LFS pointer", "git lfs pull"
    )
    (model / "config.json").write_text(LFS_POINTER)
    expect_line(launch.run(["inspect", model], work / "cache"), 65, "config.json", "Git LFS pointer")


def test_a_prefix_is_shown_or_taken_off(work):
    compiled = changed(work, "compiled", lambda tensors: {f"_orig_mod.{name}": tensors[name] for name in tensors})
    expect_line(calibrate(work, compiled, work / "compiled-run"), 65, "_orig_mod.model.", "begin with")
    bare = changed(work, "bare", lambda tensors: {name.removeprefix("model."): tensors[name] for name in tensors})
    done = calibrate(work, bare, work / "bare-run")
    assert done.returncode == 0, done.stderr
    tiny.assert_same_tables(work / "plain/results.h5", work / "bare-run/results.h5")


def test_words_of_pythons_json_change_nothing(work):
    odd = changed(work, "odd", time_step_limit=[0.0, float("inf")], unknown=float("nan"), hidden_act="swish")
    (odd / "generation_config.json").write_text('{"eos_token_id": 3, "x": -Infinity}')
    done = calibrate(work, odd, work / "odd-run")
    assert done.returncode == 0, done.stderr
    tiny.assert_same_tables(work / "plain/results.h5", work / "odd-run/results.h5")


def test_inspect_lists_the_faults(work):
    def lack(tensors):
        del tensors["model.layers.1.mlp.up_proj.weight"]
        return tensors | {"model.norm.weight": np.ones(5, "<f4")}

    model = changed(work, "lacking", lack)
    done = launch.run(["inspect", model], work / "cache")
    expect_line(done, 65, "model.layers.1.mlp.up_proj.weight", "2 fault(s)")
    assert "family                   qwen3" in done.stdout and "model.norm.weight" in done.stdout
    told = launch.run(["inspect", model, "--json"], work / "cache")
    faults = json.loads(told.stdout)["faults"]
    assert told.returncode == 65 and faults["count"] == 2 and len(faults["first"]) == 2
    whole = launch.run(["inspect", work / "model", "--json"], work / "cache")
    assert whole.returncode == 0 and "faults" not in json.loads(whole.stdout)


def test_weights_that_are_not_finite_are_named(work):
    def spoil(tensors):
        values = tensors["model.layers.2.mlp.down_proj.weight"].copy()
        values[1, 2] = np.nan
        return tensors | {"model.layers.2.mlp.down_proj.weight": values}

    done = calibrate(work, changed(work, "nan", spoil), work / "nan-run")
    expect_line(done, 65, "long.h5: example", "not finite", "model.layers.2.mlp.down_proj.weight", "is NaN", "broken")
    done = calibrate(work, tiny.write_checkpoint(work / "large", poison_layer=1), work / "large-run")
    expect_line(done, 65, "not finite", "all weights are finite")


def test_weights_of_the_same_time_are_hashed_again(work):
    model, out = changed(work, "touched"), work / "touched-run"
    assert calibrate(work, model, out).returncode == 0
    weights = model / "model.safetensors"
    state = os.stat(weights)
    with open(weights, "r+b") as file:
        file.seek(-4000, 2)
        file.write(bytes(4000))
    os.utime(weights, ns=(state.st_atime_ns, state.st_mtime_ns))
    (out / "results.h5").unlink()
    sorted((out / "shards").iterdir())[0].unlink()
    expect_line(calibrate(work, model, out), 78, "checkpoint")


@pytest.mark.parametrize("ranks", [None, 2])
def test_weights_that_change_under_a_run_end_it(work, tmp_path, ranks):
    model = tiny.write_checkpoint(tmp_path / "model", layers=6, hidden=96, ffn=384)
    tiny.write_calibration(tmp_path / "long.h5", [200 + i for i in range(24)])
    weights, out = model / "model.safetensors", tmp_path / "run"
    whole = weights.read_bytes()
    words = ["calibrate", "--model", model, "--data", tmp_path / "long.h5", "--window", 8, "--out", out, "--threads", 1]

    def freeze():
        def begin():
            weights.write_bytes(whole)
            subprocess.run(["rm", "-rf", str(out)], check=True)
            return launch.start([*words, "--device", "cpu"], tmp_path / "cache", ranks)

        def n_done():
            return len(list((out / "shards").glob("*.h5")))

        return launch.freeze_in_the_middle(begin, ranks or 1, lambda: n_done() > 0, lambda: n_done() < 20)

    def overwrite():
        with open(weights, "r+b") as file:
            file.seek(len(whole) // 2)
            file.write(bytes(len(whole) - len(whole) // 2))

    for change, words_of_line in [
        (overwrite, "was changed while"),
        (lambda: os.truncate(weights, 5000), "was cut short"),
    ]:
        process, pids = freeze()
        change()
        launch.thaw(pids)
        code, _, error = launch.finish(process)
        assert code == 65, (code, error)
        assert any(words_of_line in line and "model.safetensors" in line for line in error.splitlines()), error
        assert not (out / "results.h5").exists()


def test_a_missing_blob_of_the_hubs_cache_is_said(work):
    model = changed(work, "hub")
    (model / "model.safetensors").unlink()
    (model / "model.safetensors").symlink_to(pathlib.Path("../blobs/absent"))
    expect_line(
        launch.run(["inspect", model], work / "cache"), 66, "model.safetensors", "link to a file that is not there"
    )


def can_mount():
    return os.geteuid() == 0 and subprocess.run(["unshare", "--mount", "true"], capture_output=True).returncode == 0


@pytest.mark.skipif(not can_mount(), reason="only root can give one rank another view of the files")
def test_hosts_may_have_copies_of_one_checkpoint(work, tmp_path):
    same = changed(work, "same")
    other = tiny.write_checkpoint(work / "other", seed=1)
    for copy, expected in [(same, 0), (other, 65)]:
        words = ["calibrate", "--model", work / "model", "--data", work / "long.h5", "--window", 8]
        words += ["--out", tmp_path / copy.name, "--device", "cpu"]
        alone = launch.command(words)
        mounted = f'mount --bind "{copy}" "{work / "model"}" && exec "$@"'
        second = [":", "-n", "1", "unshare", "--mount", "sh", "-c", mounted, "sh", *alone]
        done = subprocess.run(
            [*launch.command(words, 1), *second],
            env=launch.environment(work / "cache"),
            capture_output=True,
            text=True,
            timeout=launch.TIMEOUT_SECONDS,
        )
        assert done.returncode == expected, done.stderr
        (line,) = launch.error_lines(done.stderr) or [""]
        assert ("holds another checkpoint here than for rank 0" in line) == (expected != 0), done.stderr
