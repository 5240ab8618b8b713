"""The figure "score against KV budget", drawn by Vega-Lite."""

import vl_convert

from winnow.score.results import Group, Results

MOST_NAMES = 8  # of patterns; of more only those on the front are named
GREY, BLUE = "#8a8f98", "#1f6fb2"


def _is_on_front(group: Group, place: int) -> bool:
    return bool(group.on_front and group.on_front[place])


def _names(x: dict[str, object], y: dict[str, object], style: dict[str, object]) -> dict[str, object]:
    """Names of patterns beside their points, on the side where there is room."""
    side = {"expr": "datum.budget > 80 ? 'right' : 'left'"}
    shift = {"expr": "datum.budget > 80 ? -6 : 6"}
    mark = {"type": "text", "align": side, "dx": shift, "dy": -6, "fontSize": 9, **style}
    return {"mark": mark, "encoding": {"x": x, "y": y, "text": {"field": "name"}}}


def draw(results: Results, kind: str) -> bytes:
    """kind: "svg" or "png". A panel for each bin of lengths; the line joins the front."""
    groups = [group for group in results.groups if group.task is None and group.length_bin]
    groups = groups or [group for group in results.groups if group.task is None]
    order = [group.length_bin or "all" for group in groups]
    points = [
        {
            "pattern": pattern,
            "bin": group.length_bin or "all",
            "budget": 100 * results.budgets[pattern].kv_cache_share,
            "score": 100 * own.mean,
            "low": 100 * own.low,
            "high": 100 * own.high,
            "front": _is_on_front(group, place),
            "name": pattern if len(results.patterns) <= MOST_NAMES or _is_on_front(group, place) else "",
        }
        for group in groups
        for place, (pattern, own) in enumerate(zip(results.patterns, group.means, strict=True))
    ]
    x: dict[str, object] = {"field": "budget", "type": "quantitative", "title": "KV cache at 128k, % of full attention"}
    y: dict[str, object] = {
        "field": "score",
        "type": "quantitative",
        "title": "score, %",
        "scale": {"domain": [0, 100]},
    }
    colour = {"condition": {"test": "datum.front", "value": BLUE}, "value": GREY}
    ends = {"x": x, "y": y | {"field": "low"}, "y2": {"field": "high"}, "color": colour}
    interval = {"mark": {"type": "rule", "opacity": 0.5}, "encoding": ends}
    layers = [
        {
            "transform": [{"filter": "datum.front"}],
            "mark": {"type": "line", "interpolate": "step-after", "color": BLUE},
            "encoding": {"x": x, "y": y},
        },
        interval,
        {"mark": {"type": "point", "filled": True}, "encoding": {"x": x, "y": y, "color": colour}},
        _names(x, y, {"stroke": "white", "strokeWidth": 3, "strokeJoin": "round"}),  # so that lines do not cross them
        _names(x, y, {}),
    ]
    spec = {
        "$schema": "https://vega.github.io/schema/vega-lite/v5.json",
        "data": {"values": points},
        "facet": {"field": "bin", "type": "nominal", "sort": order, "title": "prompt length"},
        "columns": 2,
        "spec": {"width": 320, "height": 220, "layer": layers},
    }
    if kind == "png":
        return bytes(vl_convert.vegalite_to_png(spec, scale=2))
    return str(vl_convert.vegalite_to_svg(spec)).encode()
