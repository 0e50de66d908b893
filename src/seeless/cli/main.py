"""The entry point: wires the verbs, and turns errors into one line and an exit code."""

import importlib.util
import sys

INSTALL = 'pip install "seeless[cli]"'
NEEDED = ("typer", "rich", "PIL")
FIELDS_ARE_FLAGS = {"allow_extra_args": True, "ignore_unknown_options": True}


def main(arguments: list[str] | None = None) -> None:
    """Run the command line; ends the process with its exit code."""
    if any(importlib.util.find_spec(package) is None for package in NEEDED):
        sys.exit(f"error: the command line needs typer, rich and Pillow: {INSTALL}")
    import typer

    import seeless as sl
    from seeless.cli.console import whole_output
    from seeless.cli.errors import exit_code
    from seeless.cli.eval import evaluate
    from seeless.cli.info import info
    from seeless.cli.list import list_strategies
    from seeless.cli.plot import plot
    from seeless.cli.run import run
    from seeless.cli.sweep import sweep
    from seeless.cli.tasks_path import print_tasks_path
    from seeless.cli.train import train
    from seeless.named.errors import one_line

    def show_version(wanted: bool) -> None:
        if wanted:
            print(f"seeless {sl.__version__}")
            raise typer.Exit

    app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)

    @app.callback()
    def root(
        version: bool = typer.Option(False, "--version", callback=show_version, is_eager=True, help="Print it."),
    ) -> None:
        """Vision-language models that look at fewer visual tokens."""

    app.command("list")(list_strategies)
    app.command("info")(info)
    app.command("run", context_settings=FIELDS_ARE_FLAGS)(run)
    app.command("train", context_settings=FIELDS_ARE_FLAGS)(train)
    app.command("eval", context_settings=FIELDS_ARE_FLAGS)(evaluate)
    app.command("sweep", context_settings=FIELDS_ARE_FLAGS)(sweep)
    app.command("plot")(plot)
    app.command("tasks-path")(print_tasks_path)
    try:
        with whole_output():
            app(args=arguments, prog_name="seeless")
    except sl.SeelessError as error:
        print(f"error: {one_line(error)}", file=sys.stderr)
        sys.exit(exit_code(error))


if __name__ == "__main__":
    main()
