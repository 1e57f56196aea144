"""The command line, called as tests call it."""

from typer.testing import CliRunner, Result

from harness.types import InputError
from run import app


def call(*arguments: object) -> Result:
    """A command in this process, whatever comes of it."""
    return CliRunner().invoke(app, [str(argument) for argument in arguments], catch_exceptions=True)


def ok(*arguments: object) -> str:
    """What a command prints that must succeed."""
    result = call(*arguments)
    assert result.exit_code == 0, (result.output, result.exception)
    return result.stdout


def refused(*arguments: object) -> str:
    """The message of a command that must be refused; ``main`` prints it alone and exits with 1."""
    result = call(*arguments)
    assert isinstance(result.exception, InputError), (result.exit_code, result.output, result.exception)
    return str(result.exception)
