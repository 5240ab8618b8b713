"""winnow import: checkpoints in other shapes (GGUF, a snapshot of the hub's cache) to a plain Hugging Face folder."""
