"""The `pgkura` command: registers the verbs, turns errors into sentences and documented exit codes."""

import os
import signal
import sys
from importlib import import_module
from types import FrameType

import typer

from pgkura import __version__
from pgkura.cli.output import print_error
from pgkura.core.errors import Interrupted, PgkuraError, UsageError
from pgkura.core.memory import rarely_collect, use_again

EPILOG = (
    "Exit codes: 0 ok · 1 failed · 2 usage · 3 incomplete (something could not be saved or restored; it is named) · "
    "10 no repository · 11 repository exists · 12 wrong key · 13 store · 14 database · 15 rights · "
    "16 damaged or forged file · 17 newer format · 18 target not empty · 19 client program · 20 source busy · "
    "21 not confirmed · 22 plan outdated · 23 moment not reachable · 130 interrupted"
)

# Where each verb is made. Modules are loaded when asked for: starting up is a good part of a backup that finds nothing.
_VERBS = {
    "init": "verbs_repository",
    "doctor": "verbs_inspect",
    "backup": "verbs_run",
    "snapshots": "verbs_repository",
    "show": "verbs_repository",
    "history": "verbs_repository",
    "diff": "verbs_inspect",
    "restore": "verbs_restore",
    "release": "verbs_restore",
    "verify": "verbs_inspect",
    "export": "verbs_repository",
    "prune": "verbs_keep",
    "copy": "verbs_keep",
    "watch": "verbs_changes",
    "unwatch": "verbs_unwatch",
    "mark": "verbs_changes",
    "timeline": "verbs_changes",
    "find": "verbs_changes",
    "demo": "verbs_demo",
}
_GROUPS = {"people": "verbs_keys", "hosts": "verbs_keys", "epoch": "verbs_keys"}

# How long a thread that computes may keep the others from the interpreter (Python's own: 5 ms). Those that receive and
# compress rows need it for moments, often: beside what reads definitions they mostly waited for it.
_TURN_SECONDS = 0.0005
# What numpy brings for matrices, of which we have none, starts a thread for each processor, which then look for work.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")


def _version(wanted: bool) -> None:
    if wanted:
        print(f"pgkura {__version__}")
        raise typer.Exit


def root(
    version: bool = typer.Option(False, "--version", callback=_version, is_eager=True, help="Print the version."),
) -> None:
    """Global options."""


def build(only: str = "") -> typer.Typer:
    """The command line, with all verbs or with one of them."""
    made = typer.Typer(
        name="pgkura",
        help="Back up a PostgreSQL or Supabase database completely and sealed; get it back, proven equal.",
        epilog=EPILOG,
        no_args_is_help=True,
        rich_markup_mode=None,
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    made.callback()(root)
    for name, module in {**_VERBS, **_GROUPS}.items():
        if only in ("", name):
            verb = getattr(import_module(f"pgkura.cli.{module}"), name)
            if name in _GROUPS:
                made.add_typer(verb, name=name)
            else:
                made.command(name)(verb)
    return made


def _asked(arguments: list[str]) -> str:
    """The verb on the command line, '' where all must be known: for help, for completion, for a misspelt one."""
    if any(name.endswith("_COMPLETE") for name in os.environ):
        return ""
    first = next((a for a in arguments if not a.startswith("-")), "")
    return first if first in _VERBS or first in _GROUPS else ""


def _interrupt(signum: int, frame: FrameType | None) -> None:
    raise Interrupted(f"stopped by {signal.Signals(signum).name}", hint="what was stored stays; run it again")


def main() -> None:
    """Run the command line and exit with its code."""
    signal.signal(signal.SIGINT, _interrupt)
    signal.signal(signal.SIGTERM, _interrupt)
    rarely_collect()
    use_again()
    sys.setswitchinterval(_TURN_SECONDS)
    as_json = "--json" in sys.argv[1:]
    try:
        sys.exit(build(_asked(sys.argv[1:]))(standalone_mode=False, prog_name="pgkura") or 0)
    except PgkuraError as error:
        print_error(error, as_json=as_json)
        sys.exit(error.exit_code)
    except typer.Abort:
        sys.exit(Interrupted.exit_code)
    except Exception as error:
        wrong = _usage_error(error)
        if wrong is None:
            raise
        print_error(wrong, as_json=as_json)
        sys.exit(wrong.exit_code)


def _usage_error(error: Exception) -> UsageError | None:
    """The parser's own complaint as ours, or None if this is a bug that deserves its traceback."""
    message = getattr(error, "format_message", None)
    if message is None:
        return None
    return UsageError(str(message()), hint="see `pgkura --help` or `pgkura VERB --help`")
