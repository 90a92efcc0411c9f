"""The command line: results on stdout, progress and logs on stderr; exit 0 done, 1 a clear error, 2 wrong usage, 130 interrupted.

Each command lives in a file of its own and imports what it needs when it runs: `headstart predict` must not wait for PyTorch.
"""

import logging
import os
import sys
from typing import Annotated, NoReturn

import typer

from headstart.cli import backbones, compare, demo, evaluate, explain, explore, export, predict, probe, serve, store, studio, train
from headstart.errors import HeadstartError, safe_text

INTERRUPTED = 130  # what shells expect of a process that Ctrl-C ended
CONTINUED = ("explore", "train", "demo", "probe", "studio")  # commands that go on where they were interrupted

# Modules that `pip install headstart` leaves out, and the extra that brings each.
EXTRAS = {
    "openvino": "fast",
    "nncf": "export",
    "pillow_heif": "heic",
    "pyarrow": "parquet",
    **dict.fromkeys(("torch", "torchvision", "timm", "accelerate", "safetensors", "huggingface_hub"), "train"),
    **dict.fromkeys(("fastapi", "starlette", "uvicorn", "python_multipart", "prometheus_client"), "serve"),
    **dict.fromkeys(("onnx", "onnxscript", "sklearn", "matplotlib", "jinja2", "portalocker"), "train"),
}

log = logging.getLogger("headstart")

app = typer.Typer(
    name="headstart",
    help="Turn a folder of labelled photos into an image classifier you can trust.",
    epilog="First time? Run: headstart demo",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command("demo")(demo.demo)
app.command("explore")(explore.explore)
app.command("train")(train.train)
app.command("probe")(probe.probe)
app.command("evaluate")(evaluate.evaluate)
app.command("compare")(compare.compare)
app.command("predict")(predict.predict)
app.command("explain")(explain.explain)
app.command("export")(export.export)
app.command("serve")(serve.serve)
app.command("studio")(studio.studio)
app.command("backbones")(backbones.backbones)
app.command("store")(store.store)


def _version(wanted: bool) -> None:
    if wanted:
        import importlib.metadata

        print(f"headstart {importlib.metadata.version('headstart')}")
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and stop.")] = False,
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Log what is decided along the way.")] = False,
) -> None:
    logging.basicConfig(level=logging.WARNING, format="%(message)s", stream=sys.stderr)
    logging.getLogger("headstart").setLevel(logging.INFO if verbose else logging.WARNING)


def main() -> None:
    """The entry point. An error of the user's is one line and perhaps a hint; a traceback is a bug of headstart."""
    try:
        code = app(standalone_mode=False)
    except HeadstartError as error:
        fail(error)
    except (KeyboardInterrupt, typer.Abort):
        code = INTERRUPTED
    except BrokenPipeError:
        _end_unread()
    except SystemExit as ended:
        if isinstance(ended.__context__, BrokenPipeError):  # the command-line library would make it a failure
            _end_unread()
        raise
    except ModuleNotFoundError as error:
        fail(_not_installed(error))
    except MemoryError as error:  # numpy says how much it asked for, others say nothing
        said = f": {safe_text(str(error))}" if str(error) else ""
        fail(HeadstartError(f"out of memory{said}", hint="close other programs, or use a machine with more memory"))
    except OSError as error:  # the last net: where a disk or a folder fails is not always foreseen
        log.info("the operating system refused", exc_info=True)
        what = error.strerror if error.strerror else str(error)
        fail(HeadstartError(safe_text(what if error.filename is None else f"{what}: {error.filename}")))
    except Exception as error:
        if not hasattr(error, "exit_code") or not hasattr(error, "show"):
            raise
        error.show()  # wrong usage, in the words of the command-line library
        sys.exit(error.exit_code)
    if code == INTERRUPTED:
        command = next((word for word in sys.argv[1:] if not word.startswith("-")), "")
        kept = "; what was computed is kept, the same command continues" if command in CONTINUED else ""
        print(f"\ninterrupted{kept}", file=sys.stderr)
    sys.exit(code if isinstance(code, int) else 0)


def _end_unread() -> NoReturn:
    """End as one should whose reader (`| head`) has gone: nothing is wrong, and nothing is left to be written."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    sys.exit(0)


def _not_installed(error: ModuleNotFoundError) -> HeadstartError:
    """The user's words for a part that was not installed. Raises: `error` itself, where no extra would bring that module."""
    module = (error.name if error.name is not None else "").partition(".")[0]
    if module in EXTRAS:
        return HeadstartError(f"this command needs {module}, which is not installed", hint=f"pip install 'headstart[{EXTRAS[module]}]'")
    raise error


def fail(error: HeadstartError) -> None:
    """Say what is wrong on stderr and exit with 1."""
    print(f"error: {error}", file=sys.stderr)
    sys.exit(1)


if __name__ == "__main__":
    main()
