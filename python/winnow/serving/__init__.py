"""winnow serve-check: runs an export in its serving engine and says which windows the engine really applies."""
