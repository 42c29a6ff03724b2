"""The command line: `comptroller`. Each group of commands has a file of its own.

Exit codes: 0 done; 1 discrepancies or errors found; 2 bad usage or input; 3 a needed service is
down. An error is one line on stderr that says what and where; a policy file's are one line each.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Annotated, Any, Final

import typer

from policies.errors import (
    AccountBusy,
    ComptrollerError,
    PaymentUnavailable,
    PolicyError,
    StoreUnavailable,
)
from quota.edges import (
    cli_account,
    cli_business,
    cli_demo,
    cli_grant,
    cli_operations,
    cli_policies,
    cli_replay,
    cli_stripe,
)
from quota.edges.common import BAD_INPUT, DONE, FOUND, SERVICE_DOWN, fall_silent
from quota.version import ENGINE

INTERRUPTED: Final = 130

app = typer.Typer(
    name="comptroller",
    help="Quota and billing policy engine for generative-AI backends: how much is allowed, out of "
    "what, at what GPU cost.",
    epilog="Try `comptroller demo` first. COMPTROLLER_DATABASE and COMPTROLLER_POLICIES take the "
    "place of --database and --policies; COMPTROLLER_REDIS names the Redis in front, if there is one. "
    "Exit codes: 0 done, 1 errors found, 2 bad input, 3 a service is down.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
)
cli_demo.add_to(app)
cli_replay.add_to(app)
app.add_typer(cli_policies.app, name="policies")
app.add_typer(cli_account.app, name="account")
app.add_typer(cli_grant.app, name="grant")
app.add_typer(cli_stripe.app, name="stripe")
cli_business.add_to(app)
app.add_typer(cli_business.audit, name="audit")
cli_operations.add_to(app)
app.add_typer(cli_operations.db, name="db")
cli_account.add_to(app)


def _version(wanted: bool) -> None:
    if wanted:
        sys.stdout.write(f"comptroller {ENGINE}\n")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool,
        typer.Option("--version", callback=_version, is_eager=True, help="Print the version."),
    ] = False,
) -> None:
    """Take the options of `comptroller` itself."""


def main(arguments: list[str] | None = None) -> None:
    """Run the command line, and exit with its code."""
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            # Whoever started us has closed it. What is opened next would take its number.
            nowhere = Path(os.devnull).open(mode, encoding="utf-8")  # noqa: SIM115 - to the end
            setattr(sys, name, nowhere)
    sys.exit(run(sys.argv[1:] if arguments is None else arguments))


def run(arguments: list[str]) -> int:
    """Run a command and return its exit code. Errors are told on stderr, never raised."""
    try:
        code = app(args=arguments, prog_name="comptroller", standalone_mode=False)
        sys.stdout.flush()
        # Typer turns Ctrl-C into this code, without a word.
        return _told("interrupted" if code == INTERRUPTED else "", code or DONE)
    except PolicyError as error:
        return _told("\n".join(error.problems), BAD_INPUT)
    except (StoreUnavailable, AccountBusy, PaymentUnavailable) as error:
        return _told(_line(error), SERVICE_DOWN)
    except ComptrollerError as error:
        return _told(_line(error), getattr(error, "exit_code", BAD_INPUT))
    except BrokenPipeError:
        fall_silent()
        return DONE
    except SystemExit as error:
        # So leave the printers of help texts where nobody reads on.
        if not isinstance(error.__context__, BrokenPipeError):
            raise
        fall_silent()
        return DONE
    except OSError as error:
        where = error.filename or "comptroller"
        return _told(f"{where}: {(error.strerror or str(error)).lower()}", BAD_INPUT)
    except (KeyboardInterrupt, typer.Abort):
        return _told("interrupted", INTERRUPTED)
    except Exception as error:
        # Typer's own usage errors; it has its own copy of click's classes, or click's.
        if not hasattr(error, "format_message"):
            raise
        return _told(_usage(error), BAD_INPUT)


def _line(error: Exception) -> str:
    return f"comptroller: {' '.join(str(error).split())}"


def _usage(error: Any) -> str:
    path = error.ctx.command_path if getattr(error, "ctx", None) is not None else "comptroller"
    message = " ".join(str(error.format_message()).split()).rstrip(".")
    message = message.replace("Value error, ", "")
    if not message:
        return ""  # No command was given: the help has been printed instead.
    return f"{path}: {message[:1].lower()}{message[1:]} (see {path} --help)"


def _told(message: str, code: int) -> int:
    if message:
        sys.stderr.write(message + "\n")
    return code


__all__ = ["DONE", "FOUND", "app", "main", "run"]
