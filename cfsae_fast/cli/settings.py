"""Floor 7: settings of a run: a YAML or TOML file, overridden by --set section.key=value."""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

import yaml

from cfsae_fast import io
from cfsae_fast.config import CFAEConfig, SAEConfig, TrainConfig, from_dict, to_dict
from cfsae_fast.data import Filters, MinItemInteractions, MinUserInteractions, MinValue


@dataclass(frozen=True)
class DataSettings:
    """How interactions are filtered, in this order, and which tags count.

    min_value: drop interactions below (None: keep all). min_item, min_user: fewest interactions
    per item, then per user. min_tag: fewest assignments of a tag by training users, or of a genre.
    tags: which words count where items have both tags and genres (auto, tags, genres, both, none).
    """

    min_value: float | None = None
    min_item: int = 1
    min_user: int = 5
    min_tag: int = 10
    tags: str = "both"

    def filters(self) -> Filters:
        steps: list[Any] = [] if self.min_value is None else [MinValue(self.min_value)]
        steps += [MinItemInteractions(self.min_item)] if self.min_item > 1 else []
        return Filters(*steps, MinUserInteractions(self.min_user))


@dataclass(frozen=True)
class Settings:
    """Everything a run can be told; sections left out keep their defaults."""

    data: DataSettings = DataSettings()
    cfae: CFAEConfig = CFAEConfig()
    sae: SAEConfig = SAEConfig()
    cfae_training: TrainConfig | None = None
    sae_training: TrainConfig | None = None

    def to_dict(self) -> dict[str, Any]:
        """Plain sections, ready for JSON."""
        plain: dict[str, Any] = {"data": asdict(self.data)}
        for name in ("cfae", "sae", "cfae_training", "sae_training"):
            section = getattr(self, name)
            plain[name] = None if section is None else to_dict(section)
        return plain


KINDS = {
    "cfae": CFAEConfig,
    "sae": SAEConfig,
    "cfae_training": TrainConfig,
    "sae_training": TrainConfig,
}


def read_settings(path: Path | None, overrides: tuple[str, ...], seed: int | None) -> Settings:
    """Settings from a file (None: defaults), then "section.key=value" overrides, then the seed.

    Raises:
        ValueError: an unknown section or key, or a value out of range.
    """
    sections = {} if path is None else _read_file(path)
    for text in overrides:
        name, equals, value = text.partition("=")
        section, dot, key = name.strip().partition(".")
        if not (equals and dot and key):
            raise ValueError(f"--set must be section.key=value, got {text!r}")
        sections.setdefault(section, {})[key] = yaml.safe_load(value)
    return _build(sections, seed)


def read_saved(path: Path) -> tuple[Settings, int]:
    """Settings and seed that `cfsae train` left beside its model; defaults and 42 without them."""
    if not path.exists():
        return Settings(), 42
    saved = io.read_json(path)
    seed = saved.pop("seed", 42)
    return _build({name: one for name, one in saved.items() if one is not None}, None), seed


def _build(sections: dict[str, Any], seed: int | None) -> Settings:
    known = ["data", *KINDS]
    unknown = sorted(set(sections) - set(known))
    if unknown:
        raise ValueError(f"settings must have sections among {known}, got unknown {unknown}")
    built: dict[str, Any] = {"data": _data(sections.get("data") or {})}
    for name, kind in KINDS.items():
        values = sections.get(name)
        if values is not None:
            built[name] = from_dict(kind, values, where=name)
    settings = Settings(**built)
    if seed is None:
        return settings
    for name in ("cfae_training", "sae_training"):
        section = getattr(settings, name)
        if section is not None:
            settings = replace(settings, **{name: replace(section, seed=seed)})
    return settings


def _data(values: dict[str, Any]) -> DataSettings:
    known = [field.name for field in fields(DataSettings)]
    unknown = sorted(set(values) - set(known))
    if unknown:
        raise ValueError(f"data must have keys among {known}, got unknown {unknown}")
    return DataSettings(**values)


def _read_file(path: Path) -> dict[str, Any]:
    text = path.read_text()
    if path.suffix == ".toml":
        try:
            import tomllib
        except ModuleNotFoundError:  # Python 3.10; remove with it
            import tomli as tomllib
        try:
            found = tomllib.loads(text)
        except tomllib.TOMLDecodeError as error:
            raise ValueError(f"{path} is not TOML: {error}") from error
    else:
        try:
            found = yaml.safe_load(text) or {}
        except yaml.YAMLError as error:
            raise ValueError(f"{path} is not YAML: {error}") from error
    if not isinstance(found, dict) or not all(isinstance(one, dict) for one in found.values()):
        raise ValueError(f"{path} must hold sections (data, cfae, sae, ...) of keys and values")
    return found
