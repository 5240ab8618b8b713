"""The figures of a report: of each a title, a sentence computed from the numbers, drawings, and a table."""
