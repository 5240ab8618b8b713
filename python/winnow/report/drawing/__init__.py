"""Drawings in SVG that know nothing of results: scales and axes, charts, heat maps, colours."""
