"""A lower bound of the number of tokens of a text, without tokenising it."""

import json
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import tokenizers

# Characters that compose or change case lose at most two of three bytes (Hangul syllables, the Kelvin sign).
COMPOSING = {"NFC": 3, "NFD": 3, "NFKC": 3, "NFKD": 3, "Lowercase": 3}


class TokenBound:
    """Of byte-pair vocabularies that have every byte, and so leave nothing of a text out: no token stands for more
    bytes than the longest one has. Of others nothing is known: a token for unknown words may stand for any text."""

    def __init__(self, backend: "tokenizers.Tokenizer") -> None:
        self._longest = _longest_token_bytes(backend)
        # These take white space beside them along, as much as there is.
        self._strips = any(token.lstrip or token.rstrip for token in backend.get_added_tokens_decoder().values())

    def exceeds(self, text: str, most: int) -> bool:
        """Whether the text has more than `most` tokens for certain."""
        if self._longest is None or len(text) * 4 <= most * self._longest:
            return False
        parts = text.split() if self._strips else [text]
        return sum(len(part.encode("utf-8", "replace")) for part in parts) > most * self._longest


def _longest_token_bytes(backend: "tokenizers.Tokenizer") -> int | None:
    """Bytes of text, before normalization; None: no limit is known."""
    from tokenizers import models, pre_tokenizers

    model, vocabulary = backend.model, backend.get_vocab(with_added_tokens=False)
    if not isinstance(model, models.BPE):
        return None
    normalizer, pre_tokenizer = _state(backend.normalizer), _state(backend.pre_tokenizer)
    shrinks = _most_shrinking(normalizer)
    if shrinks is None or _drops_text(pre_tokenizer):
        return None
    if _has(normalizer, "ByteLevel") or _has(pre_tokenizer, "ByteLevel"):
        if not all(letter in vocabulary for letter in pre_tokenizers.ByteLevel.alphabet()):
            return None
        longest = max(map(len, vocabulary))  # a letter for each byte
    elif model.byte_fallback and all(f"<0x{byte:02X}>" in vocabulary for byte in range(256)):
        longest = max(len(token.encode()) for token in vocabulary)
    else:
        return None
    added = (len(token.content.encode()) for token in backend.get_added_tokens_decoder().values())
    return shrinks * max([longest, *added])


def _state(component: Any) -> Any:  # noqa: ANN401 - JSON of one of many classes
    return None if component is None else json.loads(component.__getstate__())


def _parts(state: Any) -> list[dict[str, Any]]:  # noqa: ANN401
    if state is None:
        return []
    inner = state.get("normalizers") or state.get("pretokenizers") or []
    return [part for one in inner for part in _parts(one)] if state["type"] == "Sequence" else [state]


def _has(state: Any, kind: str) -> bool:  # noqa: ANN401
    return any(part["type"] == kind for part in _parts(state))


def _most_shrinking(normalizer: Any) -> int | None:  # noqa: ANN401
    """How many times shorter it may make a text; None: any number of times."""
    times = 1
    for part in _parts(normalizer):
        kind = part["type"]
        if kind in COMPOSING:
            times *= COMPOSING[kind]
        elif kind == "Replace" and "String" in part["pattern"]:
            if len(part["content"].encode()) < len(part["pattern"]["String"].encode()):
                return None
        elif kind not in ("Prepend", "ByteLevel"):
            return None
    return times


def _drops_text(pre_tokenizer: Any) -> bool:  # noqa: ANN401
    return any(
        part["type"] not in ("ByteLevel", "Metaspace", "Split", "Digits", "Punctuation", "UnicodeScripts")
        or part.get("behavior") == "Removed"
        for part in _parts(pre_tokenizer)
    )
