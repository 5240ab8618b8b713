"""The text of answer tokens, where the calibration file and the model's tokenizer.json are at hand; else nothing."""

import hashlib
import os
import pathlib
import urllib.parse
from typing import TYPE_CHECKING

import h5py

from winnow.common.text import clean
from winnow.report.reading import probe
from winnow.report.reading.record import Run

if TYPE_CHECKING:
    from tokenizers import Tokenizer

LARGEST_TOKENIZER = 2**26  # bytes; those of today's models have 2 to 35 MB


def _path(run: Run, name: str) -> pathlib.Path:
    """A path of the provenance; one that is not UTF-8 has its bytes beside it."""
    encoded = run.fact(f"{name}_encoded", "")
    if encoded:
        return pathlib.Path(os.fsdecode(urllib.parse.unquote_to_bytes(str(encoded))))
    return pathlib.Path(str(run.fact(name, "")))


def _tokenizer(run: Run, file: h5py.File) -> "Tokenizer | None":
    path = _path(run, "model") / "tokenizer.json"
    if not path.is_file() or path.stat().st_size > LARGEST_TOKENIZER:
        return None
    import tokenizers  # takes a moment, so only here

    data = path.read_bytes()
    wanted = file.attrs.get("tokenizer_sha256", "")
    wanted = wanted.decode() if isinstance(wanted, bytes) else str(wanted)
    if wanted and wanted != hashlib.sha256(data).hexdigest():
        return None
    return tokenizers.Tokenizer.from_str(data.decode("utf-8"))


def texts(run: Run, lengths: dict[str, int]) -> dict[str, list[str]]:
    """{example id: [text of each answer token]} of the examples in `lengths` (id: number of answer tokens).

    Nothing where the calibration file is not, byte for byte, the one that was measured: its words would be others.
    """
    try:
        path = _path(run, "data")
        recorded = run.fact("data_sha256")
        if not recorded or not path.is_file():
            return {}
        probe.check(path)
        # One open file for both, so that what is read is what was hashed.
        with path.open("rb") as whole, h5py.File(whole, "r") as file:
            whole.seek(0)
            if hashlib.file_digest(whole, "sha256").hexdigest() != recorded:
                return {}
            tokenizer = _tokenizer(run, file)
            if tokenizer is None:
                return {}
            offsets, starts, found = file["offsets"][:], file["answer_start"][:], {}
            for i, name in enumerate(file["example_id"].asstr()[:]):
                begin, end = int(offsets[i] + starts[i]), int(offsets[i + 1])
                if lengths.get(clean(name)) == end - begin > 0:
                    ids = file["tokens"][begin:end].tolist()
                    found[clean(name)] = [clean(tokenizer.decode([token], skip_special_tokens=False)) for token in ids]
            return found
    except (KeyboardInterrupt, SystemExit):
        raise
    except BaseException:  # whatever is wrong with files that the page does not need; the tokenizer's panics, too
        return {}
