"""Tasks that are made, not read: prompts of a length that is asked for, from a seed, and perhaps a text."""
