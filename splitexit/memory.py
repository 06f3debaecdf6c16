"""What a policy has learned, kept in a file between runs: JSON, so that it can be read and carries no code."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from splitexit.errors import ArtifactError
from splitexit.policies import Policy

FORMAT = 1


def state(policy: Policy) -> dict[str, Any]:
    """The policy's memory as a JSON document."""
    memory = {name: _plain(getattr(policy, name)) for name in policy.memory}
    return {"format": FORMAT, "policy": _name(policy), "memory": memory}


def restore(policy: Policy, document: Any, source: str = "memory") -> None:
    """Gives a prepared policy the memory of another of its kind; raises ArtifactError where it does not fit."""
    if not isinstance(document, dict) or document.get("format") != FORMAT or document.get("policy") != _name(policy):
        raise ArtifactError(f"{source}: expected the memory of {_name(policy)}, format {FORMAT}; save it anew")
    memory = document.get("memory")
    if not isinstance(memory, dict) or set(memory) != set(policy.memory):
        raise ArtifactError(f"{source}: memory: expected {', '.join(policy.memory) or 'nothing'}; save it anew")
    try:
        found = {name: _like(getattr(policy, name), memory[name]) for name in policy.memory}
    except (TypeError, ValueError, KeyError) as error:
        raise ArtifactError(f"{source}: memory of another model or setting ({error}); save it anew") from error
    for name, value in found.items():
        setattr(policy, name, value)


def save(policy: Policy, path: Path) -> None:
    """Writes the policy's memory; the file is there whole or not at all."""
    part = path.with_name(path.name + ".part")
    part.write_text(json.dumps(state(policy)) + "\n")
    part.replace(path)


def load(policy: Policy, path: Path) -> None:
    """Reads what `save` wrote; raises ArtifactError where it cannot be read or does not fit."""
    try:
        document = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise ArtifactError(f"{path}: not a policy's memory ({error})") from error
    restore(policy, document, str(path))


def _name(policy: Policy) -> str:
    return f"{type(policy).__module__}:{type(policy).__qualname__}"


def _plain(value: Any) -> Any:
    if isinstance(value, np.random.Generator):
        return dict(value.bit_generator.state)
    return value.tolist() if isinstance(value, np.ndarray | np.generic) else value


def _like(now: Any, kept: Any) -> Any:
    """What was kept, in the type the attribute has in a prepared policy; raises ValueError, TypeError or KeyError."""
    if isinstance(now, np.random.Generator):
        rng = np.random.default_rng(0)
        rng.bit_generator.state = kept
        return rng
    if isinstance(now, np.ndarray):
        found = np.asarray(kept, now.dtype)
        if found.shape != now.shape:
            raise ValueError(f"expected an array of shape {now.shape}, got {found.shape}")
        return found
    if now is not None and kept is not None and type(kept) is not type(now):
        raise TypeError(f"expected {type(now).__name__}, got {type(kept).__name__}")
    return kept
