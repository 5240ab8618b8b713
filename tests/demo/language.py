"""The synthetic language of the demo model: filler text with facts in it, and queries that ask for one of them.

Tokens: 0..7 control, 8..127 filler words (a Markov chain of order 1, 8 successors each), 128..255 fact words.
A fact is `KEY k1 k2 v1 .. v24 SEP`, a query repeats `KEY k1 k2` and its answer is `v1 .. v24`. All words of a fact are
drawn at random, so nothing but the fact itself tells what the answer is.
"""

from dataclasses import dataclass

import numpy as np

VOCABULARY = 256
BOS, KEY, SEP = 1, 2, 3
FIRST_FILLER, FIRST_FACT_WORD = 8, 128
KEY_WORDS, VALUE_WORDS = 2, 24
PROMPT_PART = 1 + KEY_WORDS  # tokens of a query before its answer
FACT_TOKENS = PROMPT_PART + VALUE_WORDS + 1
LANGUAGE_SEED = 20260101  # of the Markov chain: part of what the model has learnt


@dataclass
class Batch:
    """Token sequences with what is known about them; n examples of T tokens."""

    tokens: np.ndarray  # (n, T) int32
    is_answer: np.ndarray  # (n, T) bool: tokens that a reader of the text can know
    fact_start: np.ndarray  # (n, n_facts) index of each fact's KEY
    queried_fact: np.ndarray  # (n, n_queries)
    answer_start: np.ndarray  # (n, n_queries) index of v1


def successors():
    """(filler words, 8): the words that may follow each filler word."""
    rng = np.random.default_rng(LANGUAGE_SEED)
    n_words = FIRST_FACT_WORD - FIRST_FILLER
    return FIRST_FILLER + np.stack([rng.permutation(n_words)[:8] for _ in range(n_words)])


def filler(rng, n, length):
    """(n, length) filler words."""
    table = successors()
    choices = rng.integers(0, table.shape[1], (length, n))
    words = np.empty((length, n), np.int32)
    word = rng.integers(FIRST_FILLER, FIRST_FACT_WORD, n)
    for t in range(length):
        word = table[word - FIRST_FILLER, choices[t]]
        words[t] = word
    return words.T


def copies(rng, n, n_words=80, chunk=20, n_chunks=4):
    """BOS, random fact words, then chunks copied from random places among them.

    Copies at random distances: a fixed distance would teach a positional short cut that does not transfer.
    The first two tokens of a chunk only say where it comes from.
    """
    words = rng.integers(FIRST_FACT_WORD, VOCABULARY, (n, n_words), dtype=np.int32)
    start = rng.integers(0, n_words - chunk + 1, (n, n_chunks))
    index = (start[:, :, None] + np.arange(chunk)).reshape(n, -1)
    copied = np.take_along_axis(words, index, axis=1)
    tokens = np.concatenate([np.full((n, 1), BOS, np.int32), words, copied], axis=1)
    is_answer = np.zeros(tokens.shape, bool)
    is_answer[:, 1 + n_words :] = np.tile(np.arange(chunk) >= KEY_WORDS, n_chunks)
    return Batch(tokens, is_answer, np.empty((n, 0), int), np.empty((n, 0), int), np.empty((n, 0), int))


def recall(rng, n, length, n_facts, n_queries):
    """BOS, filler with facts at random places, then queries for different facts; `length` tokens in all."""
    query_tokens = FACT_TOKENS * n_queries - 1  # queries are separated by SEP, the last one ends the text
    body = length - 1 - query_tokens
    n_filler = body - FACT_TOKENS * n_facts
    if n_filler < 0:
        raise ValueError(f"{n_facts} facts and {n_queries} queries do not fit into {length} tokens")
    tokens = np.concatenate([np.full((n, 1), BOS, np.int32), filler(rng, n, length - 1)], axis=1)
    words = rng.integers(FIRST_FACT_WORD, VOCABULARY, (n, n_facts, KEY_WORDS + VALUE_WORDS), dtype=np.int32)
    control = np.ones((n, n_facts, 1), np.int32)
    facts = np.concatenate([KEY * control, words, SEP * control], axis=2)
    # Filler tokens before each fact, in rising order, place the facts without overlap.
    fact_start = 1 + np.sort(rng.integers(0, n_filler + 1, (n, n_facts)), axis=1) + FACT_TOKENS * np.arange(n_facts)
    np.put_along_axis(
        tokens, (fact_start[:, :, None] + np.arange(FACT_TOKENS)).reshape(n, -1), facts.reshape(n, -1), axis=1
    )
    queried = np.argsort(rng.random((n, n_facts)), axis=1)[:, :n_queries]
    queries = np.take_along_axis(facts, queried[:, :, None], axis=1).reshape(n, -1)
    tokens[:, 1 + body :] = queries[:, :query_tokens]
    answer_start = 1 + body + PROMPT_PART + FACT_TOKENS * np.arange(n_queries)
    is_answer = np.zeros(tokens.shape, bool)
    for start in answer_start:
        is_answer[:, start : start + VALUE_WORDS] = True
    return Batch(tokens, is_answer, fact_start, queried, np.tile(answer_start, (n, 1)))


def has_distinct_keys(batch, example):
    """Whether no two facts of that example share their key."""
    starts = batch.fact_start[example]
    keys = {tuple(batch.tokens[example, s + 1 : s + PROMPT_PART]) for s in starts}
    return len(keys) == len(starts)
