"""The page: the answer for each kind of result, and the one HTML file with its style, script and data inside."""
