"""The sweep file: help, example and JSON Schema agree with the parser."""

import json
import re
import shutil

import launch
import pytest


@pytest.mark.parametrize("verb", ["plan", "status", "submit", "cancel", "collect", "report", "run-cell", "schema"])
def test_help_is_something_to_act_on(folder, verb):
    assert re.search(rf"^  {verb} ", launch.run(["sweep", "--help"], folder.path / "cache").stdout, flags=re.M)
    done = launch.run(["sweep", verb, "--help"], folder.path / "cache")
    assert done.returncode == 0
    flags, example = done.stdout.split("\nExample:\n")
    assert "winnow sweep" in example
    for entry in re.split(r"\n  (?=-)", flags)[1:]:
        assert entry.startswith("-h") or "default" in entry or "REQUIRED" in entry, entry


def test_the_example_of_the_help_is_a_sweep(folder, inputs):
    text = launch.run(["sweep", "--help"], folder.path / "cache").stdout
    example = re.search(r"  name: .*?\n\n", text, flags=re.S).group(0)
    example = re.sub("^  ", "", example, flags=re.M).replace("/models/Qwen3-4B", f"{inputs}/models/a")
    for name in ("long", "short"):
        path = folder.path / "data" / "qwen3-4b" / f"{name}.h5"
        path.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(inputs / "data" / f"a-{name}.h5", path)
    (folder.path / "night.yaml").write_text(example)
    done = folder.run("plan", "--json")
    assert done.returncode == 0, done.stderr
    assert len(json.loads(done.stdout)["cells"]) == 4


def fits(value, schema):
    """The part of JSON Schema that the sweep's schema uses; an unknown keyword is a failure."""
    known = {
        "$schema",
        "title",
        "description",
        "type",
        "enum",
        "pattern",
        "minimum",
        "minLength",
        "maxLength",
        "minItems",
        "uniqueItems",
        "items",
        "anyOf",
        "properties",
        "required",
        "additionalProperties",
        "propertyNames",
    }
    assert schema.keys() <= known, schema.keys() - known
    types = {"object": dict, "array": list, "string": str, "integer": int, "boolean": bool}
    allowed = schema.get("type", [])
    allowed = [allowed] if isinstance(allowed, str) else allowed
    if allowed and not any(
        isinstance(value, types[name]) and (name == "boolean") == isinstance(value, bool) for name in allowed
    ):
        return False
    if "enum" in schema and value not in schema["enum"]:
        return False
    if "anyOf" in schema and not any(fits(value, one) for one in schema["anyOf"]):
        return False
    if isinstance(value, str):
        is_short = len(value) <= schema.get("maxLength", len(value))
        return (
            is_short and len(value) >= schema.get("minLength", 0) and bool(re.search(schema.get("pattern", ""), value))
        )
    if isinstance(value, int):
        return value >= schema.get("minimum", value)
    if isinstance(value, list):
        is_unique = len({json.dumps(item) for item in value}) == len(value) or not schema.get("uniqueItems", False)
        return (
            len(value) >= schema.get("minItems", 0)
            and is_unique
            and all(fits(item, schema.get("items", {})) for item in value)
        )
    properties, others = schema.get("properties", {}), schema.get("additionalProperties", {})
    return schema.get("required", []) == [key for key in schema.get("required", []) if key in value] and all(
        fits(key, schema.get("propertyNames", {}))
        and (fits(item, properties[key]) if key in properties else others is not False and fits(item, others))
        for key, item in value.items()
    )


def test_the_schema_and_the_parser_agree(folder):
    done = launch.run(["sweep", "schema"], folder.path / "cache")
    schema = json.loads(done.stdout)
    good = json.loads(
        folder.write(
            targets=["hf"],
            seeds=[1],
            tail_rows=3,
            base="list:1,2",
            layers="0-1",
            exclude=[{"model": "a", "window": 16}],
            max_parallel=2,
            overrides=[{"match": {"window": [32]}, "set": {"time": "01:00:00"}}],
            sinks=[0],
        ).read_text()
    )
    done = folder.run("plan")
    assert done.returncode == 0, done.stderr
    assert fits(good, schema)
    for key, value in [
        ("name", "a b"),
        ("name", "-x"),
        ("name", "a" * 200),
        ("layers", "0," * 20000 + "0"),
        ("output", "o" * 5000),
        ("windows", []),
        ("windows", [0]),
        ("windows", 5),
        ("windows", [8, 8]),
        ("sinks", ["2"]),
        ("targets", ["x"]),
        ("base", "half"),
        ("layers", "1-"),
        ("limit", 0),
        ("per_token", "yes"),
        ("exclude", [{"nodel": "a"}]),
        ("defaults", {"time": "soon"}),
        ("unknown", 1),
        ("models", [{}]),
        ("overrides", [{"match": {"model": "a"}}]),
        ("device", "tpu"),
        ("max_attempts", -1),
    ]:
        bad = good | {key: value}
        (folder.path / "night.yaml").write_text(json.dumps(bad))
        assert folder.run("plan").returncode == 64, (key, value)
        assert not fits(bad, schema), (key, value)
