"""NLLs of an imported checkpoint in Transformers, float32, with chosen layers windowed; run in .venv-torch.

    transformers_nlls.py MODEL GGUF DATA.h5 WINDOW PATTERNS OUT.json

PATTERNS: JSON, a list of lists of windowed layers. OUT: nll[pattern][example] of the first examples in the file, nats
per answer token; and other_tensors: those of Transformers' own reading of the GGUF that, rounded to bfloat16, are not
bit for bit the imported ones.
"""

import json
import pathlib
import sys

import h5py
import torch
import transformers

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "golden"))
from reference import WindowedModel, WindowRule  # noqa: E402

EXAMPLES = 2


def main():
    model_dir, gguf, data, window, patterns, out = sys.argv[1:]
    transformers.logging.set_verbosity_error()
    model = transformers.AutoModelForCausalLM.from_pretrained(
        model_dir, dtype=torch.float32, attn_implementation="sdpa", local_files_only=True
    )
    imported = model.state_dict()
    path = pathlib.Path(gguf)
    theirs = transformers.AutoModelForCausalLM.from_pretrained(
        path.parent, gguf_file=path.name, dtype=torch.float32, local_files_only=True
    ).state_dict()
    other = sorted(imported.keys() ^ theirs.keys())
    other += [
        name
        for name in imported.keys() & theirs.keys()
        if not torch.equal(theirs[name].to(torch.bfloat16).to(torch.float32), imported[name])
    ]
    del theirs
    n_layers = model.config.num_hidden_layers
    windowed = [[layer in pattern for layer in range(n_layers)] for pattern in json.loads(patterns)]
    reference = WindowedModel(model)
    nll = []
    with h5py.File(data) as file:
        for example in range(EXAMPLES):
            begin, end = file["offsets"][example : example + 2]
            tokens = file["tokens"][begin:end].tolist()
            scores = reference.score(tokens, int(file["answer_start"][example]), windowed, WindowRule(int(window)))
            nll.append([score.nll.double().mean().item() for score in scores])
    found = {"nll": [list(column) for column in zip(*nll, strict=True)], "other_tensors": other}
    pathlib.Path(out).write_text(json.dumps(found))


if __name__ == "__main__":
    main()
