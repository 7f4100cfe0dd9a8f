"""The command line of a recipe: options, errors in a line, devices."""

import importlib
import logging
import os
import pathlib
import sys
from collections.abc import Callable
from typing import Any

import tyro

from tfrlhf.cli.run import RunSettings
from tfrlhf.cli.run import UserError
from tfrlhf.cli.tables import console
from tfrlhf.kept import kept_directory


def main(recipe: Callable[[Any], None], settings_class: type) -> None:
    """Parses the command line and runs a recipe; errors of use in a line.

    Args:
        recipe: takes the settings.
        settings_class: a dataclass that extends `RunSettings`.
    """
    settings: Any = tyro.cli(settings_class, description=recipe.__doc__)
    os.environ.setdefault("KERAS_BACKEND", "tensorflow")
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    # It warns of the traces that several models of a run need.
    logging.getLogger("tensorflow").setLevel(logging.ERROR)
    os.environ.setdefault("TRANSFORMERS_NO_ADVISORY_WARNINGS", "1")
    keep_compiled()
    try:
        check_files(settings)
        recipe(settings)
    except (ValueError, FileNotFoundError, ImportError) as error:
        # Data, reward, model and directory errors say what to do themselves.
        if not _is_ours(error):
            raise
        console.print("Error:", style="red", end=" ")
        console.print(str(error), soft_wrap=True, markup=False)
        sys.exit(2)


def keep_compiled() -> None:
    """Lets XLA keep what it compiles for the next start.

    In a directory of this TensorFlow and this processor below
    `$XDG_CACHE_HOME` (~/.cache), which may be deleted at any time. Does
    nothing where TF_XLA_FLAGS is set or the directory cannot be made; has to
    come before TensorFlow is imported.
    """
    if "TF_XLA_FLAGS" in os.environ:
        return
    directory = kept_directory("xla")
    if directory is None:
        return
    os.environ["TF_XLA_FLAGS"] = (
        f"--tf_xla_persistent_cache_directory={directory} "
        "--tf_xla_persistent_cache_read_only=false"
    )


def check_files(settings: RunSettings) -> None:
    """Refuses paths to read from that are not there, before anything starts.

    Args:
        settings: whose paths, but for `output`, are inputs.

    Raises:
        UserError: names the option and the path.
    """
    for name, value in vars(settings).items():
        is_input = isinstance(value, pathlib.Path) and name != "output"
        if is_input and not value.exists():
            option = "--" + name.replace("_", "-")
            raise UserError(f"{option} {value} does not exist: check the path.")


def make_strategy(name: str) -> Any:
    """Makes a `tf.distribute` strategy.

    Args:
        name: none, mirrored (all GPUs) or mirrored:N (N logical CPUs).

    Returns:
        The strategy.

    Raises:
        UserError: an unknown name.
    """
    import tensorflow as tf

    kind, colon, count = name.partition(":")
    if name == "none":
        return tf.distribute.get_strategy()
    if kind != "mirrored" or (colon and not (count.isdigit() and int(count))):
        raise UserError(
            f"--strategy must be none, mirrored or mirrored:N, not {name!r}."
        )
    if not count:
        return tf.distribute.MirroredStrategy()
    tf.config.set_logical_device_configuration(
        tf.config.list_physical_devices("CPU")[0],
        [tf.config.LogicalDeviceConfiguration()] * int(count),
    )
    return tf.distribute.MirroredStrategy(
        [f"CPU:{i}" for i in range(int(count))]
    )


def load_function(option: str, spec: str) -> Callable[..., Any]:
    """Finds a function by `module:function`.

    Args:
        option: the name of the option, for messages.
        spec: a module on the path or in the current directory, and a name.

    Returns:
        The function.

    Raises:
        UserError: there is no such module or function.
    """
    module_name, separator, function_name = spec.partition(":")
    if not separator or not module_name or not function_name:
        raise UserError(
            f"{option} must be `module:function`, for example "
            f"tfrlhf.rewards:vader, not {spec!r}."
        )
    sys.path.insert(0, os.getcwd())
    try:
        module = importlib.import_module(module_name)
    except ImportError as error:
        raise UserError(
            f"{option} {spec}: module {module_name!r} cannot be imported "
            f"({error}); it must be installed or lie in this directory."
        ) from error
    finally:
        sys.path.pop(0)
    function = vars(module).get(function_name)
    if not callable(function):
        raise UserError(
            f"{option} {spec}: module {module_name!r} has no function "
            f"{function_name!r}."
        )
    return function


def _is_ours(error: BaseException) -> bool:
    """Tells whether an error was raised by this project's own code."""
    if isinstance(error, UserError):
        return True
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    if trace is None:
        return False
    source = pathlib.Path(trace.tb_frame.f_code.co_filename).resolve()
    home = pathlib.Path(__file__).resolve().parents[1]
    return home in source.parents
