"""Rows of data sets, read from files and brought to conversations that end with the answer to be scored."""
