"""Functions that a user names on the command line, MODULE:FUNCTION: imported, and called with settings in JSON.

They are taken from the command line and the configuration file only, never from data or a checkpoint.
"""

import importlib
import json
import os
import sys
from collections.abc import Callable
from typing import Any


def named_function(key: str, name: str) -> Callable[..., Any]:
    """Import MODULE, from the working directory too, and return FUNCTION.

    Args:
      key: of the configuration, for messages.

    Raises:
      ValueError: no MODULE:FUNCTION, no such module, one that cannot be imported, or no such function in it.
    """
    module, _, function = name.partition(":")
    if os.getcwd() not in sys.path:  # as `python -m` has it, and `python FILE` has not
        sys.path.insert(0, os.getcwd())
    if not function or not all(part.isidentifier() for part in module.split(".")) or module.endswith(".py"):
        raise ValueError(f"config.{key}={name!r}: expected MODULE:FUNCTION, a module's name and no file's, like my_model:make")
    try:
        found = getattr(importlib.import_module(module), function)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{module}.".startswith(f"{error.name}."):
            raise ValueError(f"config.{key}={name!r}: {module} could not be imported: {error}") from error
        where = f"no module {error.name} in {os.getcwd()} or on PYTHONPATH: begin in the folder of {module}.py, or set PYTHONPATH=FOLDER"
        raise ValueError(f"config.{key}={name!r}: {where}") from error
    except (ImportError, SyntaxError) as error:
        raise ValueError(f"config.{key}={name!r}: {module} could not be imported: {error}") from error
    except AttributeError as error:
        raise ValueError(f"config.{key}={name!r}: {error}") from error
    if not callable(found):
        raise ValueError(f"config.{key}={name!r}: expected MODULE:FUNCTION ({function} is a {type(found).__name__})")
    return found


def json_settings(key: str, text: str) -> Any:
    """Settings of a factory, from JSON.

    Raises:
      ValueError: no JSON.
    """
    try:
        return json.loads(text or "{}")
    except ValueError as error:
        raise ValueError(f"config.{key}={text!r}: expected JSON ({error})") from error


def checked_settings(key: str, settings: Any) -> dict[str, Any]:
    """Settings that can be given by name.

    Raises:
      ValueError: no JSON object.
    """
    if not isinstance(settings, dict):
        raise ValueError(f'config.{key}={json.dumps(settings)!r}: expected a JSON object, as \'{{"checkpoint": "model.pt"}}\'')
    return settings
