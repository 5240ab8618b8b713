"""Text to token ids, by the model's tokenizer."""
