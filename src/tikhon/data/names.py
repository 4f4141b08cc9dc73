"""What a name on the command line stands for: one of ours, or the user's own `module:function`."""

import hashlib
import importlib
import inspect
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tikhon.core.errors import TikhonError, near_misses


def unknown(what: str, name: str, known: Iterable[str]) -> TikhonError:
    """The error for a name that is not among the `known` ones, with near misses where there are any.

    >>> print(unknown("task", "digit", ["digits", "wine"]))
    unknown task 'digit'. Did you mean 'digits'?
    """
    return TikhonError(f"unknown {what} {name!r}. {near_misses(name, known)}")


def call_user(spec: str, *arguments: object, what: str) -> Any:
    """Import and call the user's function.

    spec: `module:function`; the current directory is importable. arguments: passed by position.
    what: how errors name the function's purpose ("data", "model").
    Errors: TikhonError if the module, the function or the call fails; the cause is chained.
    """
    module_name, _, function_name = spec.partition(":")
    if not module_name or not function_name:
        raise TikhonError(f"{what} {spec!r} is not of the form module:function, for example my_{what}:load")
    with _current_directory_importable():
        function = _find(spec, module_name, function_name, what)
        try:
            inspect.signature(function).bind(*arguments)
        except TypeError as error:
            takes = f"{len(arguments)} argument{'s' if len(arguments) != 1 else ''}" if arguments else "no arguments"
            raise TikhonError(
                f"{what} function {spec!r} must be callable with {takes} ({error}); give further parameters defaults"
            ) from error
        except ValueError:
            pass  # some callables written in C have no signature to look at: the call itself will tell
        try:
            return function(*arguments)
        except TikhonError:
            raise
        except Exception as error:
            raise TikhonError(f"{what} function {spec!r} raised {type(error).__name__}: {error}") from error


def source_of(spec: str) -> str:
    """A hash of the file that the user's `module:function` lies in; "" for a module without a file.

    It must have been called before (`call_user`). What that file imports in turn is not looked at.
    """
    file = sys.modules[spec.partition(":")[0]].__file__
    return hashlib.sha256(Path(file).read_bytes()).hexdigest()[:16] if file else ""


def _find(spec: str, module_name: str, function_name: str, what: str) -> Callable[..., Any]:
    try:
        module = importlib.import_module(module_name)
    except Exception as error:
        if isinstance(error, ModuleNotFoundError) and error.name == module_name:
            raise TikhonError(
                f"{what} {spec!r}: there is no module {module_name!r} in {Path.cwd()} or among the installed packages"
            ) from error
        raise TikhonError(
            f"{what} {spec!r}: importing {module_name!r} raised {type(error).__name__}: {error}"
        ) from error
    function = getattr(module, function_name, None)
    if function is None:
        public = [name for name, value in vars(module).items() if callable(value) and not name.startswith("_")]
        raise unknown(f"function in {module_name}:", function_name, public)
    if not callable(function):
        raise TikhonError(f"{what} {spec!r} is {type(function).__name__}, not a function")
    checked: Callable[..., Any] = function
    return checked


@contextmanager
def _current_directory_importable() -> Iterator[None]:
    """An installed command does not see the current directory; a user's own file lies exactly there."""
    here = str(Path.cwd())
    sys.path.insert(0, here)
    try:
        yield
    finally:
        sys.path.remove(here)
