"""How the local Hub reads a README.md: validation of the front matter, and the tags in it."""

from __future__ import annotations

import re

import yaml

LICENSES = frozenset(
    (
        *("apache-2.0", "mit", "openrail", "bigscience-openrail-m", "creativeml-openrail-m"),
        *("bsd", "bsd-2-clause", "bsd-3-clause", "cc", "cc0-1.0", "cc-by-2.0", "cc-by-3.0"),
        *("cc-by-4.0", "cc-by-sa-3.0", "cc-by-sa-4.0", "cc-by-nc-4.0", "cc-by-nc-nd-4.0"),
        *("cc-by-nc-sa-4.0", "cc-by-nd-4.0", "wtfpl", "artistic-2.0", "ecl-2.0", "isc"),
        *("lgpl-3.0", "gpl", "gpl-2.0", "gpl-3.0", "agpl-3.0", "mpl-2.0", "ms-pl", "osl-3.0"),
        *("epl-2.0", "unlicense", "zlib", "odbl", "pddl", "unknown", "other"),
    )
)
_FRONT = re.compile(r"\A\s*---[ \t]*\r?\n(.*?)(?:^|\n)---[ \t]*(?:\r?\n|\Z)", re.S)


def front_matter(content: str) -> dict[str, object]:
    """The metadata of a card; empty if they are missing or not valid."""
    data, errors, _ = _read(content)
    return {} if errors else data


def validate(content: str) -> tuple[list[str], list[str]]:
    """The errors and the warnings that ``/api/validate-yaml`` returns."""
    data, errors, warnings = _read(content)
    if errors or not data:
        return errors, warnings
    licences = data.get("license", [])
    for name in licences if isinstance(licences, list) else [licences]:
        if name not in LICENSES:
            errors.append(f'"license" must be one of [{", ".join(sorted(LICENSES))}]')
    if data.get("license") == "other" and not data.get("license_name"):
        warnings.append('"license_name" is recommended if "license" is "other"')
    for key in ("tags", "datasets", "metrics"):
        value = data.get(key, [])
        if isinstance(value, str) and key != "tags":
            continue
        if not isinstance(value, list):
            errors.append(f'"{key}" must be an array')
        elif not all(isinstance(v, str) and v for v in value):
            errors.append(f'"{key}" must contain strings')
    for key in ("library_name", "pipeline_tag", "license_name", "license_link"):
        if key in data and not (isinstance(data[key], str) and data[key]):
            errors.append(f'"{key}" must be a string')
    errors += _model_index(data.get("model-index", []))
    return errors, warnings


def card_tags(data: dict[str, object]) -> list[str]:
    """The tags of a model, by which lists are filtered."""
    tags: list[str] = []
    for key in ("library_name", "pipeline_tag"):
        if isinstance(data.get(key), str):
            tags.append(str(data[key]))
    for key, prefix in (("tags", ""), ("license", "license:"), ("datasets", "dataset:")):
        value = data.get(key, [])
        tags += [prefix + str(v) for v in (value if isinstance(value, list) else [value])]
    return list(dict.fromkeys([*tags, "region:us"]))


def _read(content: str) -> tuple[dict[str, object], list[str], list[str]]:
    match = _FRONT.match(content)
    if match is None:
        return {}, [], ["empty or missing yaml metadata in repo card"]
    try:
        data = yaml.safe_load(match[1])
    except yaml.YAMLError as error:
        return {}, [f"YAML parsing error: {error}"], []
    if data is None:
        return {}, [], ["empty or missing yaml metadata in repo card"]
    if not isinstance(data, dict):
        return {}, ["the metadata must be an object"], []
    return data, [], []


def _model_index(index: object) -> list[str]:
    if not isinstance(index, list):
        return ['"model-index" must be an array']
    errors = []
    for i, model in enumerate(index):
        where = f"model-index[{i}]"
        if not (isinstance(model, dict) and isinstance(model.get("name"), str)):
            errors.append(f'"{where}.name" is required')
            continue
        results = model.get("results")
        if not isinstance(results, list):
            errors.append(f'"{where}.results" is required')
            continue
        for j, result in enumerate(results):
            errors += _result(result, f"{where}.results[{j}]")
    return errors


def _result(result: object, where: str) -> list[str]:
    if not isinstance(result, dict):
        return [f'"{where}" must be an object']
    required = {"task": ("type",), "dataset": ("type", "name")}
    errors = [
        f'"{where}.{part}.{key}" is required'
        for part, keys in required.items()
        for key in keys
        if not (isinstance(result.get(part), dict) and isinstance(result[part].get(key), str))
    ]
    metrics = result.get("metrics")
    if not isinstance(metrics, list) or not metrics:
        return [*errors, f'"{where}.metrics" is required']
    for k, metric in enumerate(metrics):
        if not (isinstance(metric, dict) and isinstance(metric.get("type"), str)):
            errors.append(f'"{where}.metrics[{k}].type" is required')
        elif metric.get("value") is None:
            errors.append(f'"{where}.metrics[{k}].value" is required')
    return errors
