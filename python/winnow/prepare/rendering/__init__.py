"""Conversations to text, by the chat template of the model."""
